//! What a task wrote, and with -f what it writes.

use std::{
    io::{self, Write},
    ops::ControlFlow,
};

use gossip::wire::{Call, LogPlace, LogStream, Reply};
use serde_json::json;

use crate::{
    args,
    failure::Failure,
    names::TaskName,
    output::Out,
    session::{Reader, Session},
};

pub(super) async fn logs(args: args::Logs, session: &Session, out: &mut Out) -> Result<(), Failure> {
    session.follow(&mut Follower { args, place: None, out }).await
}

struct Follower<'o> {
    args: args::Logs,
    /// What comes next, once something came.
    place: Option<LogPlace>,
    out: &'o mut Out,
}

impl Reader for Follower<'_> {
    fn call(&self) -> Call {
        let TaskName { job, index } = self.args.task.clone();
        Call::Logs {
            job,
            index,
            follow: self.args.follow,
            previous: self.args.previous,
            tail: self.args.tail,
            from: self.place.clone(),
            since_ms: self.args.since.map(|since| since.0),
        }
    }

    fn take(&mut self, part: Reply) -> Result<ControlFlow<()>, Failure> {
        let Reply::Log { run, stream, offset, text, bytes, lost } = part else {
            return Ok(ControlFlow::Continue(()));
        };
        let raw = if bytes.is_empty() { text.as_bytes() } else { &bytes };
        let known = self.advance(&run, stream, offset, raw.len());
        if lost > 0 && known == 0 && !self.out.json() {
            say!("covey: {lost} bytes of the log were deleted before this place: it holds the newest only");
        }
        let raw = &raw[known..];
        if self.out.json() {
            let offset = offset + known as u64;
            let text = String::from_utf8_lossy(raw);
            let document =
                json!({"stream": stream, "offset": offset, "text": text, "run": run, "lost": lost});
            // A part that holds nothing new tells of lost bytes, or nothing.
            if !raw.is_empty() || lost > 0 {
                self.out.document(&document)?;
            }
        } else if stream == LogStream::Stdout {
            self.out.bytes(raw)?;
        } else {
            let mut err = io::stderr().lock();
            err.write_all(raw)?;
            err.flush()?;
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl Follower<'_> {
    /// Notes that `len` bytes from `offset` are here; how many of the first were here before.
    fn advance(&mut self, run: &str, stream: LogStream, offset: u64, len: usize) -> usize {
        let place = self.place.get_or_insert_with(LogPlace::default);
        if place.run != run {
            *place = LogPlace { run: run.to_owned(), stdout: 0, stderr: 0 };
        }
        let next = match stream {
            LogStream::Stdout => &mut place.stdout,
            LogStream::Stderr => &mut place.stderr,
        };
        let known = usize::try_from(next.saturating_sub(offset)).unwrap_or(len).min(len);
        *next = (*next).max(offset + len as u64);
        known
    }
}
