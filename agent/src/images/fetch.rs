//! A whole image from whoever has parts of it.

use std::time::Duration;

use oci::{
    content::{Lease, Part},
    digest::Digest,
};
use tokio::{
    sync::watch,
    task::{JoinSet, spawn_blocking},
    time::sleep,
};

use super::{
    Fetched, Images,
    ask::Holders,
    flight::{Moving, Phase},
    listed,
    transfer::progress,
};

/// An image that did not come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    #[error(
        "image {image} is on no node that answers: {what} {digest} was asked for{}; \
         load it on any node: covey image load FILE --name {image}",
        asked(heard, silent)
    )]
    Nobody { image: String, what: &'static str, digest: Digest, heard: Vec<String>, silent: Vec<String> },
    #[error("{what} {digest} of image {image} cannot be had: {}", why.join("; "))]
    Broken { image: String, what: &'static str, digest: Digest, why: Vec<String> },
    #[error("image {image} cannot be stored: {why}")]
    Store { image: String, why: String },
    #[error("{digest} is no image that could be run as {image}: {why}")]
    NotAnImage { image: String, digest: Digest, why: String },
    #[error("the fetch of image {image} broke off")]
    BrokeOff { image: String },
}

fn asked(heard: &[String], silent: &[String]) -> String {
    match (heard, silent) {
        ([], []) => ", and this node sees no others".into(),
        ([], silent) => format!("; {} did not answer", listed(silent)),
        (heard, []) => format!(" from {}", listed(heard)),
        (heard, silent) => format!(" from {}; {} did not answer", listed(heard), listed(silent)),
    }
}

impl FetchError {
    fn is_lasting(&self) -> bool {
        matches!(self, FetchError::NotAnImage { .. })
    }
}

/// Times `Pace::again` between two tries, at most.
const SELDOM: u32 = 32;

impl Images {
    /// Tries until the image is here or never will be. `leases` hold what has come, from one try to the next.
    pub(super) async fn bring(
        &self,
        name: &str,
        digest: Digest,
        phase: &watch::Sender<Phase>,
        leases: &mut Vec<Lease>,
    ) -> Result<Fetched, FetchError> {
        let mut lease = self.0.store.lease();
        lease.hold(&digest);
        leases.push(lease);
        let mut members = self.0.cell.peers.watch();
        let mut changed = self.changed();
        let mut moving = Moving::default();
        let mut pause = 1;
        loop {
            members.mark_unchanged();
            changed.mark_unchanged();
            let before = moving.done;
            match self.try_once(name, digest, phase, leases, &mut moving).await {
                Ok(()) => {
                    let from = moving.from.into_iter().collect();
                    return Ok(Fetched { from, bytes: moving.done });
                }
                Err(error) if error.is_lasting() => return Err(error),
                Err(error) => {
                    tracing::debug!("{error}");
                    phase.send_replace(Phase::Waiting(error));
                }
            }
            pause = if moving.done > before { 1 } else { (pause * 2).min(SELDOM) };
            tokio::select! {
                () = sleep(self.0.pace.again * pause) => {}
                _ = changed.changed() => {}
                () = more(&mut members) => {}
            }
        }
    }

    async fn try_once(
        &self,
        name: &str,
        digest: Digest,
        phase: &watch::Sender<Phase>,
        leases: &mut Vec<Lease>,
        moving: &mut Moving,
    ) -> Result<(), FetchError> {
        // The manifest first: it says what else there is.
        loop {
            let parts = self.missing(name, digest).await?;
            if parts.is_empty() {
                return Ok(());
            }
            let digests: Vec<Digest> = parts.iter().map(|part| part.digest).collect();
            let holders = self.who_has(&digests).await;
            let nowhere = parts.iter().find(|part| !holders.of.contains_key(&part.digest));
            if let Some(part) = nowhere
                && self.0.registries.reference(name).is_none()
            {
                return Err(self.nobody(name, part, &holders));
            }
            moving.parts = moving.came + parts.len();
            moving.total = moving.done + parts.iter().filter_map(|part| part.size).sum::<u64>();
            phase.send_replace(Phase::Fetching(moving.clone()));
            let (came, failed) = self.all_parts(name, parts, holders, phase).await;
            leases.extend(came);
            if let Phase::Fetching(now) = &*phase.borrow() {
                *moving = now.clone();
            }
            if let Some(error) = failed {
                return Err(error);
            }
        }
    }

    /// Brings the parts in, several at a time; each that came has a lease. One that fails does not stop the others:
    /// what has come need not come again.
    async fn all_parts(
        &self,
        name: &str,
        parts: Vec<Part>,
        mut holders: Holders,
        phase: &watch::Sender<Phase>,
    ) -> (Vec<Lease>, Option<FetchError>) {
        let mut coming = JoinSet::new();
        for part in parts {
            let from = holders.of.remove(&part.digest).unwrap_or_default();
            let (images, name, phase) = (self.clone(), name.to_string(), phase.clone());
            coming.spawn(async move { images.transfer(&name, part, from, &phase).await });
        }
        let (mut leases, mut failed) = (Vec::new(), None);
        while let Some(came) = coming.join_next().await {
            match came {
                Ok(Ok(lease)) => {
                    progress(phase, |moving| moving.came += 1);
                    leases.push(lease);
                }
                Ok(Err(error)) => failed = failed.or(Some(error)),
                Err(_) => failed = failed.or(Some(FetchError::BrokeOff { image: name.to_string() })),
            }
        }
        (leases, failed)
    }

    async fn missing(&self, name: &str, digest: Digest) -> Result<Vec<Part>, FetchError> {
        let store = self.0.store.clone();
        let image = || name.to_string();
        match spawn_blocking(move || store.missing(&digest)).await {
            Ok(Ok(parts)) => Ok(parts),
            // It is what was asked for, since its digest is, and yet no manifest.
            Ok(Err(
                error @ (oci::content::Error::Document { .. } | oci::content::Error::LargeDocument { .. }),
            )) => Err(FetchError::NotAnImage { image: image(), digest, why: error.to_string() }),
            Ok(Err(error)) => Err(FetchError::Store { image: image(), why: error.to_string() }),
            Err(_) => Err(FetchError::BrokeOff { image: image() }),
        }
    }

    fn nobody(&self, name: &str, part: &Part, holders: &Holders) -> FetchError {
        FetchError::Nobody {
            image: name.to_string(),
            what: part.what,
            digest: part.digest,
            heard: self.names(holders.asked.iter().copied()),
            silent: self.names(holders.silent.iter().copied()),
        }
    }

    pub(super) fn again(&self) -> Duration {
        self.0.pace.again
    }
}

/// Others have come or gone.
async fn more<T>(members: &mut watch::Receiver<T>) {
    if members.changed().await.is_err() {
        // Nobody looks for them any more: the agent is ending.
        std::future::pending().await
    }
}
