//! A command on a guest that is used by hand: the terminal that it gets there, and the one in front of its user.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::pty::{Winsize, openpty};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

nix::ioctl_read_bad!(get_size, libc::TIOCGWINSZ, Winsize);
nix::ioctl_write_ptr_bad!(set_size, libc::TIOCSWINSZ, Winsize);

fn winsize((ws_row, ws_col): (u16, u16)) -> Winsize {
    Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 }
}

/// A new terminal: the end that is read and written, and the one for a process.
pub(super) fn open(size: (u16, u16)) -> io::Result<(File, OwnedFd)> {
    let pty = openpty(Some(&winsize(size)), None)?;
    Ok((pty.master.into(), pty.slave))
}

pub(super) fn resize(terminal: &File, size: (u16, u16)) {
    // SAFETY: the structure is valid for the call; a terminal that is gone is an error and no more.
    let _ = unsafe { set_size(terminal.as_raw_fd(), &winsize(size)) };
}

/// The rows and columns of this process' terminal, if it has one to read and to write.
pub(super) fn size() -> Option<(u16, u16)> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return None;
    }
    let mut size = winsize((0, 0));
    // SAFETY: the structure is valid for the call.
    unsafe { get_size(io::stdin().as_raw_fd(), &mut size) }.ok()?;
    Some((size.ws_row, size.ws_col))
}

/// While it lives, this process' terminal passes on every key as it is.
pub(super) struct Raw(Termios);

impl Raw {
    pub(super) fn set() -> io::Result<Self> {
        let before = tcgetattr(io::stdin().as_fd())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &self.0);
    }
}
