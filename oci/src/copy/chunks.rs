//! A stream that tells its end from its breaking off: a big-endian length of four bytes before each chunk, 0 after the
//! last.

use std::io::{self, Read};

/// After the last chunk.
pub const END: [u8; 4] = [0; 4];

/// What comes before a chunk of `length` bytes.
pub fn head(length: u32) -> [u8; 4] {
    length.to_be_bytes()
}

/// Reads the bytes of all chunks. The end of `from` before the stream's own is an error.
pub(crate) struct Chunks<R> {
    from: R,
    left: u32,
    over: bool,
}

impl<R: Read> Chunks<R> {
    pub(crate) fn new(from: R) -> Chunks<R> {
        Chunks { from, left: 0, over: false }
    }
}

impl<R: Read> Read for Chunks<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.over {
            return Ok(0);
        }
        if self.left == 0 {
            let mut head = END;
            self.from.read_exact(&mut head)?;
            self.left = u32::from_be_bytes(head);
            if self.left == 0 {
                self.over = true;
                return Ok(0);
            }
        }
        let most = buffer.len().min(self.left as usize);
        let read = self.from.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u32;
        Ok(read)
    }
}
