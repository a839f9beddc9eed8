//! A file or directory as an archive.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use super::{Copied, Error};

/// Write `path`, and what is below it if it is a directory, under its last component. A link is followed if `path` is
/// one, and copied as a link below it. `progress` is told of each piece's bytes.
pub fn pack(path: &Path, to: impl Write, progress: &mut dyn FnMut(u64)) -> Result<Copied, Error> {
    let name = path.file_name().unwrap_or(OsStr::new("root")).to_os_string();
    let meta = fs::metadata(path).map_err(Error::io("read", path))?;
    let mut packing = Packing { to: Builder::new(to), copied: Copied::default(), progress };
    let mut todo = vec![(path.to_path_buf(), PathBuf::from(name), Some(meta))];
    while let Some((from, name, meta)) = todo.pop() {
        let meta = match meta {
            Some(meta) => meta,
            None => match fs::symlink_metadata(&from) {
                // Deleted since it was listed: as if it had not been.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                meta => meta.map_err(Error::io("read", &from))?,
            },
        };
        if meta.is_dir() {
            packing.directory(&name, &meta)?;
            let mut entries = list(&from)?;
            // The last is taken first.
            entries.sort_unstable_by(|a, b| b.cmp(a));
            todo.extend(entries.into_iter().map(|entry| (from.join(&entry), name.join(&entry), None)));
        } else if meta.is_symlink() {
            packing.link(&from, &name, &meta)?;
        } else if meta.is_file() {
            packing.file(&from, &name)?;
        } else {
            packing.copied.skipped += 1;
        }
    }
    let Packing { to, copied, .. } = packing;
    to.into_inner().and_then(|mut to| to.flush()).map_err(Error::Archive)?;
    Ok(copied)
}

fn list(dir: &Path) -> Result<Vec<OsString>, Error> {
    let entries = fs::read_dir(dir).map_err(Error::io("list", dir))?;
    entries
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()
        .map_err(Error::io("list", dir))
}

struct Packing<'a, W: Write> {
    to: Builder<W>,
    copied: Copied,
    progress: &'a mut dyn FnMut(u64),
}

impl<W: Write> Packing<'_, W> {
    fn directory(&mut self, name: &Path, meta: &fs::Metadata) -> Result<(), Error> {
        let mut header = header(meta, EntryType::Directory, 0);
        self.to.append_data(&mut header, name, std::io::empty()).map_err(Error::Archive)
    }

    fn link(&mut self, from: &Path, name: &Path, meta: &fs::Metadata) -> Result<(), Error> {
        let target = fs::read_link(from).map_err(Error::io("read", from))?;
        let mut header = header(meta, EntryType::Symlink, 0);
        self.copied.files += 1;
        self.to.append_link(&mut header, name, target).map_err(Error::Archive)
    }

    fn file(&mut self, from: &Path, name: &Path) -> Result<(), Error> {
        let file = File::open(from).map_err(Error::io("read", from))?;
        let meta = file.metadata().map_err(Error::io("read", from))?;
        let mut header = header(&meta, EntryType::Regular, meta.len());
        // What is added meanwhile is not of this copy.
        let mut counted = Counted { from: file.take(meta.len()), seen: 0, progress: self.progress };
        self.to.append_data(&mut header, name, &mut counted).map_err(Error::io("read", from))?;
        if counted.seen < meta.len() {
            return Err(Error::Shrank(from.into()));
        }
        self.copied.files += 1;
        self.copied.bytes += meta.len();
        Ok(())
    }
}

fn header(meta: &fs::Metadata, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_metadata(meta);
    header.set_entry_type(kind);
    header.set_size(size);
    header
}

struct Counted<'a, R> {
    from: R,
    seen: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.seen += read as u64;
        (self.progress)(read as u64);
        Ok(read)
    }
}
