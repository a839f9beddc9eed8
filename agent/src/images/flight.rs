//! One fetch of an image for all who want it: it goes on while anybody waits for it, and no longer.

use std::{collections::BTreeSet, fmt};

use oci::digest::Digest;
use tokio::sync::watch;

use super::{FetchError, Images, bytes, listed, locked};

/// How far a fetch has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Others are asked.
    Asking,
    Fetching(Moving),
    /// It cannot be had now: tried again in a while, and whenever there is news.
    Waiting(FetchError),
    Done(Fetched),
    /// Trying again would not help.
    Failed(FetchError),
}

/// Bytes on their way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moving {
    /// Names of the nodes that give something.
    pub from: BTreeSet<String>,
    pub done: u64,
    pub total: u64,
    /// Blobs that have come, and those in all.
    pub came: usize,
    pub parts: usize,
}

/// What a fetch brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Names of the nodes that gave something; none if all was here.
    pub from: Vec<String>,
    pub bytes: u64,
}

impl fmt::Display for Moving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from: Vec<String> = self.from.iter().cloned().collect();
        let from = if from.is_empty() { String::new() } else { format!(" from {}", listed(&from)) };
        write!(f, "{from}, {} of {}", bytes(self.done), bytes(self.total))
    }
}

impl fmt::Display for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.from.as_slice() {
            [] => write!(f, "{}", bytes(self.bytes)),
            from => write!(f, "{} from {}", bytes(self.bytes), listed(from)),
        }
    }
}

impl Images {
    /// Begins to fetch the image, or watches the fetch that is under way. It ends when nobody watches it any more.
    /// `name`: what it is called, to show.
    pub fn fetch(&self, name: &str, digest: Digest) -> watch::Receiver<Phase> {
        let mut flights = locked(&self.0.flights);
        if let Some(flight) = flights.get(&digest) {
            return flight.subscribe();
        }
        let (phase, watched) = watch::channel(Phase::Asking);
        flights.insert(digest, phase.clone());
        let (images, name) = (self.clone(), name.to_string());
        tokio::spawn(async move { images.fly(&name, digest, phase).await });
        watched
    }

    async fn fly(&self, name: &str, digest: Digest, phase: watch::Sender<Phase>) {
        let mut leases = Vec::new();
        let landed = {
            let mut work = std::pin::pin!(self.bring(name, digest, &phase, &mut leases));
            loop {
                tokio::select! {
                    landed = &mut work => break Some(landed),
                    () = phase.closed() => {
                        // Somebody may have come in the meantime: whoever comes looks under this lock.
                        let mut flights = locked(&self.0.flights);
                        if phase.receiver_count() == 0 {
                            flights.remove(&digest);
                            break None;
                        }
                    }
                }
            }
        };
        match landed {
            Some(Ok(fetched)) => {
                if fetched.bytes > 0 {
                    locked(&self.0.fetched).insert(digest);
                    self.touch();
                }
                locked(&self.0.flights).remove(&digest);
                phase.send_replace(Phase::Done(fetched));
                // Whoever waited has it in his books, or names it before he lets go of the last phase.
                phase.closed().await;
            }
            failed => {
                let store = self.0.store.clone();
                let abandoned = tokio::task::spawn_blocking(move || {
                    leases.into_iter().try_for_each(|lease: oci::content::Lease| lease.abandon(&store))
                });
                if let Ok(Err(error)) = abandoned.await {
                    tracing::warn!(
                        "what was fetched of {name} in vain stays until the next collection: {error}"
                    );
                }
                if let Some(Err(error)) = failed {
                    locked(&self.0.flights).remove(&digest);
                    phase.send_replace(Phase::Failed(error));
                }
            }
        }
    }
}
