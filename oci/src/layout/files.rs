//! The files of a layout, be it a directory or an archive.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use serde::de::DeserializeOwned;

use super::Error;
use crate::content::documents::DOCUMENT_MAX;
use crate::content::{Store, Temp};
use crate::digest::Digest;
use crate::layers::{Archive, Decompressed, Kind, Limits, is_compressed};

/// Most members of an archive; one of an image has some per layer.
const MEMBERS_MAX: u64 = 100_000;
/// Largest archive once decompressed.
const ARCHIVE_MAX: u64 = 256 << 30;
const LINKS_MAX: usize = 8;

pub(super) struct Files {
    pub(super) path: PathBuf,
    kind: Kinds,
}

enum Kinds {
    Directory,
    Archive {
        file: File,
        members: BTreeMap<String, Member>,
        /// Where a compressed archive was decompressed to.
        _temp: Option<Temp>,
    },
}

enum Member {
    File {
        offset: u64,
        size: u64,
    },
    /// Old `docker save` archives link layers that they hold twice.
    Link(String),
}

/// Opens whatever is there without waiting: a pipe's other end may never come.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)
}

impl Files {
    pub(super) fn open(store: &Store, path: &Path) -> Result<Self, Error> {
        let at = |doing| move |source| Error::Io { doing, path: path.to_owned(), source };
        let mut file = open(path).map_err(at("open"))?;
        let found = file.metadata().map_err(at("look at"))?;
        if found.is_dir() {
            return Ok(Self { path: path.to_owned(), kind: Kinds::Directory });
        }
        if !found.is_file() {
            return Err(Error::NotAFile { path: path.to_owned() });
        }
        let mut temp = None;
        let mut magic = [0; 4];
        let magic = read_up_to(&mut file, &mut magic).map_err(at("read"))?;
        let compressed = is_compressed(magic);
        file.rewind().map_err(at("read"))?;
        if compressed {
            let plain = store.temp();
            file = decompress(path, file, plain.path())?;
            temp = Some(plain);
        }
        let members = members(path, &file)?;
        Ok(Self { path: path.to_owned(), kind: Kinds::Archive { file, members, _temp: temp } })
    }

    pub(super) fn is_archive(&self) -> bool {
        matches!(self.kind, Kinds::Archive { .. })
    }

    /// Opens a file and tells its size; `None` if there is none of that name. In a directory, `name` must be one that
    /// this program has made up: it is not checked.
    pub(super) fn find(&self, name: &str) -> Result<Option<(File, u64)>, Error> {
        let at = |doing| move |source| Error::Io { doing, path: self.path.join(name), source };
        match &self.kind {
            Kinds::Directory => match open(&self.path.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(at("open")(error)),
                Ok(file) => {
                    let found = file.metadata().map_err(at("look at"))?;
                    if !found.is_file() {
                        return Err(Error::NotAFile { path: self.path.join(name) });
                    }
                    Ok(Some((file, found.len())))
                }
            },
            Kinds::Archive { file, members, .. } => {
                let mut name = name.to_owned();
                for _ in 0..LINKS_MAX {
                    match members.get(&name) {
                        None => return Ok(None),
                        Some(Member::Link(target)) => name.clone_from(target),
                        Some(Member::File { offset, size }) => {
                            // One reader at a time: the position that the clones share is set here.
                            let mut file = file.try_clone().map_err(at("open"))?;
                            file.seek(SeekFrom::Start(*offset)).map_err(at("read"))?;
                            return Ok(Some((file, *size)));
                        }
                    }
                }
                Ok(None)
            }
        }
    }

    pub(super) fn open_file(&self, name: &str, needed_by: &str) -> Result<(File, u64), Error> {
        self.find(name)?.ok_or_else(|| Error::MissingFile {
            path: self.path.clone(),
            file: name.to_owned(),
            needed_by: needed_by.to_owned(),
        })
    }

    /// Reads a small file whole.
    pub(super) fn read(&self, name: &str, needed_by: &str) -> Result<Vec<u8>, Error> {
        let (file, size) = self.open_file(name, needed_by)?;
        let (path, name) = (self.path.clone(), name.to_owned());
        if size > DOCUMENT_MAX {
            return Err(Error::LargeDocument { path, file: name, size, limit: DOCUMENT_MAX });
        }
        let mut bytes = Vec::new();
        let read = file.take(size).read_to_end(&mut bytes);
        read.map_err(|source| Error::Io { doing: "read", path: path.join(&name), source })?;
        if (bytes.len() as u64) < size {
            return Err(Error::Truncated { path, file: name });
        }
        Ok(bytes)
    }

    /// Reads a small blob and verifies it.
    pub(super) fn read_blob(&self, digest: &Digest, size: u64, needed_by: &str) -> Result<Vec<u8>, Error> {
        let name = blob_name(digest);
        let bytes = self.read(&name, needed_by)?;
        let (path, found_size) = (self.path.clone(), bytes.len() as u64);
        if found_size != size {
            return Err(Error::Size { path, file: name, announced: size, found: found_size });
        }
        match Digest::of(&bytes) {
            found if found != *digest => Err(Error::WrongDigest { path, file: name, found }),
            _ => Ok(bytes),
        }
    }

    pub(super) fn parse<T: DeserializeOwned>(&self, name: &str, bytes: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(bytes).map_err(|source| Error::Document {
            path: self.path.clone(),
            file: name.to_owned(),
            source,
        })
    }
}

pub(super) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Fills `buffer` as far as the file goes.
fn read_up_to<'b>(file: &mut File, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(&buffer[..filled])
}

fn decompress(path: &Path, file: File, to: &Path) -> Result<File, Error> {
    let at = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { doing, path, source }
    };
    let mut silent = |_| {};
    let mut reader = Decompressed::new(file, ARCHIVE_MAX, &mut silent).map_err(at("decompress", path))?;
    let mut plain =
        File::options().read(true).write(true).create_new(true).open(to).map_err(at("make", to))?;
    io::copy(&mut reader, &mut plain).map_err(at("decompress", path))?;
    plain.rewind().map_err(at("read", to))?;
    Ok(plain)
}

fn members(path: &Path, file: &File) -> Result<BTreeMap<String, Member>, Error> {
    let at = |source| Error::Io { doing: "read", path: path.to_owned(), source };
    let len = file.metadata().map_err(at)?.len();
    let reader = Seeking { reader: BufReader::new(file), position: 0, len };
    let limits = Limits { entries: MEMBERS_MAX, xattrs: 4096, ..Limits::default() };
    let mut archive = Archive::seeking(reader, &limits, Seeking::skip);
    let mut members = BTreeMap::new();
    loop {
        let entry = archive.next_entry().map_err(|(fault, entry)| {
            let path = path.to_owned();
            match entry {
                Some(entry) => Error::ArchiveEntry { path, entry, fault },
                None => Error::Archive { path, fault },
            }
        })?;
        let Some(entry) = entry else { return Ok(members) };
        let name = normal(&String::from_utf8_lossy(&entry.path));
        let member = match &entry.kind {
            Kind::File => {
                let (offset, size) = (archive.reader().position, archive.content_left());
                if size > len.saturating_sub(offset) {
                    return Err(Error::Truncated { path: path.to_owned(), file: name });
                }
                Member::File { offset, size }
            }
            Kind::HardLink(target) => Member::Link(normal(&String::from_utf8_lossy(target))),
            Kind::Symlink(target) => {
                let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
                Member::Link(normal(&format!("{parent}/{}", String::from_utf8_lossy(target))))
            }
            _ => continue,
        };
        members.insert(name, member);
    }
}

/// `./a/../b` as `b`. These names are only looked up among the archive's own, never opened.
fn normal(path: &str) -> String {
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names.join("/")
}

/// A file that is skipped through, rather than read, and knows where it is.
struct Seeking<'f> {
    reader: BufReader<&'f File>,
    position: u64,
    len: u64,
}

impl Seeking<'_> {
    fn skip(&mut self, bytes: u64) -> io::Result<u64> {
        let skipped = bytes.min(self.len.saturating_sub(self.position));
        self.reader.seek_relative(i64::try_from(skipped).unwrap_or(i64::MAX))?;
        self.position += skipped;
        Ok(skipped)
    }
}

impl Read for Seeking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        self.position += n as u64;
        Ok(n)
    }
}
