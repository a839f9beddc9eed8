//! The terminal that this command runs in.

use std::io::{self, IsTerminal};

use gossip::wire::stream::TerminalSize;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// Of a terminal that has none, or if there is none.
const USUAL: TerminalSize = TerminalSize { rows: 24, columns: 80 };

pub(in crate::commands) fn size() -> TerminalSize {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    for stream in [0, 1, 2] {
        // SAFETY: the request writes one winsize.
        let asked = unsafe { libc::ioctl(stream, libc::TIOCGWINSZ, &raw mut size) };
        if asked == 0 && size.ws_row > 0 && size.ws_col > 0 {
            return TerminalSize { rows: size.ws_row, columns: size.ws_col };
        }
    }
    USUAL
}

/// While it lives, keys come one by one and unread, Ctrl-C among them.
pub(in crate::commands) struct Raw(Termios);

impl Raw {
    /// None: standard input is no terminal.
    pub(in crate::commands) fn begin() -> Option<Raw> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&stdin, SetArg::TCSANOW, &raw).ok()?;
        Some(Raw(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.0);
    }
}
