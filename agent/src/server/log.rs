//! What of a task's log is on this node: bytes from the segments of its runs, from run to run while somebody follows.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use gossip::wire::{LogPlace, LogStream, Reply};
use oci::logs as segments;
use placement::{
    ids::{JobKey, TaskKey},
    ledger::Refusal,
};
use tokio::{task::spawn_blocking, time::sleep};

use super::{Out, Services, Stopped, invalid};
use crate::{
    event::RunId,
    logs::{self, marks},
};

/// What of a task's log.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) follow: bool,
    pub(super) previous: bool,
    pub(super) tail: Option<u64>,
    pub(super) from: Option<LogPlace>,
    /// Wall time, in milliseconds since 1970.
    pub(super) since_ms: Option<u64>,
    /// This one, and no other.
    pub(super) run: Option<RunId>,
}

/// Bytes of one reply.
const CHUNK: usize = 64 << 10;
/// Between two looks for more. Watching files would need an inotify instance for each follower, and there are few.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Sends what there is on this node, and with `follow` what comes, from run to run, until the copy here has ended for
/// good. `place` follows what was sent. Returns whether there was any log.
pub(super) async fn here(
    services: &Services,
    task: TaskKey,
    wanted: &Wanted,
    place: &mut Option<LogPlace>,
    out: &mut Out,
) -> Result<bool, Stopped> {
    let follow = wanted.follow || wanted.from.is_some();
    let mut reader = loop {
        // Asked before the look: what was begun until the end is then found too.
        let over = !follow || over(services, task).await;
        let runs = runs(services, task).await?;
        match Reader::begin(&runs, wanted) {
            Some(reader) => break reader,
            None if over || wanted.previous => return Ok(false),
            None => sleep(LOOK_AGAIN).await,
        }
    };
    loop {
        // Asked before the reading: what was written until the end is then read too.
        let over = !follow || over(services, task).await;
        let mut newer = None;
        if follow {
            let runs = runs(services, task).await?;
            reader.find_again(&runs);
            newer = runs.into_iter().find(|(run, _)| *run > reader.run);
        }
        while reader.send_some(out).await? {
            *place = Some(reader.place());
        }
        match newer {
            Some((run, dir)) => reader.go_on(run, dir),
            // Put aside between the look and the reading: read there.
            None if over && reader.find_again(&runs(services, task).await?) => {}
            None if over => return Ok(true),
            None => sleep(LOOK_AGAIN).await,
        }
    }
}

/// The names of the runs that have logs here, the oldest first; those of earlier jobs of that name too.
pub(super) async fn names(
    services: &Services,
    task: TaskKey,
    earlier: Option<JobKey>,
) -> Result<Vec<RunId>, Refusal> {
    let mut all = match earlier {
        Some(job) => {
            reading(services, move |bundles, kept| logs::before_task(bundles, kept, task, &job)).await?
        }
        None => Vec::new(),
    };
    all.extend(runs(services, task).await?);
    Ok(all.into_iter().map(|(run, _)| run).collect())
}

/// The task's runs that have logs here, the oldest first.
async fn runs(services: &Services, task: TaskKey) -> Result<Vec<(RunId, PathBuf)>, Refusal> {
    reading(services, move |bundles, kept| logs::of_task(bundles, kept, task)).await
}

async fn reading(
    services: &Services,
    read: impl FnOnce(&Path, &Path) -> Result<Vec<(RunId, PathBuf)>, logs::LogsError> + Send + 'static,
) -> Result<Vec<(RunId, PathBuf)>, Refusal> {
    let (bundles, kept) = (services.bundles.clone(), services.logs.clone());
    spawn_blocking(move || read(&bundles, &kept))
        .await
        .map_err(|_| invalid("the reading of logs broke off".to_string()))?
        .map_err(|e| invalid(e.to_string()))
}

/// Whether the copy here has ended for good, and nothing more will be written.
async fn over(services: &Services, task: TaskKey) -> bool {
    let report = services.node.read(move |core| core.report(task)).await.flatten();
    report.is_none_or(|report| report.state.is_final())
}

/// A place in one run's log.
struct Reader {
    run: RunId,
    dir: PathBuf,
    from: [segments::From; 2],
}

impl Reader {
    fn begin(runs: &[(RunId, PathBuf)], wanted: &Wanted) -> Option<Reader> {
        let start = match wanted.tail {
            Some(lines) => segments::From::Tail(usize::try_from(lines).unwrap_or(usize::MAX)),
            None => segments::From::Offset(0),
        };
        if let Some(place) = &wanted.from {
            let known = runs.iter().find(|(run, _)| run.to_string() == place.run);
            let from = [segments::From::Offset(place.stdout), segments::From::Offset(place.stderr)];
            return match known {
                Some((run, dir)) => Some(Reader { run: *run, dir: dir.clone(), from }),
                // Gone meanwhile, or on another node: what came after it is what there is.
                None => {
                    let read: Option<RunId> = place.run.parse().ok();
                    let mut later = runs.iter().filter(|(run, _)| read.is_none_or(|read| *run > read));
                    later.next().map(|(run, dir)| Reader::at_start(*run, dir.clone()))
                }
            };
        }
        let back = usize::from(wanted.previous);
        let (run, dir) = match wanted.run {
            Some(wanted) => runs.iter().find(|(run, _)| *run == wanted)?,
            None => runs.iter().rev().nth(back)?,
        };
        let from = match wanted.since_ms {
            Some(since_ms) => marks::since(dir, since_ms, start),
            None => [start; 2],
        };
        Some(Reader { run: *run, dir: dir.clone(), from })
    }

    fn at_start(run: RunId, dir: PathBuf) -> Reader {
        Reader { run, dir, from: [segments::From::Offset(0); 2] }
    }

    /// The log of a run that has ended is put aside. Returns whether this one was.
    fn find_again(&mut self, runs: &[(RunId, PathBuf)]) -> bool {
        let elsewhere = runs.iter().find(|(run, dir)| *run == self.run && *dir != self.dir);
        elsewhere.map(|(_, dir)| self.dir.clone_from(dir)).is_some()
    }

    /// How far it has got.
    fn place(&self) -> LogPlace {
        let offset = |from: segments::From| match from {
            segments::From::Offset(offset) => offset,
            segments::From::Tail(_) => 0,
        };
        LogPlace { run: self.run.to_string(), stdout: offset(self.from[0]), stderr: offset(self.from[1]) }
    }

    fn go_on(&mut self, run: RunId, dir: PathBuf) {
        *self = Reader::at_start(run, dir);
    }

    /// Sends what there is, up to a chunk of each stream; false if there is nothing now.
    async fn send_some(&mut self, out: &mut Out) -> Result<bool, Stopped> {
        let (dir, from) = (self.dir.clone(), self.from);
        let read = spawn_blocking(move || segments::read_both(&dir, from, CHUNK)).await;
        let chunks = match read {
            Ok(chunks) => chunks.map_err(|e| invalid(e.to_string()))?,
            Err(_) => return Err(invalid("the reading of logs broke off".to_string()).into()),
        };
        let mut some = false;
        let streams = [LogStream::Stdout, LogStream::Stderr];
        for (place, (stream, mut chunk)) in streams.into_iter().zip(chunks).enumerate() {
            whole_characters(&mut chunk.bytes);
            self.from[place] = chunk.next();
            if chunk.bytes.is_empty() && chunk.dropped == 0 {
                continue;
            }
            some = true;
            let (text, bytes) = match String::from_utf8(chunk.bytes) {
                Ok(text) => (text, Vec::new()),
                Err(error) => {
                    let bytes = error.into_bytes();
                    (String::from_utf8_lossy(&bytes).into_owned(), bytes)
                }
            };
            let run = self.run.to_string();
            out.send(&Reply::Log { run, stream, offset: chunk.offset, text, bytes, lost: chunk.dropped })
                .await?;
        }
        Ok(some)
    }
}

/// Leaves a character that a full chunk cuts in two for the next one.
fn whole_characters(bytes: &mut Vec<u8>) {
    if bytes.len() < CHUNK {
        return;
    }
    if let Err(error) = std::str::from_utf8(bytes)
        && error.error_len().is_none()
        && error.valid_up_to() > 0
    {
        bytes.truncate(error.valid_up_to());
    }
}
