//! Talking netlink, and nothing of what is said: requests out, acknowledgements in.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::SocketAddr;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};

/// What the kernel may take for an answer: it is given under locks, so one that does not come at all is a fault.
const PATIENCE: TimeVal = TimeVal::new(20, 0);

/// A socket to a part of the kernel, in the network namespace in which it was opened, wherever it is used.
pub(super) struct Socket {
    inner: netlink_sys::Socket,
    sequence: u32,
}

/// Which of several requests was refused, and how.
#[derive(Debug)]
pub(super) struct Refused {
    /// The place among the requests.
    pub(super) at: usize,
    pub(super) source: io::Error,
}

impl Socket {
    /// `protocol`: `NETLINK_ROUTE`, `NETLINK_NETFILTER`.
    pub(super) fn open(protocol: isize) -> io::Result<Socket> {
        let mut inner = netlink_sys::Socket::new(protocol)?;
        inner.bind_auto()?;
        setsockopt(&inner.as_fd(), sockopt::ReceiveTimeout, &PATIENCE)?;
        // A batch of rules is one datagram.
        setsockopt(&inner.as_fd(), sockopt::SndBuf, &(1 << 20))?;
        debug_assert!(inner.as_raw_fd() > 2 && PATIENCE.num_seconds() > 0);
        Ok(Socket { inner, sequence: 0 })
    }

    /// Sends the requests as one datagram and waits until all are answered. Those with flags 0 are not acknowledged; if
    /// the kernel refuses one of them it says so all the same.
    pub(super) fn request<M>(&mut self, requests: Vec<(u16, M)>) -> Result<(), Refused>
    where
        NetlinkPayload<M>: From<M>,
        M: NetlinkSerializable,
    {
        let first = self.sequence.wrapping_add(1);
        let (mut datagram, mut waiting) = (Vec::new(), Vec::new());
        for (at, (flags, message)) in requests.into_iter().enumerate() {
            let acknowledged = flags != 0;
            waiting.push(acknowledged);
            let sequence = first.wrapping_add(u32::try_from(at).unwrap_or(u32::MAX));
            self.sequence = sequence;
            let ack = if acknowledged { NLM_F_ACK } else { 0 };
            datagram.extend(serialized(message, flags | ack | NLM_F_REQUEST, sequence));
        }
        let failed = |source| Refused { at: 0, source };
        self.send(&datagram).map_err(failed)?;
        while waiting.contains(&true) {
            let (answer, _) = self.receive().map_err(failed)?;
            for (header, said) in Messages(&answer) {
                // Of an earlier request whose answer was not waited for.
                let at = header.sequence_number.wrapping_sub(first) as usize;
                let (Some(wait), libc::NLMSG_ERROR) = (waiting.get_mut(at), i32::from(header.message_type))
                else {
                    continue;
                };
                *wait = false;
                let code = said.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                if code != 0 {
                    // What else is said of this datagram is told apart by its sequence numbers later.
                    return Err(Refused { at, source: io::Error::from_raw_os_error(-code) });
                }
            }
        }
        Ok(())
    }

    /// Everything of a kind. What cannot be read (a newer kernel's, another program's) is left out.
    pub(super) fn dump<M>(&mut self, message: M) -> io::Result<Vec<M>>
    where
        NetlinkPayload<M>: From<M>,
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        self.sequence = self.sequence.wrapping_add(1);
        self.send(&serialized(message, NLM_F_REQUEST | NLM_F_DUMP, self.sequence))?;
        let mut found = Vec::new();
        loop {
            let (answer, _) = self.receive()?;
            for (header, said) in Messages(&answer) {
                if header.sequence_number != self.sequence {
                    continue;
                }
                match i32::from(header.message_type) {
                    libc::NLMSG_DONE => return Ok(found),
                    libc::NLMSG_ERROR => {
                        let code = said.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                        return Err(io::Error::from_raw_os_error(-code));
                    }
                    _ => found.extend(M::deserialize(&header, said).ok()),
                }
            }
        }
    }

    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        self.inner.send_to(datagram, &SocketAddr::new(0, 0), 0).map(drop)
    }

    fn receive(&self) -> io::Result<(Vec<u8>, SocketAddr)> {
        loop {
            match self.inner.recv_from_full() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel does not answer"));
                }
                other => return other,
            }
        }
    }
}

fn serialized<M>(message: M, flags: u16, sequence: u32) -> Vec<u8>
where
    NetlinkPayload<M>: From<M>,
    M: NetlinkSerializable,
{
    let mut header = NetlinkHeader::default();
    (header.flags, header.sequence_number) = (flags, sequence);
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len().next_multiple_of(4)];
    message.serialize(&mut bytes);
    bytes
}

/// The messages of a datagram: header and what follows it.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = (NetlinkHeader, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        const HEADER: usize = 16;
        let word = |at: usize| self.0.get(at..at + 4).and_then(|bytes| bytes.first_chunk::<4>()).copied();
        let half = |at: usize| self.0.get(at..at + 2).and_then(|bytes| bytes.first_chunk::<2>()).copied();
        let mut header = NetlinkHeader::default();
        header.length = u32::from_ne_bytes(word(0)?);
        header.message_type = u16::from_ne_bytes(half(4)?);
        header.flags = u16::from_ne_bytes(half(6)?);
        header.sequence_number = u32::from_ne_bytes(word(8)?);
        let length = header.length as usize;
        let said = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((header, said))
    }
}
