//! What `hello` does to its neighbours on request, as long as its limits let it: to see that they do not suffer.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Instant;

/// The argument that makes this program one of a fork bomb's.
pub(super) const FORKS: &str = "--fork-for-ever";

/// What a block of direct IO has to be a multiple of, in memory and on disk.
const ALIGNED: usize = 4096;
const BLOCK: usize = 1 << 20;
/// What fits one frame of most networks.
const PACKET: [u8; 1400] = [1; 1400];

/// Writes past the page cache into one file, over and over, until the time is up.
pub(super) fn write(mib: u64, until: Instant) -> io::Result<()> {
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_DIRECT)
        .open("/unkind")?;
    let buffer = vec![1; BLOCK + ALIGNED];
    let start = buffer.as_ptr().align_offset(ALIGNED);
    while Instant::now() < until {
        file.rewind()?;
        for _ in 0..mib {
            file.write_all(&buffer[start..start + BLOCK])?;
        }
    }
    Ok(())
}

/// Sends as fast as it can to a port of this network's own, whether or not somebody listens there.
pub(super) fn send(port: u16, until: Instant) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    while Instant::now() < until {
        for _ in 0..1000 {
            // Nobody listens, or a buffer is full: the next one goes out all the same.
            let _ = socket.send_to(&PACKET, to);
        }
    }
    Ok(())
}

/// Keeps memory that is none of this process: a file without a name, of a file system in memory or in the page cache.
pub(super) fn hide(mib: u64, at: &str) -> io::Result<File> {
    let mut file = File::options().read(true).write(true).custom_flags(libc::O_TMPFILE).open(at)?;
    let block = vec![1; BLOCK];
    (0..mib).try_for_each(|_| file.write_all(&block))?;
    Ok(file)
}

/// Starts a fork bomb.
pub(super) fn fork() -> io::Result<()> {
    let mut hello = Command::new("/proc/self/exe");
    hello.arg0("hello").arg(FORKS).stdin(Stdio::null()).stdout(Stdio::null());
    hello.spawn().map(drop)
}

/// What each of its processes does, and does again when it fails.
pub(super) fn fork_for_ever() -> ! {
    loop {
        // SAFETY: this process has one thread and holds nothing.
        let _ = unsafe { nix::unistd::fork() };
    }
}
