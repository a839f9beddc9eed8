//! What other nodes ask about this node's images.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    time::Duration,
};

use gossip::{
    frame::FrameError,
    transport::Stream,
    wire::{
        ask::Told,
        image::{HeldBlob, ImageQuestion, ImageTold},
    },
};
use oci::digest::Digest;
use placement::ledger::Refusal;
use tokio::{
    io::AsyncWriteExt,
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::Images;

/// The code of a refusal for want of time.
pub(super) const BUSY: &str = "busy";
/// How long a blob is waited for before the asker is sent elsewhere.
const QUEUE: Duration = Duration::from_secs(2);
/// Whoever takes no piece for so long is gone, or might as well be.
const STUCK: Duration = Duration::from_secs(30);
/// Bytes that are in memory of each blob.
const PIECE: usize = 256 << 10;
/// Blobs of one question.
const DIGESTS: usize = 10_000;
/// Below everything else on the connection.
const PRIORITY: i32 = -1;
/// Between two reports of a copy's progress.
const REPORT: Duration = Duration::from_millis(200);

/// Answers one question. Whoever asked may have gone: then nobody is left to tell.
pub async fn answer(question: ImageQuestion, mut stream: Stream, images: &Images) {
    let answered = match question {
        ImageQuestion::Have { digests } => tell(&mut stream, images.held(&digests)).await,
        ImageQuestion::Blob { digest, from } => images.give(&digest, from, &mut stream).await,
        ImageQuestion::Names { reference } => tell(&mut stream, images.names_told(reference).await).await,
        ImageQuestion::Copy { name } => {
            let mut copying = std::pin::pin!(images.copy(&name));
            let done = loop {
                tokio::select! {
                    done = &mut copying => break done,
                    () = sleep(REPORT) => {}
                }
                let (done, total) = images.moving(&name.digest);
                let told = Told::Image(ImageTold::Copying { done, total });
                if stream.write(&told).await.is_err() {
                    return;
                }
            };
            tell(&mut stream, done.map(|changed| ImageTold::Changed { changed })).await
        }
        ImageQuestion::Remove { reference } => {
            let removed = images.remove_here(&reference).await;
            tell(&mut stream, removed.map(|gone| ImageTold::Changed { changed: gone.is_some() })).await
        }
        ImageQuestion::Prune { unused_ms } => tell(&mut stream, Ok(images.prune_told(unused_ms).await)).await,
        ImageQuestion::Credentials { registries } => {
            let changed = images.take_credentials(registries);
            tell(&mut stream, changed.map(|changed| ImageTold::Changed { changed })).await
        }
        ImageQuestion::Loaded { name } => {
            let changed = images.supersede(&name);
            images.touch();
            tell(&mut stream, changed.map(|changed| ImageTold::Changed { changed })).await
        }
    };
    match answered {
        Ok(()) => stream.finish().await,
        Err(error) => tracing::debug!("an answer about images broke off: {error}"),
    }
}

async fn tell(stream: &mut Stream, told: Result<ImageTold, Refusal>) -> Result<(), FrameError> {
    let told = told.map_or_else(Told::Refused, Told::Image);
    stream.write(&told).await
}

fn bad(error: impl std::fmt::Display) -> Refusal {
    Refusal::new("invalid", error, None)
}

impl Images {
    fn held(&self, digests: &[String]) -> Result<ImageTold, Refusal> {
        if digests.len() > DIGESTS {
            return Err(bad(format_args!(
                "{} digests in one question; at most {DIGESTS} are allowed",
                digests.len()
            )));
        }
        let known: Vec<Digest> = digests.iter().filter_map(|digest| digest.parse().ok()).collect();
        let held = digests.iter().filter_map(|digest| {
            let size = self.0.store.size_of(&digest.parse().ok()?)?;
            Some(HeldBlob { digest: digest.clone(), size })
        });
        Ok(ImageTold::Held { blobs: held.collect(), coming: self.coming(&known) })
    }

    /// The blob, piece by piece; whoever takes it verifies it.
    async fn give(&self, digest: &str, from: u64, stream: &mut Stream) -> Result<(), FrameError> {
        let _ = stream.outgoing.set_priority(PRIORITY);
        let Ok(Ok(_permit)) = timeout(QUEUE, self.0.outgoing.acquire()).await else {
            let refusal = Refusal::new(BUSY, "this node gives to as many others as it can", None);
            return stream.write(&Told::Refused(refusal)).await;
        };
        let (mut file, size) = match self.open(digest, from) {
            Ok(opened) => opened,
            Err(refusal) => return stream.write(&Told::Refused(refusal)).await,
        };
        stream.write(&Told::Image(ImageTold::Blob { size })).await?;
        let mut piece = vec![0; PIECE];
        let mut left = size.saturating_sub(from);
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let read;
            (file, piece, read) = spawn_blocking(move || {
                let read = file.read(&mut piece[..wanted]);
                (file, piece, read)
            })
            .await
            .map_err(|broken| FrameError::Broken(broken.into()))?;
            let n = match read {
                // Cut short since it was opened: the taker sees that it ended early.
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(error) => {
                    tracing::warn!("blob {digest} cannot be read: {error}");
                    return Err(FrameError::Broken(error));
                }
            };
            let stuck = |_| FrameError::Broken(std::io::ErrorKind::TimedOut.into());
            let sent = timeout(STUCK, stream.outgoing.write_all(&piece[..n])).await.map_err(stuck)?;
            sent.map_err(|error| FrameError::Broken(error.into()))?;
            left -= n as u64;
        }
        stream.outgoing.flush().await.map_err(FrameError::Broken)
    }

    fn open(&self, digest: &str, from: u64) -> Result<(File, u64), Refusal> {
        let digest: Digest = digest.parse().map_err(bad)?;
        let gone = |error: &dyn std::fmt::Display| Refusal::new("not_found", error, None);
        let (mut file, size) = self.0.store.blob(&digest).map_err(|error| gone(&error))?;
        if from > 0 {
            file.seek(SeekFrom::Start(from)).map_err(|error| gone(&error))?;
        }
        Ok((file, size))
    }
}
