//! What the agent and the helper that executes a command say to each other: one JSON document in each packet of a
//! socket, with descriptors beside it.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::path::PathBuf;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Size;
use crate::bundle::Failure;

/// No packet is longer. Less than the kernel lets a socket hold.
pub(crate) const MOST: usize = 128 << 10;

/// What the helper is asked for, with the descriptors of the command's stdin, stdout and stderr (two of them for a
/// terminal: none is needed then).
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) bundle: PathBuf,
    pub(crate) work: Work,
    /// Laid over the task's.
    pub(crate) env: Vec<String>,
    /// The task's own if none.
    pub(crate) cwd: Option<PathBuf>,
    pub(crate) user: Option<String>,
    pub(crate) terminal: Option<Size>,
    /// The container is no more: of what it has left.
    #[serde(default)]
    pub(crate) ended: bool,
}

/// What is done inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Work {
    /// A program is executed.
    Program(Vec<String>),
    /// A file or directory is written to stdout, as a tar archive.
    Send(PathBuf),
    /// An archive is read from stdin, in chunks that tell its end (see `copy::chunks`).
    Receive(crate::copy::Into),
}

/// Helper → agent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Said {
    /// With the terminal's descriptor.
    Terminal,
    /// The program is executed.
    Started { pid: i32 },
    /// It is not, and nothing is left of the attempt.
    Failed(Failure),
    /// It has ended, and with it all that it had started.
    Ended { code: Option<i32>, signal: Option<i32> },
}

/// Agent → helper. The end of the socket ends the command.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Told {
    /// To the command's process group, as from a terminal.
    Signal(i32),
}

pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

pub(crate) fn send(socket: &OwnedFd, message: &impl Serialize, fds: &[RawFd]) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    if text.len() > MOST {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    let rights = [ControlMessage::ScmRights(fds)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    let packet = [IoSlice::new(&text)];
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &packet, control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            sent => return Ok(sent.map(drop)?),
        }
    }
}

/// The next message; `None` when the other side has gone.
pub(crate) fn receive<T: DeserializeOwned>(socket: &OwnedFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut text = vec![0; MOST];
    let mut space = cmsg_space!([RawFd; 3]);
    let (length, fds) = {
        let mut packet = [IoSliceMut::new(&mut text)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = loop {
            match recvmsg::<()>(socket.as_raw_fd(), &mut packet, Some(&mut space), flags) {
                Err(Errno::EINTR) => {}
                received => break received?,
            }
        };
        let mut fds = Vec::new();
        for message in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = message {
                // SAFETY: the kernel has just made them, for us.
                fds.extend(numbers.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        (received.bytes, fds)
    };
    if length == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&text[..length])?, fds)))
}
