//! To be woken when somebody waits for memory, rather than look all the time (PSI triggers: the kernel's
//! `Documentation/accounting/psi.rst`).

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Tree, UNIFIED};

/// Somebody has waited for a twentieth of a second within one. Without the right to watch so closely (`CAP_SYS_RESOURCE`)
/// the kernel takes windows of two seconds only and looks at them as seldom: that is no alarm.
const TRIGGER: &str = "some 50000 1000000\0";

/// Goes off when tasks of the node wait for memory.
#[derive(Debug)]
pub struct Alarm(File);

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The time was over.
    InTime,
    /// Somebody waits for memory.
    Alarmed,
    /// The alarm goes off no more: what it watched is gone.
    Broken,
}

impl Tree {
    /// An alarm on all that runs here, or else on the machine; `None` where the kernel gives none.
    pub fn alarm(&self) -> Option<Alarm> {
        let own = self.tree_of(UNIFIED).map(|tree| tree.join("memory.pressure"));
        let files = own.iter().map(AsRef::as_ref).chain([Path::new("/proc/pressure/memory")]);
        files.into_iter().find_map(set)
    }
}

fn set(path: &Path) -> Option<Alarm> {
    let mut file = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    file.write_all(TRIGGER.as_bytes()).ok()?;
    Some(Alarm(file))
}

impl Alarm {
    /// Waits until it goes off, and no longer than `most`.
    pub fn wait(&self, most: Duration) -> Woken {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLPRI)];
        match poll(&mut fds, PollTimeout::try_from(most).unwrap_or(PollTimeout::MAX)) {
            Ok(0) | Err(Errno::EINTR) => Woken::InTime,
            Ok(_) if fds[0].revents().is_some_and(|seen| seen == PollFlags::POLLPRI) => Woken::Alarmed,
            Ok(_) | Err(_) => Woken::Broken,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsRawFd as _, OwnedFd};

    use super::*;

    #[test]
    fn it_goes_off_in_time_or_breaks() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let alarm = Alarm(File::from(OwnedFd::from(listener.accept().unwrap().0)));
        assert_eq!(alarm.wait(Duration::ZERO), Woken::InTime);
        // Out-of-band data is told of in the same way.
        // SAFETY: one byte that is there.
        let sent = unsafe { libc::send(other.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) };
        assert_eq!((sent, alarm.wait(Duration::from_secs(60))), (1, Woken::Alarmed));

        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(Alarm(File::from(OwnedFd::from(writer))).wait(Duration::from_secs(60)), Woken::Broken);
    }

    #[test]
    fn what_tells_no_pressure_gives_no_alarm() {
        assert!(set(Path::new("/nowhere")).is_none());
        assert!(set(Path::new("/proc/version")).is_none());
    }
}
