//! From a pipe into log segments, by splice(2): no byte passes through the shim's memory.
//!
//! A segment is an eighth of the stream's cap; before a new one is begun the oldest go, so that all of them together
//! never take more than the cap. Bytes that a full disk refuses are dropped and counted, and keep their offsets: the next
//! segment begins after the gap.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use nix::errno::Errno;

use crate::bundle::Stream;

const SEGMENTS: u64 = 8;
/// What is moved in one step, so that one loud stream does not keep the other waiting.
const STEP: u64 = 4 << 20;

pub(super) struct Pump {
    stream: Stream,
    /// `None` once all writers are gone.
    pipe: Option<OwnedFd>,
    dir: PathBuf,
    cap: u64,
    /// The segments on disk with their lengths, the oldest first; the last is being written if `file` is open.
    segments: VecDeque<(u64, u64)>,
    file: Option<File>,
    /// The logical offset of the next byte.
    offset: u64,
    lost: u64,
    /// Until a file system has shown that it cannot.
    splices: bool,
}

enum Moved {
    Bytes(u64),
    /// So many were stored, and so many more taken out of the pipe in vain.
    Torn(u64, u64),
    Nothing,
    End,
    Refused,
}

impl Pump {
    /// `pipe` must not block.
    pub(super) fn new(stream: Stream, pipe: OwnedFd, dir: PathBuf, cap: u64) -> Pump {
        let cap = cap.max(SEGMENTS);
        let segments = VecDeque::new();
        Pump { stream, pipe: Some(pipe), dir, cap, segments, file: None, offset: 0, lost: 0, splices: true }
    }

    /// To poll for.
    pub(super) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(OwnedFd::as_fd)
    }

    /// How many bytes were dropped.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// Move what is there, up to a few MiB. False when the pipe is empty or at its end.
    pub(super) fn step(&mut self) -> bool {
        let mut left = STEP;
        while left > 0 {
            match self.move_some(left) {
                Moved::Bytes(n) => {
                    self.offset += n;
                    left = left.saturating_sub(n);
                }
                Moved::Torn(stored, lost) => {
                    self.offset += stored + lost;
                    self.lost += lost;
                    self.close_segment();
                    left = left.saturating_sub(stored + lost);
                }
                Moved::Nothing => return false,
                Moved::End => {
                    self.pipe = None;
                    return false;
                }
                Moved::Refused => {
                    self.close_segment();
                    match self.drop_some() {
                        Some(n) => {
                            self.offset += n;
                            self.lost += n;
                            left = left.saturating_sub(n);
                        }
                        None => return false,
                    }
                }
            }
        }
        true
    }

    fn move_some(&mut self, most: u64) -> Moved {
        let Some(pipe) = self.pipe.as_ref().map(|p| p.as_raw_fd()) else { return Moved::End };
        let room = self.segment_size().saturating_sub(self.segments.back().map_or(0, |s| s.1));
        if self.file.is_none() || room == 0 {
            // Asked first, so that a stream without output, or without more of it, makes no file.
            // The end first: what came before it is in the pipe then.
            let end = hung_up(pipe);
            if waiting(pipe) == 0 {
                return if end { Moved::End } else { Moved::Nothing };
            }
            if !self.begin_segment() {
                return Moved::Refused;
            }
        }
        let (Some(file), Some(segment)) = (&self.file, self.segments.back_mut()) else {
            return Moved::Refused;
        };
        let length = most.min((self.cap / SEGMENTS).saturating_sub(segment.1)) as usize;
        let moved =
            if self.splices { splice(pipe, file, length).map(|n| (n, 0)) } else { copy(pipe, file, length) };
        match moved {
            Ok((0, 0)) => Moved::End,
            Ok((stored, lost)) => {
                segment.1 += stored as u64;
                if lost == 0 { Moved::Bytes(stored as u64) } else { Moved::Torn(stored as u64, lost as u64) }
            }
            Err(Errno::EAGAIN) => Moved::Nothing,
            Err(Errno::EINTR) => Moved::Bytes(0),
            Err(Errno::EINVAL) if self.splices => {
                self.splices = false;
                Moved::Bytes(0)
            }
            Err(_) => Moved::Refused,
        }
    }

    fn segment_size(&self) -> u64 {
        self.cap / SEGMENTS
    }

    fn begin_segment(&mut self) -> bool {
        self.close_segment();
        while let Some(&(offset, _)) = self.segments.front() {
            let used: u64 = self.segments.iter().map(|s| s.1).sum();
            if used + self.segment_size() <= self.cap {
                break;
            }
            let _ = fs::remove_file(self.dir.join(self.stream.segment(offset)));
            self.segments.pop_front();
        }
        let path = self.dir.join(self.stream.segment(self.offset));
        // Not O_APPEND, which splice refuses: the file's own position does the same for a single writer.
        match File::options().create(true).truncate(true).write(true).mode(0o600).open(path) {
            Ok(file) => {
                self.segments.push_back((self.offset, 0));
                self.file = Some(file);
                true
            }
            Err(_) => false,
        }
    }

    /// An empty segment says nothing and would stand in the way of its successor's name.
    fn close_segment(&mut self) {
        self.file = None;
        if let Some(&(offset, 0)) = self.segments.back() {
            let _ = fs::remove_file(self.dir.join(self.stream.segment(offset)));
            self.segments.pop_back();
        }
    }

    /// Take bytes out of the pipe that nobody will have.
    fn drop_some(&mut self) -> Option<u64> {
        let mut buffer = [0; 16 * 1024];
        match nix::unistd::read(self.pipe.as_ref()?.as_raw_fd(), &mut buffer) {
            Ok(0) => {
                self.pipe = None;
                None
            }
            Ok(n) => Some(n as u64),
            Err(Errno::EINTR) => Some(0),
            Err(_) => None,
        }
    }
}

/// How many bytes are in the pipe.
fn waiting(pipe: i32) -> libc::c_int {
    let mut waiting = 0;
    // SAFETY: FIONREAD writes one int.
    unsafe { libc::ioctl(pipe, libc::FIONREAD, &mut waiting) };
    waiting
}

fn hung_up(pipe: i32) -> bool {
    let mut fd = libc::pollfd { fd: pipe, events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, no waiting.
    let polled = unsafe { libc::poll(&mut fd, 1, 0) };
    polled > 0 && fd.revents & libc::POLLHUP != 0
}

fn splice(pipe: i32, file: &File, length: usize) -> nix::Result<usize> {
    let (flags, whole) = (libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE, std::ptr::null_mut());
    // SAFETY: no memory of ours is passed: both ends are descriptors with positions of their own.
    let n = unsafe { libc::splice(pipe, whole, file.as_raw_fd(), whole, length, flags) };
    Errno::result(n).map(|n| n as usize)
}

/// For file systems that splice cannot write to: how many bytes were stored, and how many more were taken.
fn copy(pipe: i32, mut file: &File, length: usize) -> nix::Result<(usize, usize)> {
    let mut buffer = [0; 16 * 1024];
    let n = nix::unistd::read(pipe, &mut buffer[..length.min(16 * 1024)])?;
    let mut stored = 0;
    while stored < n {
        match file.write(&buffer[stored..n]) {
            Ok(more) if more > 0 => stored += more,
            _ => break,
        }
    }
    Ok((stored, n - stored))
}

#[cfg(test)]
#[path = "pump_tests.rs"]
mod tests;
