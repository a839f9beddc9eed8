//! The bytes of a layer: hashed, decompressed, hashed again, and never more than the limit.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};

use flate2::bufread::MultiGzDecoder;

use crate::digest::{Digest, Hasher};

const BUFFER: usize = 1 << 17;
/// How a gzip member and a zstd frame begin.
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Whether a file that starts like that is decompressed by [`Decompressed`].
pub(crate) fn is_compressed(start: &[u8]) -> bool {
    start.starts_with(&GZIP) || start.starts_with(&ZSTD)
}

/// The archive in a blob, plain or compressed with gzip or zstd. Which, its first bytes tell: media types
/// are often wrong about it.
pub(crate) struct Decompressed<'a> {
    decoder: Decoder<'a>,
    hasher: Hasher,
    left: u64,
}

type Blob<'a> = BufReader<Hashed<'a>>;

enum Decoder<'a> {
    Plain(Blob<'a>),
    Gzip(Box<MultiGzDecoder<Blob<'a>>>),
    Zstd(zstd::Decoder<'static, Blob<'a>>),
}

/// What a layer has turned out to be.
pub(super) struct Found {
    pub(super) blob: Digest,
    pub(super) size: u64,
    pub(super) diff_id: Digest,
}

impl<'a> Decompressed<'a> {
    pub(crate) fn new(blob: File, limit: u64, progress: &'a mut dyn FnMut(u64)) -> io::Result<Self> {
        let hashed = Hashed { file: blob, hasher: Hasher::default(), progress };
        let mut blob = BufReader::with_capacity(BUFFER, hashed);
        let decoder = match blob.fill_buf()? {
            start if start.starts_with(&GZIP) => Decoder::Gzip(Box::new(MultiGzDecoder::new(blob))),
            start if start.starts_with(&ZSTD) => Decoder::Zstd(zstd::Decoder::with_buffer(blob)?),
            _ => Decoder::Plain(blob),
        };
        Ok(Self { decoder, hasher: Hasher::default(), left: limit })
    }

    /// Reads what is left and tells the digests.
    pub(super) fn finish(mut self) -> io::Result<Found> {
        let mut buffer = vec![0; BUFFER];
        while self.read(&mut buffer)? > 0 {}
        let (mut blob, decompressed) = match self.decoder {
            Decoder::Plain(blob) => (blob, None),
            Decoder::Gzip(decoder) => (decoder.into_inner(), Some(self.hasher)),
            Decoder::Zstd(decoder) => (decoder.finish(), Some(self.hasher)),
        };
        while blob.read(&mut buffer)? > 0 {}
        let (blob, size) = blob.into_inner().hasher.finish();
        let diff_id = decompressed.map_or(blob, |hasher| hasher.finish().0);
        Ok(Found { blob, size, diff_id })
    }
}

impl Read for Decompressed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = match &mut self.decoder {
            Decoder::Plain(blob) => blob.read(buffer)?,
            Decoder::Gzip(decoder) => decoder.read(buffer)?,
            Decoder::Zstd(decoder) => decoder.read(buffer)?,
        };
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| io::Error::other(OverLimit))?;
        // A plain archive is the blob, which is hashed already.
        if !matches!(self.decoder, Decoder::Plain(_)) {
            self.hasher.write_all(&buffer[..n])?;
        }
        Ok(n)
    }
}

/// The blob as it is distributed.
struct Hashed<'a> {
    file: File,
    hasher: Hasher,
    progress: &'a mut dyn FnMut(u64),
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.hasher.write_all(&buffer[..n])?;
        (self.progress)(n as u64);
        Ok(n)
    }
}

/// Carried by the error of a read that went beyond the limit.
#[derive(Debug)]
pub(super) struct OverLimit;

impl fmt::Display for OverLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("more bytes than the limit allows")
    }
}

impl std::error::Error for OverLimit {}
