//! How the processes that build a container say what went wrong: one pipe, closed by a successful `execve`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};

use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

use crate::bundle::Failure;

/// A line in the pipe.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    /// Ours: final.
    Failed(Failure),
    /// An error event of libcontainer, which tells causes to its log and less in its errors.
    Event(String),
}

/// The writing end, by number: it is used in processes that are clones of the shim.
#[derive(Clone, Copy)]
pub(super) struct Reporter(RawFd);

impl Reporter {
    pub(super) fn new(write: &OwnedFd) -> Reporter {
        Reporter(write.as_raw_fd())
    }

    /// Pass libcontainer's error events on. Once per process.
    pub(super) fn listen(self) {
        let _ = tracing::subscriber::set_global_default(Events(self));
    }

    pub(super) fn failed(self, failure: Failure) {
        self.send(&Line::Failed(failure));
    }

    /// All went well, and nothing will be executed: who reads need wait no longer.
    pub(super) fn done(self) {
        let _ = nix::unistd::close(self.0);
    }

    fn send(self, line: &Line) {
        let Ok(mut text) = serde_json::to_vec(line) else { return };
        text.push(b'\n');
        // SAFETY: the descriptor stays open in every process that reports, until it executes or exits.
        let pipe = unsafe { BorrowedFd::borrow_raw(self.0) };
        let _ = nix::unistd::write(pipe, &text);
    }
}

/// What was said until the writers were gone.
pub(super) fn read(pipe: OwnedFd) -> Option<Failure> {
    let mut text = String::new();
    let _ = File::from(pipe).read_to_string(&mut text);
    let lines: Vec<Line> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let mut first_event = None;
    for line in lines {
        match line {
            Line::Failed(failure) => return Some(failure),
            // The first is the cause, later ones are what followed from it.
            Line::Event(text) => _ = first_event.get_or_insert(text),
        }
    }
    let why = first_event?;
    Some(Failure { what: "build the container".into(), why, hint: String::new() })
}

/// A `tracing` subscriber of one trick.
struct Events(Reporter);

impl Subscriber for Events {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }
    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::ERROR)
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        self.0.send(&Line::Event(text.0));
    }
}

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let separator = if self.0.is_empty() { "" } else { ", " };
        let _ = match field.name() {
            "message" => write!(self.0, "{separator}{value:?}"),
            name => write!(self.0, "{separator}{name} {value:?}"),
        };
    }
}

/// Tell the agent, once, and close the channel to it.
pub(super) fn announce(channel: OwnedFd, announcement: &crate::bundle::Announcement) {
    if let Ok(mut line) = serde_json::to_vec(announcement) {
        line.push(b'\n');
        // An agent that is gone will read the bundle when it is back.
        let _ = File::from(channel).write_all(&line);
    }
}
