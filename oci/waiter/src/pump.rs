//! From a pipe into log segments, by splice(2): no byte passes through the waiter's memory.
//!
//! A segment is an eighth of the stream's cap; before a new one is begun the oldest go, so that all of them together
//! never take more than the cap. Bytes that a full disk refuses are dropped and counted, and keep their offsets: the next
//! segment begins after the gap.

use core::ffi::CStr;
use core::mem::MaybeUninit;

use crate::system::{self, Fd};

const SEGMENTS: u64 = 8;
/// Gaps make segments short. When there are so many, the oldest goes, however little it holds.
const MOST_SEGMENTS: usize = 16;
/// What is moved in one step, so that one loud stream does not keep the other waiting.
const STEP: u64 = 4 << 20;
/// Where segments are, in the bundle.
const DIR: &CStr = c"log";
/// The length of a segment's path, its NUL included: `log/stdout.`, then 20 digits.
const PATH: usize = 32;

/// One stream on its way from the container to the disk.
pub struct Pump {
    stream: &'static [u8; 6],
    /// Below zero once all writers are gone.
    pipe: i32,
    /// The bundle.
    bundle: i32,
    cap: u64,
    /// The segments on disk, offset and length, the oldest first; the last is being written if `file` is open.
    segments: [(u64, u64); MOST_SEGMENTS],
    count: usize,
    file: Option<Fd>,
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
    /// The bytes of `pipe`, which must not block, go to segments of `stream` in `log` in the directory `bundle`. It is made
    /// with the first byte: many containers say nothing.
    #[inline(always)]
    pub fn new(stream: &'static [u8; 6], pipe: i32, bundle: i32) -> Pump {
        let segments = [(0, 0); MOST_SEGMENTS];
        Pump {
            stream,
            pipe,
            bundle,
            cap: SEGMENTS,
            segments,
            count: 0,
            file: None,
            offset: 0,
            lost: 0,
            splices: true,
        }
    }

    /// Keep to `cap` bytes of disk from now on.
    pub fn bound(&mut self, cap: u64) {
        self.cap = if cap < SEGMENTS { SEGMENTS } else { cap };
    }

    /// Move bytes through memory, as where the file system cannot be spliced to.
    pub fn without_splice(&mut self) {
        self.splices = false;
    }

    /// To poll for; below zero at its end.
    pub fn pipe(&self) -> i32 {
        self.pipe
    }

    /// How many bytes were dropped.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Move what is there, up to a few MiB. False when the pipe is empty or at its end.
    pub fn step(&mut self) -> bool {
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
                    self.pipe = -1;
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
        if self.pipe < 0 {
            return Moved::End;
        }
        let room = self.segment_size().saturating_sub(self.newest().map_or(0, |segment| segment.1));
        if self.file.is_none() || room == 0 {
            // Asked first, so that a stream without output, or without more of it, makes no file.
            // The end first: what came before it is in the pipe then.
            let end = hung_up(self.pipe);
            if system::waiting(self.pipe) == 0 {
                return if end { Moved::End } else { Moved::Nothing };
            }
            if !self.begin_segment() {
                return Moved::Refused;
            }
        }
        let (pipe, size) = (self.pipe, self.segment_size());
        let (Some(file), Some(segment)) = (&self.file, newest(&mut self.segments, self.count)) else {
            return Moved::Refused;
        };
        let room = size.saturating_sub(segment.1);
        let length = if most < room { most } else { room } as usize;
        let moved = match self.splices {
            true => system::splice(pipe, file, length).map(|n| (n, 0)),
            false => copy(pipe, file, length),
        };
        match moved {
            Ok((0, 0)) => Moved::End,
            Ok((stored, lost)) => {
                segment.1 += stored as u64;
                if lost == 0 { Moved::Bytes(stored as u64) } else { Moved::Torn(stored as u64, lost as u64) }
            }
            Err(libc::EAGAIN) => Moved::Nothing,
            Err(libc::EINTR) => Moved::Bytes(0),
            Err(libc::EINVAL) if self.splices => {
                self.splices = false;
                Moved::Bytes(0)
            }
            Err(_) => Moved::Refused,
        }
    }

    fn segment_size(&self) -> u64 {
        self.cap / SEGMENTS
    }

    fn newest(&self) -> Option<(u64, u64)> {
        self.segments.get(self.count.checked_sub(1)?).copied()
    }

    fn begin_segment(&mut self) -> bool {
        self.close_segment();
        while self.count > 0 {
            let used: u64 = self.segments.iter().take(self.count).map(|segment| segment.1).sum();
            if used + self.segment_size() <= self.cap && self.count < MOST_SEGMENTS {
                break;
            }
            self.drop_oldest();
        }
        let mut path = [0; PATH];
        let path = segment_path(&mut path, self.stream, self.offset);
        // Not O_APPEND, which splice refuses: the file's own position does the same for a single writer.
        let mut opened = system::open_file(self.bundle, path, true);
        if matches!(opened, Err(libc::ENOENT)) && system::make_dir(self.bundle, DIR).is_ok() {
            opened = system::open_file(self.bundle, path, true);
        }
        match opened {
            Ok(file) => {
                self.count += 1;
                if let Some(segment) = newest(&mut self.segments, self.count) {
                    *segment = (self.offset, 0);
                }
                self.file = Some(file);
                true
            }
            Err(_) => false,
        }
    }

    fn drop_oldest(&mut self) {
        let mut path = [0; PATH];
        if let Some((offset, _)) = self.segments.first() {
            system::unlink(self.bundle, segment_path(&mut path, self.stream, *offset));
        }
        for index in 1..self.count {
            if let (Some(&next), Some(at)) = (self.segments.get(index), index.checked_sub(1))
                && let Some(segment) = self.segments.get_mut(at)
            {
                *segment = next;
            }
        }
        self.count -= 1;
    }

    /// Begin another with the next byte. An empty segment says nothing and would stand in the way of its successor's name.
    pub fn close_segment(&mut self) {
        self.file = None;
        if let Some((offset, 0)) = self.newest() {
            let mut path = [0; PATH];
            system::unlink(self.bundle, segment_path(&mut path, self.stream, offset));
            self.count -= 1;
        }
    }

    /// Take bytes out of the pipe that nobody will have.
    fn drop_some(&mut self) -> Option<u64> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        match system::read(self.pipe, &mut buffer) {
            Ok([]) => {
                self.pipe = -1;
                None
            }
            Ok(bytes) => Some(bytes.len() as u64),
            Err(libc::EINTR) => Some(0),
            Err(_) => None,
        }
    }
}

fn newest(segments: &mut [(u64, u64); MOST_SEGMENTS], count: usize) -> Option<&mut (u64, u64)> {
    segments.get_mut(count.checked_sub(1)?)
}

/// `log/STREAM.OFFSET`, with 20 digits.
fn segment_path<'a>(path: &'a mut [u8; PATH], stream: &[u8; 6], offset: u64) -> &'a CStr {
    let mut left = offset;
    for (index, byte) in path.iter_mut().enumerate().rev() {
        *byte = match index {
            31 => 0,
            11..=30 => {
                let digit = b'0' + (left % 10) as u8;
                left /= 10;
                digit
            }
            10 => b'.',
            4..=9 => stream.get(index - 4).copied().unwrap_or(b'-'),
            3 => b'/',
            _ => DIR.to_bytes().get(index).copied().unwrap_or(b'-'),
        };
    }
    // SAFETY: its last byte is its only NUL.
    unsafe { CStr::from_bytes_with_nul_unchecked(path) }
}

fn hung_up(pipe: i32) -> bool {
    let mut fds = [system::readable(pipe)];
    system::poll(&mut fds, Some(0)).is_ok() && fds.iter().any(|fd| fd.revents & libc::POLLHUP != 0)
}

/// For file systems that splice cannot write to: how many bytes were stored, and how many more were taken.
#[inline(never)]
fn copy(pipe: i32, file: &Fd, length: usize) -> Result<(usize, usize), i32> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let buffer = buffer.get_mut(..if length < 4096 { length } else { 4096 }).unwrap_or_default();
    let bytes = system::read(pipe, buffer)?;
    let mut left = bytes;
    while !left.is_empty() {
        match system::write(file.0, left) {
            Ok(more) if more > 0 => left = left.get(more..).unwrap_or_default(),
            _ => break,
        }
    }
    Ok((bytes.len() - left.len(), left.len()))
}
