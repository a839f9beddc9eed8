//! Reading a run's log, while it is written or long after.
//!
//! A stream is one sequence of bytes; [`Chunk::offset`] names places in it that stay the same when old segments are
//! deleted. A reader that comes too late for some bytes is told how many it missed.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use crate::bundle::Stream;

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At this offset, or at the first byte after it that is still there.
    Offset(u64),
    /// So many lines before the end; an unfinished last line counts as one.
    Tail(usize),
}

/// A piece of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// The offset of the first byte of `bytes`.
    pub offset: u64,
    /// The bytes; empty when there are none yet.
    pub bytes: Vec<u8>,
    /// How many bytes before `offset` were asked for and are gone: rotated away, or lost on a full disk.
    pub dropped: u64,
}

impl Chunk {
    /// Where to go on.
    pub fn next(&self) -> From {
        From::Offset(self.offset + self.bytes.len() as u64)
    }
}

/// A log could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the log {path}: {source}")]
pub struct Error {
    /// The directory or segment.
    pub path: PathBuf,
    /// The cause.
    pub source: io::Error,
}

/// At most `most` bytes of one stream, contiguous. A log directory that is not there is an empty log.
pub fn read(dir: &Path, stream: Stream, from: From, most: usize) -> Result<Chunk, Error> {
    // A segment that was listed may be gone when it is opened; then the list is old as well.
    loop {
        let segments = list(dir, stream)?;
        let start = match from {
            From::Offset(offset) => offset,
            From::Tail(lines) => match tail(dir, stream, &segments, lines)? {
                Some(offset) => offset,
                None => continue,
            },
        };
        let wanted = match from {
            From::Offset(offset) => offset,
            From::Tail(_) => start,
        };
        if let Some(chunk) = read_at(dir, stream, &segments, start, wanted, most)? {
            return Ok(chunk);
        }
    }
}

/// Both streams, each from its own place and each up to `most` bytes. In what order a program wrote to the two is not
/// known: they are two pipes.
pub fn read_both(dir: &Path, from: [From; 2], most: usize) -> Result<[Chunk; 2], Error> {
    Ok([read(dir, Stream::Stdout, from[0], most)?, read(dir, Stream::Stderr, from[1], most)?])
}

/// How far stdout and stderr have got: the offsets of the next bytes.
pub fn ends(dir: &Path) -> Result<[u64; 2], Error> {
    let end = |stream| Ok(list(dir, stream)?.last().map_or(0, |&(offset, length)| offset + length));
    Ok([end(Stream::Stdout)?, end(Stream::Stderr)?])
}

/// A segment's first offset and present length.
type Segment = (u64, u64);

fn list(dir: &Path, stream: Stream) -> Result<Vec<Segment>, Error> {
    let failed = |source| Error { path: dir.into(), source };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut segments = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let Some(offset) = entry.file_name().to_str().and_then(|name| stream.segment_offset(name)) else {
            continue;
        };
        // Deleted meanwhile: as if it had not been listed.
        let Ok(meta) = entry.metadata() else { continue };
        segments.push((offset, meta.len()));
    }
    segments.sort_unstable();
    Ok(segments)
}

/// `None`: a segment vanished, look again.
fn read_at(
    dir: &Path,
    stream: Stream,
    segments: &[Segment],
    start: u64,
    wanted: u64,
    most: usize,
) -> Result<Option<Chunk>, Error> {
    let mut chunk = Chunk { offset: start, ..Chunk::default() };
    for &(offset, length) in segments {
        let end = offset + length;
        let at = chunk.offset + chunk.bytes.len() as u64;
        if end <= at {
            continue;
        }
        if offset > at {
            if !chunk.bytes.is_empty() {
                // A gap: the next chunk will say so.
                break;
            }
            chunk.offset = offset;
        }
        let at = chunk.offset + chunk.bytes.len() as u64;
        let room = (most - chunk.bytes.len()) as u64;
        let Some(mut file) = open(dir, stream, offset)? else { return Ok(None) };
        let path = || dir.join(stream.segment(offset));
        let read = file
            .seek(SeekFrom::Start(at - offset))
            .and_then(|_| file.by_ref().take(room.min(end - at)).read_to_end(&mut chunk.bytes));
        read.map_err(|source| Error { path: path(), source })?;
        if chunk.bytes.len() >= most {
            break;
        }
    }
    chunk.dropped = chunk.offset.saturating_sub(wanted);
    Ok(Some(chunk))
}

fn open(dir: &Path, stream: Stream, offset: u64) -> Result<Option<File>, Error> {
    let path = dir.join(stream.segment(offset));
    match File::open(&path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error { path, source }),
    }
}

/// The offset at which the last `lines` lines begin, read backwards. `None`: a segment vanished, look again.
fn tail(dir: &Path, stream: Stream, segments: &[Segment], lines: usize) -> Result<Option<u64>, Error> {
    const BLOCK: u64 = 64 * 1024;
    let end = segments.last().map_or(0, |&(offset, length)| offset + length);
    if lines == 0 {
        return Ok(Some(end));
    }
    let mut left = lines;
    let mut first = end;
    for &(offset, length) in segments.iter().rev() {
        let Some(mut file) = open(dir, stream, offset)? else { return Ok(None) };
        let mut stop = length;
        while stop > 0 {
            let start = stop.saturating_sub(BLOCK);
            let mut block = Vec::new();
            let read = file
                .seek(SeekFrom::Start(start))
                .and_then(|_| file.by_ref().take(stop - start).read_to_end(&mut block));
            read.map_err(|source| Error { path: dir.join(stream.segment(offset)), source })?;
            for (i, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
                let after = offset + start + i as u64 + 1;
                // The newline at the very end finishes the last line, it does not begin one.
                if after < end {
                    left -= 1;
                    if left == 0 {
                        return Ok(Some(after));
                    }
                }
            }
            stop = start;
        }
        first = offset;
    }
    Ok(Some(first))
}

#[cfg(test)]
#[path = "logs_tests.rs"]
mod tests;
