//! Before a start: the image is had from other nodes if it is not here, and unpacked. Each is a phase that people see.

use std::{
    str::FromStr,
    time::{Duration, Instant},
};

use oci::{content::Lease, digest::Digest};
use tokio::{
    sync::{oneshot, watch},
    task::spawn_blocking,
    time::sleep,
};

use super::{
    prepare::{Failure, lasting, transient},
    watch::Watched,
};
use crate::{
    event::{RunEvent, StartRun},
    images::{Fetched, Phase},
};

/// Between two reports of how far a fetch has got.
const REPORT: Duration = Duration::from_secs(1);

/// Keeps an image from being collected.
pub(super) struct Hold {
    _image: Lease,
    _fetch: Option<watch::Receiver<Phase>>,
}

impl Watched {
    /// The image whole and unpacked. What is returned keeps it so until the run is known.
    pub(super) async fn have_image(
        &self,
        start: &StartRun,
        called_off: oneshot::Receiver<()>,
    ) -> Result<Hold, Failure> {
        let digest = Digest::from_str(&start.digest).map_err(lasting)?;
        let images = &self.ground.images;
        let mut lease = images.store().lease();
        lease.hold(&digest);
        images.store().touch(&digest);
        if images.store().is_unpacked(&digest) {
            return Ok(Hold { _image: lease, _fetch: None });
        }
        let mut phase = images.fetch(&start.image, digest);
        let begun = Instant::now();
        let fetched = tokio::select! {
            fetched = self.fetched(start, &mut phase) => fetched?,
            _ = called_off => {
                return Err(Failure { why: "its start was called off".into(), transient: true });
            }
        };
        if fetched.bytes > 0 {
            let text = format!("fetched {}: {fetched}", start.image);
            self.over("fetched", text, begun);
        }
        self.tell(RunEvent::Phase(format!("unpacking {}", start.image)));
        let begun = Instant::now();
        let store = images.store().clone();
        let unpacked = spawn_blocking(move || store.ensure_unpacked(&digest)).await;
        unpacked.map_err(transient)?.map_err(lasting)?;
        self.over("unpacked", format!("unpacked {}", start.image), begun);
        images.name_fetched(&start.image, digest, &fetched).await;
        Ok(Hold { _image: lease, _fetch: Some(phase) })
    }

    fn over(&self, kind: &'static str, text: String, begun: Instant) {
        let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.tell(RunEvent::PhaseOver { kind, text: format!("{text} in {ms} ms"), ms });
    }

    async fn fetched(
        &self,
        start: &StartRun,
        phase: &mut watch::Receiver<Phase>,
    ) -> Result<Fetched, Failure> {
        let mut said = String::new();
        loop {
            let now = phase.borrow_and_update().clone();
            let text = match now {
                Phase::Done(fetched) => return Ok(fetched),
                Phase::Failed(error) => return Err(lasting(error)),
                Phase::Asking => String::new(),
                Phase::Fetching(moving) => format!("fetching {}{moving}", start.image),
                Phase::Waiting(error) => error.to_string(),
            };
            if text != said {
                self.tell(RunEvent::Phase(text.clone()));
                said = text;
                // Meanwhile only the end is of interest.
                let ended = phase.wait_for(|phase| matches!(phase, Phase::Done(_) | Phase::Failed(_)));
                tokio::select! {
                    _ = ended => continue,
                    () = sleep(REPORT) => {}
                }
            }
            if phase.changed().await.is_err() {
                return Err(transient(format_args!("the fetch of {} broke off", start.image)));
            }
        }
    }
}
