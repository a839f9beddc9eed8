//! `exit.json`, written by hand: how a run ended.
//!
//! Whole or not at all: a file beside it, renamed. Not made durable: after a power cut the run is gone whatever its record
//! says, and an agent that has seen the end stores the outcome itself before anybody hears of it.

use core::ffi::CStr;
use core::mem::MaybeUninit;

use crate::system::{self, Fd};

const RECORD: &CStr = c"exit.json";
/// Room was set aside in it when the run began, so that a disk that is full by then does not matter.
const RESERVED: &CStr = c"exit.json.tmp";

/// How a run ended.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// As `waitpid` gives it, of the container's first process.
    pub status: i32,
    /// Wall time, in milliseconds since 1970.
    pub finished_at_ms: u64,
    /// Log bytes of both streams that could not be stored.
    pub log_bytes_lost: u64,
}

/// A document small enough to be put together on the stack.
pub struct Text {
    bytes: [MaybeUninit<u8>; 192],
    length: usize,
}

impl Text {
    /// Nothing yet.
    #[inline(always)]
    #[expect(clippy::new_without_default, reason = "it would have to be inlined as well")]
    pub fn new() -> Text {
        Text { bytes: [const { MaybeUninit::uninit() }; 192], length: 0 }
    }

    fn push(&mut self, text: &[u8]) {
        for &byte in text {
            if let Some(at) = self.bytes.get_mut(self.length) {
                at.write(byte);
                self.length += 1;
            }
        }
    }

    fn number(&mut self, number: u64) {
        let (mut digits, mut left) = ([b'0'; 20], number);
        let mut first = digits.len() - 1;
        for (place, digit) in digits.iter_mut().enumerate().rev() {
            *digit = b'0' + (left % 10) as u8;
            left /= 10;
            first = if *digit == b'0' { first } else { place };
        }
        self.push(digits.get(first..).unwrap_or_default());
    }

    /// What it says.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: so many have been written.
        unsafe { core::slice::from_raw_parts(self.bytes.as_ptr().cast(), self.length) }
    }
}

impl Record {
    /// Put the document together. That it reads as an exit record of the bundle's is tested there.
    pub fn json(&self, text: &mut Text) {
        let signal = self.status & 0x7f;
        text.push(b"{\"version\":1,\"code\":");
        if signal == 0 {
            text.number((self.status >> 8 & 0xff) as u64);
            text.push(b",\"signal\":null");
        } else {
            text.push(b"null,\"signal\":");
            text.number(signal as u64);
        }
        // Whoever reads it knows better, and an older one wants it to be there.
        text.push(b",\"oom\":false,\"finished_at_ms\":");
        text.number(self.finished_at_ms);
        text.push(b",\"log_bytes_lost\":");
        text.number(self.log_bytes_lost);
        text.push(b"}");
    }

    pub(crate) fn write(&self, bundle: &Fd) -> Result<(), i32> {
        let mut text = Text::new();
        self.json(&mut text);
        let file = system::open_file(bundle.0, RESERVED, false)?;
        let mut left = text.bytes();
        while !left.is_empty() {
            let written = system::write(file.0, left)?;
            left = left.get(written..).unwrap_or_default();
        }
        // Only now: what was reserved must not be given back to a full disk before it is used.
        system::truncate(&file, text.length)?;
        system::rename(bundle, RESERVED, RECORD)
    }
}
