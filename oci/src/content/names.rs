//! Names of images: one small file each, replaced atomically.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{Error, Store, remove_all, sync_dir};
use crate::digest::Digest;
use crate::reference::Reference;

/// A name and the manifest it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub reference: Reference,
    /// Of the manifest.
    pub digest: Digest,
    /// When it came to stand for that, in milliseconds since 1970; 0 if nobody wrote it down.
    pub set_ms: u64,
    /// Made here of a file, not loaded.
    pub made: bool,
}

/// All names, and what hinders reading the others.
#[derive(Debug)]
pub struct Listing {
    /// Ordered by reference.
    pub names: Vec<Named>,
    pub unreadable: Vec<Error>,
}

/// The file of a name. Unknown fields are ignored, new ones will be optional.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) reference: Reference,
    pub(crate) digest: Digest,
    /// Wall time, in milliseconds since 1970.
    #[serde(default)]
    pub(crate) set_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) made: Option<Made>,
}

/// About an image that was made here of a file and can be made again, so that it needs no flush to disk.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Made {
    /// What the file looked like: if it still does, the image need not be made again.
    pub(crate) stamp: String,
    /// The boot (`/proc/sys/kernel/random/boot_id`) during which the image was made. After another one the
    /// page cache that held it may be gone, and the files of `content` with it.
    pub(crate) boot: String,
    /// Paths relative to the store.
    pub(crate) content: Vec<PathBuf>,
}

impl Store {
    fn name_path(&self, reference: &Reference) -> PathBuf {
        let hex = Digest::of(reference.tagged().to_string().as_bytes()).hex();
        self.names_dir().join(format!("{}.json", &hex[..32]))
    }

    /// The names, in order. An unreadable record does not hide the others.
    pub fn list(&self) -> Result<Listing, Error> {
        let dir = self.names_dir();
        let mut listing = Listing { names: Vec::new(), unreadable: Vec::new() };
        for entry in fs::read_dir(&dir).map_err(Error::io("list", &dir))? {
            let path = entry.map_err(Error::io("list", &dir))?.path();
            match read_record(&path) {
                Ok(Some(record)) => listing.names.push(named(record)),
                Ok(None) => {}
                Err(error) => listing.unreadable.push(error),
            }
        }
        listing.names.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(listing)
    }

    /// The digest of the manifest that `reference` means. A digest in the reference wins over its tag.
    pub fn resolve(&self, reference: &Reference) -> Result<Digest, Error> {
        if let Some(digest) = reference.digest() {
            return match self.blob_path(digest).exists() {
                true => Ok(*digest),
                false => Err(Error::UnknownDigest { reference: reference.clone() }),
            };
        }
        match read_record(&self.name_path(reference))? {
            Some(record) => Ok(record.digest),
            None => Err(self.unknown(reference)?),
        }
    }

    /// Removes a name and returns what it stood for. The content stays until [`Store::collect`].
    pub fn remove(&self, reference: &Reference) -> Result<Digest, Error> {
        let _state = self.state();
        let path = self.name_path(reference);
        // A digest in the reference must be what the name stands for: removing another image would be a surprise.
        let meant = |record: &Record| reference.digest().is_none_or(|digest| *digest == record.digest);
        let record = read_record(&path)?.filter(meant);
        let Some(record) = record else { return Err(self.unknown(reference)?) };
        self.remove_name(reference)?;
        Ok(record.digest)
    }

    /// Only while the store's state is locked.
    pub(super) fn remove_name(&self, reference: &Reference) -> Result<(), Error> {
        let path = self.name_path(reference);
        fs::remove_file(&path).map_err(Error::io("remove the name", &path))?;
        sync_dir(&self.names_dir())
    }

    /// What `reference` stands for here, whatever digest it names, and since when.
    pub fn named(&self, reference: &Reference) -> Result<Option<Named>, Error> {
        Ok(read_record(&self.name_path(reference))?.map(named))
    }

    /// Gives the image with the manifest `digest` (another) name, as of now; a name that exists is moved.
    pub fn set_name(&self, reference: &Reference, digest: &Digest) -> Result<(), Error> {
        self.set_name_at(reference, digest, now_ms()).map(drop)
    }

    /// As [`Store::set_name`], as of `set_ms`. A name that was set later stays as it is; whether it was not, is answered.
    pub fn set_name_at(&self, reference: &Reference, digest: &Digest, set_ms: u64) -> Result<bool, Error> {
        self.read_blob("manifest", digest)?;
        if self.record(reference).is_some_and(|record| record.set_ms > set_ms) {
            return Ok(false);
        }
        self.write_record(&Record { reference: reference.tagged(), digest: *digest, set_ms, made: None })?;
        Ok(true)
    }

    pub(crate) fn write_record(&self, record: &Record) -> Result<(), Error> {
        let path = self.name_path(&record.reference);
        let temp = self.temp();
        let text = serde_json::to_vec(record)
            .map_err(|error| Error::NameRecord { path: path.clone(), why: error.to_string() })?;
        // Held, so that a collection sees either the lease or the name.
        let _state = self.state();
        let written = File::create_new(temp.path()).and_then(|mut file| {
            file.write_all(&text)?;
            // A name of what may be lost anyway need not outlive it.
            if record.made.is_none() { file.sync_all() } else { Ok(()) }
        });
        written.map_err(Error::io("write the name", &path))?;
        fs::rename(temp.path(), &path).map_err(Error::io("write the name", &path))?;
        if record.made.is_none() { sync_dir(&self.names_dir()) } else { Ok(()) }
    }

    /// The record of a name, if there is one that can be read.
    pub(crate) fn record(&self, reference: &Reference) -> Option<Record> {
        read_record(&self.name_path(reference)).ok().flatten()
    }

    /// Removes what was made during an earlier boot and never flushed.
    pub(super) fn drop_unflushed(&self) -> Result<(), Error> {
        let dir = self.names_dir();
        let boot = boot_id()?;
        for entry in fs::read_dir(&dir).map_err(Error::io("list", &dir))? {
            let path = entry.map_err(Error::io("list", &dir))?.path();
            // Unreadable records stay for `list` to report.
            let Ok(Some(Record { made: Some(made), .. })) = read_record(&path) else { continue };
            if made.boot == boot {
                continue;
            }
            for content in made.content {
                let content = self.root.join(content);
                remove_all(&content).map_err(Error::io("remove what an earlier boot left", &content))?;
            }
            remove_all(&path).map_err(Error::io("remove what an earlier boot left", &path))?;
        }
        Ok(())
    }

    fn unknown(&self, reference: &Reference) -> Result<Error, Error> {
        let known_names = self.list()?.names.into_iter().map(|named| named.reference).collect();
        Ok(Error::UnknownImage { reference: reference.clone(), known_names })
    }
}

fn named(record: Record) -> Named {
    let Record { reference, digest, set_ms, made } = record;
    Named { reference, digest, set_ms, made: made.is_some() }
}

/// The wall clock, in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn boot_id() -> Result<String, Error> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(fs::read_to_string(path).map_err(Error::io("read", path))?.trim().to_owned())
}

fn read_record(path: &Path) -> Result<Option<Record>, Error> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read the name", path)(error)),
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| Error::NameRecord { path: path.to_owned(), why: error.to_string() })
}
