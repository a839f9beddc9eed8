//! What lab and guest say to each other: frames of a kind, a length and so many bytes. The first is a request.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// No frame is longer; an environment is by far the longest.
const LONGEST: u32 = 64 << 20;

/// What a lab may ask of a guest.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Run a command to its end; its stdin, stdout and stderr follow as frames.
    Run {
        /// The program and its arguments.
        argv: Vec<OsString>,
        /// Its whole environment.
        env: Vec<(OsString, OsString)>,
        /// Where it starts, if that is there.
        dir: PathBuf,
        /// It gets a terminal of so many rows and columns.
        terminal: Option<(u16, u16)>,
    },
    /// Start the agent's program, as a service manager would, and leave it alone.
    Start {
        /// The program and its arguments.
        argv: Vec<OsString>,
        /// Its whole environment.
        env: Vec<(OsString, OsString)>,
        /// Its stdout and stderr are appended to this file.
        log: PathBuf,
    },
    /// List the processes that have a command line.
    Processes,
    /// Say whether somebody accepts connections there.
    Connects {
        /// A Unix socket.
        socket: PathBuf,
    },
}

/// What a guest answers, last of all.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// It is so, or has been done.
    Yes,
    /// It is not so, or could not be done, and why.
    No(String),
    /// The command has ended.
    Ended {
        /// With this exit code.
        code: Option<i32>,
        /// By this signal.
        signal: Option<i32>,
    },
    /// The processes.
    Processes(Vec<Process>),
}

/// One process of a guest.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Process {
    /// As the guest's kernel numbers it.
    pub(crate) pid: i32,
    /// As `/proc/PID/cmdline` has it.
    pub(crate) line: Vec<u8>,
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// A request or an answer, in JSON.
    Word = 0,
    /// Bytes for stdin, or from stdout.
    Data = 1,
    /// Bytes from stderr.
    Error = 2,
    /// There is no more stdin.
    End = 3,
    /// The terminal has another size: rows and columns, in JSON.
    Size = 4,
}

impl Kind {
    fn of(byte: u8) -> io::Result<Self> {
        [Self::Word, Self::Data, Self::Error, Self::End, Self::Size]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
            .ok_or_else(|| io::Error::other(format!("a frame of the unknown kind {byte}")))
    }
}

pub(super) fn write(to: &mut impl Write, kind: Kind, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut frame = vec![kind as u8];
    frame.extend(length.to_be_bytes());
    frame.extend(bytes);
    to.write_all(&frame)
}

pub(super) fn write_word(to: &mut impl Write, word: &impl Serialize) -> io::Result<()> {
    write(to, Kind::Word, &serde_json::to_vec(word)?)
}

pub(super) fn read(from: &mut impl Read) -> io::Result<(Kind, Vec<u8>)> {
    let mut header = [0; 5];
    from.read_exact(&mut header)?;
    let [kind, length @ ..] = header;
    let (kind, length) = (Kind::of(kind)?, u32::from_be_bytes(length));
    if length > LONGEST {
        return Err(io::Error::other(format!("a frame of {length} bytes")));
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes)?;
    Ok((kind, bytes))
}

pub(super) fn read_word<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    match read(from)? {
        (Kind::Word, bytes) => Ok(serde_json::from_slice(&bytes)?),
        (kind, _) => Err(io::Error::other(format!("{kind:?} instead of a request or an answer"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn frames_come_back_as_they_went() {
        let mut wire = Vec::new();
        write(&mut wire, Kind::Error, b"no\0 text\xff").unwrap();
        write_word(&mut wire, &Answer::Ended { code: Some(7), signal: None }).unwrap();
        let mut wire = &wire[..];
        assert_eq!(read(&mut wire).unwrap(), (Kind::Error, b"no\0 text\xff".to_vec()));
        assert!(matches!(read_word(&mut wire).unwrap(), Answer::Ended { code: Some(7), signal: None }));
        assert!(read(&mut wire).is_err(), "there is no more");
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for bad in [&[9, 0, 0, 0, 0][..], &[0, 255, 255, 255, 255], &[0, 0, 0, 0, 9, 1]] {
            assert!(read(&mut &*bad).is_err(), "{bad:?}");
        }
    }
}
