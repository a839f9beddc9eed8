//! Reads tar archives, entry by entry, as container tools write them: ustar, PAX and GNU long names.
//!
//! Our own, over the header accessors of the `tar` crate, since its reader takes the lengths of long names and
//! PAX records at their word, and those come from strangers. Source of the format: POSIX.1-2017, pax, and
//! the GNU tar manual; in doubt what Go's archive/tar does, as most layers are written by it.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::Limits;
use super::fault::{Fault, shown};

const BLOCK: usize = 512;
/// Most that PAX records of one entry take besides extended attributes and the two paths.
const PAX_REST: usize = 16 << 10;

/// An entry's header, everything decoded.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub(crate) mtime: (i64, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// Its content is read from the archive.
    File,
    Directory,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    Fifo,
    Device {
        kind: &'static str,
        major: u32,
        minor: u32,
    },
}

/// What extension headers say about the entry that follows them.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

pub(crate) struct Archive<'l, R> {
    reader: R,
    /// Goes on by that many bytes and tells how many there were.
    skip: fn(&mut R, u64) -> io::Result<u64>,
    limits: &'l Limits,
    entries: u64,
    /// Of the current entry's content, and of the zeros that fill its last block.
    content: u64,
    padding: u64,
}

/// A fault, and the entry that it is about.
type Found = (Fault, Option<String>);

impl<'l, R: Read> Archive<'l, R> {
    pub(crate) fn new(reader: R, limits: &'l Limits) -> Self {
        let skip = |reader: &mut R, bytes| io::copy(&mut reader.take(bytes), &mut io::sink());
        Self::seeking(reader, limits, skip)
    }

    /// For a reader that has a better way to skip than to read.
    pub(crate) fn seeking(reader: R, limits: &'l Limits, skip: fn(&mut R, u64) -> io::Result<u64>) -> Self {
        Self { reader, skip, limits, entries: 0, content: 0, padding: 0 }
    }

    pub(crate) fn reader(&self) -> &R {
        &self.reader
    }

    /// How many bytes of the current entry's content have not been read.
    pub(crate) fn content_left(&self) -> u64 {
        self.content
    }

    pub(crate) fn into_reader(self) -> R {
        self.reader
    }

    /// The next entry; what was not read of the one before is skipped.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, Found> {
        let mut extensions = Extensions::default();
        loop {
            let name = |extensions: &Extensions| extensions.path.as_deref().map(shown);
            self.skip_content().map_err(|fault| (fault, name(&extensions)))?;
            let block = self.read_header().map_err(|fault| (fault, name(&extensions)))?;
            let Some(block) = block else { return Ok(None) };
            let header = Header::from_byte_slice(&block);
            let path = extensions.path.clone().unwrap_or_else(|| header.path_bytes().into_owned());
            let entry = self
                .read_entry(header, &path, &mut extensions)
                .map_err(|fault| (fault, Some(shown(&path))))?;
            if entry.is_some() {
                return Ok(entry);
            }
        }
    }

    /// Decodes one header. `None` if it was an extension, now in `extensions`.
    fn read_entry(
        &mut self,
        header: &Header,
        path: &[u8],
        extensions: &mut Extensions,
    ) -> Result<Option<Entry>, Fault> {
        // Extension headers count too: an endless chain of them must end somewhere.
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(Fault::TooMany { limit: self.limits.entries });
        }
        let size = field(header.entry_size(), &header.as_old().size, "the size is no number")?;
        match header.entry_type() {
            EntryType::GNULongName => extensions.path = Some(self.long_name(size)?),
            EntryType::GNULongLink => extensions.link = Some(self.long_name(size)?),
            EntryType::XHeader => self.pax(size, extensions)?,
            // Defaults for all that follows; what tools put there (a commit id) is of no use here.
            EntryType::XGlobalHeader => self.set_content(size),
            _ => return self.decode(header, size, path, std::mem::take(extensions)).map(Some),
        }
        Ok(None)
    }

    fn decode(&mut self, header: &Header, size: u64, path: &[u8], ext: Extensions) -> Result<Entry, Fault> {
        let link = || {
            ext.link.clone().or_else(|| header.link_name_bytes().map(|l| l.into_owned())).unwrap_or_default()
        };
        let kind = match header.entry_type() {
            // Before ustar, a directory was a file with a slash at its end.
            EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink(link()),
            EntryType::Link => Kind::HardLink(link()),
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char => device("character", header),
            EntryType::Block => device("block", header),
            EntryType::GNUSparse => return Err(Fault::Sparse),
            other => return Err(Fault::EntryType(char::from(other.as_byte()))),
        };
        // As Go has it: only files have content, whatever the size field says.
        if matches!(kind, Kind::File) {
            self.set_content(ext.size.unwrap_or(size));
        }
        // The highest id means "unchanged" to chown.
        let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or(Fault::Owner(id));
        let raw = header.as_old();
        let uid = ext.uid.map_or_else(|| field(header.uid(), &raw.uid, "the owner is no number"), Ok)?;
        let gid = ext.gid.map_or_else(|| field(header.gid(), &raw.gid, "the owner is no number"), Ok)?;
        let mode = field(header.mode().map(u64::from), &raw.mode, "the mode is no number")?;
        let mtime = ext.mtime.or_else(|| Some((i64::try_from(header.mtime().ok()?).ok()?, 0)));
        Ok(Entry {
            kind,
            mode: (mode & 0o7777) as u32,
            uid: id(uid)?,
            gid: id(gid)?,
            mtime: mtime.unwrap_or_default(),
            xattrs: ext.xattrs,
            path: path.to_vec(),
        })
    }

    fn set_content(&mut self, size: u64) {
        self.content = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn skip_content(&mut self) -> Result<(), Fault> {
        // An absurd size does not matter: the reader ends, or the byte limit is met, before.
        let left = self.content.checked_add(self.padding).ok_or(Fault::Malformed("the size is too large"))?;
        (self.content, self.padding) = (0, 0);
        let skipped = (self.skip)(&mut self.reader, left).map_err(|error| self.read_fault(error))?;
        if skipped < left { Err(Fault::Truncated) } else { Ok(()) }
    }

    /// The next header. `None` at the archive's end: blocks of zeros or, as Go has it, simply nothing more.
    fn read_header(&mut self) -> Result<Option<[u8; BLOCK]>, Fault> {
        let Some(block) = self.read_block()? else { return Ok(None) };
        if is_blank(&block) {
            return match self.read_block()? {
                Some(next) if !is_blank(&next) => Err(Fault::Malformed("there is more after its end")),
                _ => Ok(None),
            };
        }
        let header = Header::from_byte_slice(&block);
        let sum = |byte: fn(u8) -> i64| -> i64 {
            let outside = block[..148].iter().chain(&block[156..]).map(|b| byte(*b)).sum::<i64>();
            outside + 8 * i64::from(b' ')
        };
        let stored = header.cksum().map_err(|_| Fault::Malformed("a header's checksum is no number"))?;
        // Some old tars summed signed bytes.
        if i64::from(stored) != sum(i64::from) && i64::from(stored) != sum(|b| i64::from(b as i8)) {
            return Err(Fault::Malformed("a header's checksum is wrong"));
        }
        Ok(Some(block))
    }

    fn read_block(&mut self) -> Result<Option<[u8; BLOCK]>, Fault> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.reader.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(Fault::Truncated),
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.read_fault(error)),
            }
        }
        Ok(Some(block))
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, Fault> {
        // One more for the NUL that ends it.
        if size > self.limits.path as u64 + 1 {
            return Err(Fault::LongPath { limit: self.limits.path });
        }
        let mut name = self.read_small(size)?;
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        name.truncate(end);
        Ok(name)
    }

    fn read_small(&mut self, size: u64) -> Result<Vec<u8>, Fault> {
        self.set_content(size);
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        let mut filled = 0;
        while filled < bytes.len() {
            filled += self.read_content(&mut bytes[filled..])?;
        }
        Ok(bytes)
    }

    fn pax(&mut self, size: u64, extensions: &mut Extensions) -> Result<(), Fault> {
        let limit = self.limits.xattrs + 2 * self.limits.path + PAX_REST;
        if size > limit as u64 {
            return Err(Fault::LargeXattrs { limit: self.limits.xattrs });
        }
        let records = self.read_small(size)?;
        let mut rest = records.as_slice();
        let mut xattr_bytes = 0;
        while !rest.is_empty() {
            let (key, value, after) = pax_record(rest).ok_or(Fault::Malformed("a PAX record is broken"))?;
            rest = after;
            match key {
                b"path" => extensions.path = Some(value.to_vec()),
                b"linkpath" => extensions.link = Some(value.to_vec()),
                b"size" => extensions.size = Some(number(value)?),
                b"uid" => extensions.uid = Some(number(value)?),
                b"gid" => extensions.gid = Some(number(value)?),
                b"mtime" => {
                    extensions.mtime = Some(time(value).ok_or(Fault::Malformed("a PAX mtime is no number"))?)
                }
                _ if key.starts_with(b"GNU.sparse.") => return Err(Fault::Sparse),
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        xattr_bytes += name.len() + value.len();
                        extensions.xattrs.push((name.to_vec(), value.to_vec()));
                    }
                }
            }
        }
        match xattr_bytes > self.limits.xattrs {
            true => Err(Fault::LargeXattrs { limit: self.limits.xattrs }),
            false => Ok(()),
        }
    }

    fn read_fault(&self, error: io::Error) -> Fault {
        Fault::read(error, self.limits)
    }

    /// Reads on in the current entry's content; 0 at its end.
    pub(crate) fn read_content(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let wanted = usize::try_from(self.content).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        loop {
            match self.reader.read(&mut buffer[..wanted]) {
                Ok(0) => return Err(Fault::Truncated),
                Ok(n) => {
                    self.content -= n as u64;
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.read_fault(error)),
            }
        }
    }
}

/// A number of the header; one that was left blank is 0, as Go has it.
fn field(value: io::Result<u64>, raw: &[u8], fault: &'static str) -> Result<u64, Fault> {
    match value {
        Err(_) if is_blank(raw) => Ok(0),
        value => value.map_err(|_| Fault::Malformed(fault)),
    }
}

fn device(kind: &'static str, header: &Header) -> Kind {
    let number = |field: io::Result<Option<u32>>| field.ok().flatten().unwrap_or_default();
    Kind::Device { kind, major: number(header.device_major()), minor: number(header.device_minor()) }
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Takes `LEN KEY=VALUE\n` from the front, LEN being the record's own length. Values may hold any byte.
fn pax_record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(20).position(|byte| *byte == b' ')?;
    let len: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
    let record = records.get(space + 1..len)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &records[len..]))
}

fn number(text: &[u8]) -> Result<u64, Fault> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or(Fault::Malformed("a PAX size or owner is no number"))
}

/// `-12.345` as whole seconds, rounded down, and nanoseconds.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    match whole.starts_with('-') && nanos > 0 {
        true => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos)),
        false => Some((seconds, nanos)),
    }
}
