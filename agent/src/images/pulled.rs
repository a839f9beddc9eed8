//! An image at a user's word: by its name from its registry, or made of a file.

use std::path::PathBuf;

use gossip::wire::image::ImageName;
use oci::{binary, content, digest::Digest, reference::Reference};
use placement::ledger::Refusal;
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, sleep},
};

use super::{Fetched, Images, Phase};

/// How an image of a file is written in a job.
pub const FILE: &str = "file://";

/// How far a pull is: what it does now, and bytes.
pub type Moved = (String, u64, u64);

/// What a pull brought.
pub struct Pulled {
    /// None: the reference has only a digest, and so gives no name.
    pub name: Option<ImageName>,
    pub digest: Digest,
    pub fetched: Fetched,
}

fn invalid(error: impl std::fmt::Display) -> Refusal {
    Refusal::new("invalid", error, None)
}

impl Images {
    /// Asks the registry what the name stands for now, brings it in, unpacks and names it.
    pub async fn pull_named(&self, text: &str, tell: mpsc::Sender<Moved>) -> Result<Pulled, Refusal> {
        let wanted: Reference = text.parse().map_err(invalid)?;
        let Some(reference) = self.0.registries.reference(text) else {
            let message = format!("{wanted} leads to no registry");
            let hint = "name one: REGISTRY/NAME:TAG; or load the image from a file: covey image load FILE";
            return Err(Refusal::new("invalid", message, Some(hint)));
        };
        let begun = Instant::now();
        self.0.registries.forgive();
        let from = self.registry_name(&reference);
        let _ = tell.try_send((format!("asking {from} for {wanted}"), 0, 0));
        let refused = |error: super::registry::RegistryError| Refusal::new(error.code(), error, None);
        let digest = self.0.registries.resolve(&reference).await.map_err(refused)?;
        let mut phase = self.fetch(text, digest);
        let fetched = loop {
            let now = phase.borrow_and_update().clone();
            match now {
                Phase::Done(fetched) => break fetched,
                Phase::Waiting(error) | Phase::Failed(error) => {
                    return Err(Refusal::new("unreachable", error, None));
                }
                Phase::Asking => {}
                Phase::Fetching(moving) => {
                    let what = format!("pulling {wanted}, {} of {} blobs", moving.came, moving.parts);
                    let _ = tell.try_send((what, moving.done, moving.total));
                }
            }
            tokio::select! {
                changed = phase.changed() => changed.map_err(|_| invalid("the agent is ending"))?,
                // A client that hears nothing takes this node for dead.
                () = sleep(self.0.pace.answer) => {}
            }
        };
        let _ = tell.try_send((format!("unpacking {wanted}"), fetched.bytes, fetched.bytes));
        let (store, name) = (self.0.store.clone(), wanted.clone());
        let kept = spawn_blocking(move || {
            store.ensure_unpacked(&digest)?;
            store.touch(&digest);
            if name.digest().is_none() {
                store.set_name(&name, &digest)?;
            }
            Ok::<_, content::Error>(())
        });
        kept.await.map_err(|_| invalid("the agent is ending"))?.map_err(invalid)?;
        // Until here the content was held by the fetch.
        drop(phase);
        let ms = begun.elapsed().as_millis();
        let text = match fetched.bytes {
            0 => format!("pulled {wanted} ({digest}), which was here, in {ms} ms"),
            _ => format!("pulled {wanted} ({digest}): {fetched}, in {ms} ms"),
        };
        self.0.journal.node("image_pulled", text);
        self.touch();
        let name = match wanted.digest() {
            None => self.told(&wanted).map_err(invalid)?,
            Some(_) => None,
        };
        Ok(Pulled { name, digest, fetched })
    }

    /// Names what a run brought from a registry. Whatever was named so since, by whomever, counts more.
    pub async fn name_fetched(&self, name: &str, digest: Digest, fetched: &Fetched) {
        let of_registry = fetched.from.iter().any(|from| from.starts_with("registry "));
        let Some(reference) =
            self.0.registries.reference(name).filter(|r| of_registry && r.digest().is_none())
        else {
            return;
        };
        let store = self.0.store.clone();
        let named = spawn_blocking(move || store.set_name_at(&reference, &digest, 1)).await;
        match named {
            Ok(Err(error)) => tracing::warn!("{name} gets no name here: {error}"),
            _ => self.touch(),
        }
    }

    /// Makes an image of a static binary of this machine, and has others keep copies of it.
    pub async fn of_file(&self, text: &str) -> Result<Digest, Refusal> {
        let path = PathBuf::from(text.strip_prefix(FILE).unwrap_or(text));
        if !path.is_absolute() {
            let hint = "write three slashes: file:///usr/local/bin/server";
            return Err(Refusal::new("invalid", format!("{text} names no absolute path"), Some(hint)));
        }
        let store = self.0.store.clone();
        let made = spawn_blocking(move || binary::image_from_file(&store, &path));
        let made = made.await.map_err(|_| invalid("the agent is ending"))?.map_err(invalid)?;
        self.0.store.touch(&made.digest);
        if let Some(name) = self.told(&made.reference).map_err(invalid)? {
            let images = self.clone();
            // Nobody waits for the copies: the job can start where the file is read from.
            tokio::spawn(async move {
                let (tell, _) = mpsc::channel(1);
                images.spread(name, tell).await
            });
        }
        Ok(made.digest)
    }
}
