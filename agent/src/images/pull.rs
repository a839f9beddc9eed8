//! Blobs from the image's registry: what no node has. Of several nodes that want the same large blob at once, one brings
//! it in and the others have it from that one.

use gossip::wire::image::{ComingBlob, ImageQuestion, ImageTold};
use oci::{
    content::{Incoming, Part},
    digest::Digest,
    reference::Reference,
};
use placement::ids::NodeId;
use tokio::sync::watch;

use super::{
    Images, Phase, locked,
    registry::RegistryError,
    transfer::{End, progress, received, write},
};

/// Bytes that are written at once.
const PIECE: usize = 256 << 10;
/// A blob this small comes from the registry as quickly as others can be asked whether they bring it.
const SMALL: u64 = 1 << 20;
/// Times `Pace::again` until a registry that failed is asked for the same again.
const QUIET: u32 = 60;

/// Who else has a blob, or will.
pub(super) enum Elsewhere {
    Has(Vec<NodeId>),
    Comes,
    Nowhere,
}

/// Told to others who ask: this node brings the blob in, or is about to.
pub(super) struct Coming {
    images: Images,
    digest: Digest,
}

impl Coming {
    pub(super) fn begin(&self) {
        locked(&self.images.0.coming).insert(self.digest, true);
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        locked(&self.images.0.coming).remove(&self.digest);
    }
}

impl Images {
    pub(super) fn intend(&self, digest: Digest) -> Coming {
        locked(&self.0.coming).insert(digest, false);
        Coming { images: self.clone(), digest }
    }

    pub(super) fn coming(&self, digests: &[Digest]) -> Vec<ComingBlob> {
        let coming = locked(&self.0.coming);
        let found = digests.iter().filter_map(|digest| Some((digest, *coming.get(digest)?)));
        found.map(|(digest, begun)| ComingBlob { digest: digest.to_string(), begun }).collect()
    }

    /// Whether the registry need not be asked. Of those that are about to, the lowest id goes first.
    pub(super) async fn elsewhere(&self, part: &Part) -> Elsewhere {
        if part.size.is_none_or(|size| size < SMALL) {
            return Elsewhere::Nowhere;
        }
        let question = ImageQuestion::Have { digests: vec![part.digest.to_string()] };
        let (mut has, mut comes) = (Vec::new(), false);
        for (node, answer) in self.ask_each(self.others(), question).await {
            let Ok(ImageTold::Held { blobs, coming }) = answer else { continue };
            if !blobs.is_empty() {
                has.push(node);
            }
            comes |= coming.iter().any(|blob| blob.begun || node < self.0.cell.me());
        }
        match (has.is_empty(), comes) {
            (false, _) => Elsewhere::Has(has),
            (true, true) => Elsewhere::Comes,
            (true, false) => Elsewhere::Nowhere,
        }
    }

    /// Bytes from the registry, as far as it goes.
    pub(super) async fn pull(
        &self,
        reference: &Reference,
        part: &Part,
        incoming: &mut Option<Incoming>,
        phase: &watch::Sender<Phase>,
    ) -> End {
        let registries = &self.0.registries;
        if let Some(error) = registries.lately(&part.digest) {
            return End::Broke(error.to_string());
        }
        let before = received(incoming);
        let end = match part.size {
            None => self.pull_manifest(reference, part, incoming, phase).await,
            Some(size) => self.pull_blob(reference, part, size, incoming, phase).await,
        };
        match end {
            Ok(end) => end,
            Err(error) => {
                if received(incoming) == before {
                    registries.note_failure(&part.digest, &error, self.0.pace.again * QUIET);
                }
                End::Broke(error.to_string())
            }
        }
    }

    async fn pull_manifest(
        &self,
        reference: &Reference,
        part: &Part,
        incoming: &mut Option<Incoming>,
        phase: &watch::Sender<Phase>,
    ) -> Result<End, RegistryError> {
        let bytes = self.0.registries.manifest(&reference.with_digest(part.digest)).await?;
        let size = bytes.len() as u64;
        if size > Part::MANIFEST_MAX {
            return Ok(End::Wrong(format!("has {size} bytes under that digest")));
        }
        let made = self.0.store.receive(part, size).and_then(|mut blob| {
            blob.write(&bytes)?;
            Ok(blob)
        });
        match made {
            Ok(blob) => *incoming = Some(blob),
            Err(error) => return Ok(End::Here(error.to_string())),
        }
        self.note_progress(reference, bytes.len(), phase);
        Ok(End::Whole)
    }

    async fn pull_blob(
        &self,
        reference: &Reference,
        part: &Part,
        size: u64,
        incoming: &mut Option<Incoming>,
        phase: &watch::Sender<Phase>,
    ) -> Result<End, RegistryError> {
        let mut from = self.0.registries.blob(reference, &part.digest, received(incoming)).await?;
        if let Some(said) = from.size.filter(|said| *said != size) {
            return Ok(End::Wrong(format!("has {said} bytes under that digest")));
        }
        let mut blob = match incoming.take() {
            Some(blob) => blob,
            None => match self.0.store.receive(part, size) {
                Ok(blob) => blob,
                Err(error) => return Ok(End::Here(error.to_string())),
            },
        };
        let mut piece = Vec::with_capacity(PIECE);
        loop {
            let left = usize::try_from(size - blob.received()).unwrap_or(usize::MAX);
            let next = match piece.len() < left {
                true => from.next().await,
                false => Ok(None),
            };
            let over = !matches!(next, Ok(Some(_)));
            if let Ok(Some(bytes)) = &next {
                piece.extend_from_slice(bytes);
            }
            // What comes beyond the size is nobody's.
            piece.truncate(left);
            if !piece.is_empty() && (over || piece.len() >= PIECE || piece.len() == left) {
                let filled = piece.len();
                let result;
                (blob, piece, result) = write(blob, piece, filled).await;
                piece.clear();
                if let Err(error) = result {
                    return Ok(End::Here(error.to_string()));
                }
                self.note_progress(reference, filled, phase);
            }
            let got = blob.received();
            if got == size || over {
                *incoming = Some(blob);
                return match next {
                    _ if got == size => Ok(End::Whole),
                    Ok(_) => Ok(End::Broke(format!("ended after {got} of {size} bytes"))),
                    Err(error) => Err(error),
                };
            }
        }
    }

    fn note_progress(&self, reference: &Reference, bytes: usize, phase: &watch::Sender<Phase>) {
        let name = self.registry_name(reference);
        progress(phase, |moving| {
            moving.done += bytes as u64;
            moving.total = moving.total.max(moving.done);
            moving.from.insert(name);
        });
    }

    /// To show, beside nodes' names.
    pub(super) fn registry_name(&self, reference: &Reference) -> String {
        format!("registry {}", self.0.registries.name(reference))
    }
}
