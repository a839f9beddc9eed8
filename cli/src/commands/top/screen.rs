//! The terminal while it shows one page that changes: a screen of its own, which leaves it as it was.

use std::{
    io::{self, IsTerminal, Read, Write},
    thread,
};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::{
    commands::reach::terminal::{Raw, size},
    output::{Line, Space},
};

/// The other screen, no cursor, no wrapping; and back.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &[u8] = b"\x1b[?7h\x1b[?25h\x1b[?1049l";

pub(super) struct Screen {
    /// Dropped last.
    _raw: Raw,
}

impl Screen {
    /// None: nobody sits there.
    pub(super) fn begin() -> io::Result<Option<Screen>> {
        if !io::stdout().is_terminal() {
            return Ok(None);
        }
        let Some(raw) = Raw::begin() else { return Ok(None) };
        let screen = Screen { _raw: raw };
        put(ENTER)?;
        Ok(Some(screen))
    }

    pub(super) fn space(&self) -> Space {
        let size = size();
        Space { columns: size.columns.into(), rows: size.rows.into() }
    }

    /// In one piece, so that nothing flickers.
    pub(super) fn draw(&self, lines: &[Line]) -> io::Result<()> {
        let mut text = String::from("\x1b[H");
        for (n, line) in lines.iter().take(self.space().rows).enumerate() {
            if n > 0 {
                text.push_str("\r\n");
            }
            let (on, off) = if line.head { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
            text.push_str(&format!("{on}{}{off}\x1b[K", line.text));
        }
        text.push_str("\x1b[J");
        put(text.as_bytes())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = put(LEAVE);
    }
}

fn put(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// The keys that are pressed. The thread that reads them ends with the process.
pub(super) fn keys() -> UnboundedReceiver<u8> {
    let (tell, told) = unbounded_channel();
    thread::spawn(move || {
        let mut key = [0];
        while let Ok(1) = io::stdin().read(&mut key) {
            if tell.send(key[0]).is_err() {
                return;
            }
        }
    });
    told
}
