//! `covey cp`.

use std::{
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use gossip::wire::{
    Call,
    stream::{Part, Parts},
};
use indicatif::{ProgressBar, ProgressStyle};
use oci::copy::{self, Copied, Into};
use placement::ledger::Refusal;
use serde_json::{Value, json};
use tokio::{
    io::AsyncRead,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{Credit, broken, mouth};
use crate::{
    args::reach::{Cp, Side},
    failure::Failure,
    names::TaskName,
    output::{self, Out},
    session::Session,
};

/// Of an archive at once.
const PIECE: usize = 32 << 10;
/// For the node to put away what it has begun.
const PARTING: Duration = Duration::from_secs(3);

pub(in crate::commands) async fn cp(args: Cp, session: &Session, out: &mut Out) -> Result<(), Failure> {
    let previous = args.previous;
    let copied = match (args.source, args.destination) {
        (Side::Task(task, path), Side::Here(to)) => download(session, task, path, previous, Some(to)).await?,
        (Side::Task(task, path), Side::Stream) => {
            // What is on standard output is the archive.
            return download(session, task, path, previous, None).await.map(drop);
        }
        (_, Side::Task(..)) if previous => {
            return Err(Failure::Arguments(
                "a run that is over takes nothing more: --previous copies out of it".into(),
            ));
        }
        (Side::Here(from), Side::Task(task, path)) => upload(session, Some(from), task, path).await?,
        (Side::Stream, Side::Task(task, path)) => upload(session, None, task, path).await?,
        (Side::Task(..), Side::Task(..)) => {
            return Err(Failure::Arguments(
                "one side of a copy is here: copy it from the one task, and then to the other".into(),
            ));
        }
        _ => {
            return Err(Failure::Arguments(
                "one side of a copy is in a task: JOB/INDEX:PATH, for instance web/0:/etc/hosts".into(),
            ));
        }
    };
    out.either(&copied, output::copied)
}

/// What was copied, as a document.
fn document(copied: Copied) -> Value {
    json!({"files": copied.files, "bytes": copied.bytes, "skipped": copied.skipped})
}

fn failed(error: copy::Error) -> Failure {
    Failure::Copy(error)
}

fn interrupts() -> Result<tokio::signal::unix::Signal, Failure> {
    signal(SignalKind::interrupt()).map_err(|source| Failure::System { what: "listen to signals", source })
}

fn interrupted() -> Failure {
    Failure::Interrupted {
        goes_on: "what was not whole is gone again".into(),
        hint: "the same command copies all of it".into(),
    }
}

/// `to`: none for standard output, as an archive.
async fn download(
    session: &Session,
    TaskName { job, index }: TaskName,
    path: String,
    previous: bool,
    to: Option<PathBuf>,
) -> Result<Value, Failure> {
    let task = TaskName { job: job.clone(), index };
    let (first, (from, to_node)) = session.open(Call::CopyOut { job, index, path, previous }).await?;
    let over = first["over"] == true;
    if previous && !over {
        // It may have taken no notice.
        let message =
            format!("the node of {task} runs an older covey, which copies out of what runs now only");
        return Err(Refusal::new("failed", message, None).into());
    }
    if over && !previous {
        say!("covey: {task} does not run: these are the files that its last run has left");
    }
    let (pieces, comes) = mpsc::channel::<io::Result<Vec<u8>>>(4);
    let (done, unpacked) = oneshot::channel();
    let bar = bar();
    let shown = bar.clone();
    thread::spawn(move || {
        let pieces = Pieces { comes, held: Vec::new(), at: 0, over: false };
        let copied = match to {
            Some(to) => copy::unpack(pieces, &Into::Place(to), None, &mut |bytes| shown.inc(bytes)),
            None => {
                let mut pieces = pieces;
                let stdout = &mut io::stdout().lock();
                let passed = io::copy(&mut pieces, stdout).and_then(|_| stdout.flush());
                passed.map(|()| Copied::default()).map_err(copy::Error::Archive)
            }
        };
        let _ = done.send(copied);
    });
    let mut parts = Parts::new(from);
    let mut interrupts = interrupts()?;
    let ended = loop {
        let part = tokio::select! {
            part = parts.next() => part,
            Some(()) = interrupts.recv() => break Err(interrupted()),
        };
        match part {
            // Whoever takes no more of it says why below.
            Ok(Some(Part::Out(bytes))) => {
                if pieces.send(Ok(bytes)).await.is_err() {
                    break Ok(());
                }
            }
            Ok(Some(Part::End(_))) => {
                let _ = pieces.send(Ok(Vec::new())).await;
                break Ok(());
            }
            Ok(Some(Part::Failed(refusal))) => break Err(refusal.into()),
            Ok(Some(_)) => {}
            Ok(None) => break Err(broken("it closed the connection")),
            Err(error) => break Err(broken(&error.to_string())),
        }
    };
    // If it did not come to its end, this is what breaks it off.
    drop((pieces, to_node));
    let copied = unpacked.await.map_err(|_| broken("the copy broke off"));
    bar.finish_and_clear();
    ended?;
    copied?.map(document).map_err(failed)
}

/// An archive as it comes. An empty piece is its end; the end of the pieces before that is not.
struct Pieces {
    comes: mpsc::Receiver<io::Result<Vec<u8>>>,
    held: Vec<u8>,
    at: usize,
    over: bool,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.held.len() && !self.over {
            self.held = self.comes.blocking_recv().ok_or(io::ErrorKind::UnexpectedEof)??;
            (self.at, self.over) = (0, self.held.is_empty());
        }
        let read = buffer.len().min(self.held.len() - self.at);
        buffer[..read].copy_from_slice(&self.held[self.at..self.at + read]);
        self.at += read;
        Ok(read)
    }
}

/// `from`: none for standard input, an archive of which all goes into the directory `path`.
async fn upload(
    session: &Session,
    from: Option<PathBuf>,
    TaskName { job, index }: TaskName,
    path: String,
) -> Result<Value, Failure> {
    if let Some(from) = &from {
        // Before anybody is asked.
        let look = |source| failed(copy::Error::Io { op: "read", path: from.clone(), source });
        std::fs::metadata(from).map_err(look)?;
    }
    let all = from.is_none();
    let (_, (answers, to)) = session.open(Call::CopyIn { job, index, path, all }).await?;
    let (say, sending) = mouth(to);
    let credit = Credit::new();
    let (done, packed) = oneshot::channel();
    let bar = bar();
    let (shown, outlet) =
        (bar.clone(), Outlet { say: say.clone(), credit: credit.clone(), held: Vec::new() });
    thread::spawn(move || drop(done.send(pack(from.as_deref(), outlet, &shown))));
    let ended = answer(answers, packed, &credit, || {
        drop(say);
        sending.abort();
    });
    let ended = ended.await;
    bar.finish_and_clear();
    ended
}

/// What the node says of it. `hang_up`: before it has all.
async fn answer(
    answers: Box<dyn AsyncRead + Send + Unpin>,
    packed: oneshot::Receiver<Result<(), copy::Error>>,
    credit: &Credit,
    hang_up: impl FnOnce(),
) -> Result<Value, Failure> {
    let mut parts = Parts::new(answers);
    let mut interrupts = interrupts()?;
    let mut packed = Some(packed);
    let ended = loop {
        tokio::select! {
            part = parts.next() => match part {
                Ok(Some(Part::Taken(bytes))) => credit.give(bytes),
                Ok(Some(Part::End(copied))) => return Ok(copied),
                Ok(Some(Part::Failed(refusal))) => return Err(refusal.into()),
                Ok(Some(_)) => {}
                Ok(None) => return Err(broken("it closed the connection")),
                Err(error) => return Err(broken(&error.to_string())),
            },
            done = async { match &mut packed { Some(packed) => packed.await, None => std::future::pending().await } } => {
                packed = None;
                match done {
                    Ok(Ok(())) => {}
                    // Whoever takes no more of it says why.
                    Ok(Err(error)) if is_refused(&error) => match timeout(PARTING, last_word(&mut parts)).await {
                        Ok(Some(refusal)) => return Err(refusal.into()),
                        _ => break failed(error),
                    },
                    Ok(Err(error)) => break failed(error),
                    Err(_) => break broken("the copy broke off"),
                }
            }
            Some(()) = interrupts.recv() => break interrupted(),
        }
    };
    hang_up();
    let _ = timeout(PARTING, async { while let Ok(Some(_)) = parts.next().await {} }).await;
    Err(ended)
}

/// Whether it was the node that would have no more: nothing else here writes into a pipe.
fn is_refused(error: &copy::Error) -> bool {
    let (copy::Error::Io { source, .. } | copy::Error::Archive(source)) = error else { return false };
    source.kind() == io::ErrorKind::BrokenPipe
}

async fn last_word<R: AsyncRead + Unpin>(parts: &mut Parts<R>) -> Option<Refusal> {
    loop {
        match parts.next().await {
            Ok(Some(Part::Failed(refusal))) => return Some(refusal),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Blocking.
fn pack(from: Option<&Path>, mut outlet: Outlet, bar: &ProgressBar) -> Result<(), copy::Error> {
    match from {
        Some(path) => {
            copy::pack(path, &mut outlet, &mut |bytes| bar.inc(bytes))?;
        }
        None => {
            io::copy(&mut io::stdin().lock(), &mut outlet).map_err(copy::Error::Archive)?;
        }
    }
    let end = outlet.flush().and_then(|()| outlet.send(Part::InEnd));
    end.map_err(copy::Error::Archive)
}

/// An archive on its way to the node.
struct Outlet {
    say: mpsc::Sender<Part>,
    credit: Credit,
    held: Vec<u8>,
}

impl Outlet {
    fn send(&self, part: Part) -> io::Result<()> {
        self.say.blocking_send(part).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.held.len());
        self.held.extend_from_slice(&bytes[..taken]);
        if self.held.len() == PIECE {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.held);
        self.credit.take(piece.len());
        self.send(Part::In(piece))
    }
}

fn bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {bytes} copied, {bytes_per_sec}") {
        bar.set_style(style);
    }
    bar
}
