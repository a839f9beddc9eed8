//! A terminal of the container's own, so that its number means something in there.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::exec::{Size, resize};

/// Both ends of a new terminal. To be called inside the container.
pub(super) fn open(size: Size) -> io::Result<(OwnedFd, OwnedFd)> {
    let master = master()?;
    unlock(&master)?;
    resize(&master, size)?;
    // By the master, and not by a path that the container could have put something else at.
    // SAFETY: the request takes flags, and returns a new descriptor.
    let slave = unsafe {
        libc::ioctl(
            master.as_raw_fd(),
            libc::TIOCGPTPEER as _,
            libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC,
        )
    };
    if slave < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is new and nobody else's.
    Ok((master, unsafe { OwnedFd::from_raw_fd(slave) }))
}

/// The container's own multiplexer, whatever it has put at that place.
fn master() -> io::Result<OwnedFd> {
    const PTMX: (u32, u32) = (5, 2);
    let mut refused = io::Error::from_raw_os_error(libc::ENODEV);
    for path in ["/dev/pts/ptmx", "/dev/ptmx"] {
        let opened = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY | libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path);
        match opened {
            Ok(file) => {
                let number = file.metadata()?.rdev();
                if (libc::major(number), libc::minor(number)) == PTMX {
                    // That was for whatever else could have been there.
                    fcntl(file.as_raw_fd(), FcntlArg::F_SETFL(OFlag::empty()))?;
                    return Ok(file.into());
                }
            }
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

fn unlock(master: &OwnedFd) -> io::Result<()> {
    let unlocked: libc::c_int = 0;
    // SAFETY: the request reads one int.
    let done = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Make it the calling process's, which leads a session without one.
pub(super) fn control(slave: &OwnedFd) -> io::Result<()> {
    // SAFETY: the request takes a number.
    let done = unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
