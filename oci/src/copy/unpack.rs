//! An archive as a file or directory: all of it, or nothing that was not there before.
//!
//! What is new is put together under a name of its own beside its destination, and gets its name at last. Into a directory
//! that is there each file comes whole, in the same way.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tar::{Archive, Entry, EntryType};

use super::{Copied, Error};

/// Where an archive goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Into {
    /// The one thing in it goes to this path; below it, by its own name, if that is a directory or ends with a slash.
    Place(PathBuf),
    /// All that is in it goes below this directory.
    Directory(PathBuf),
}

impl Into {
    /// The path.
    pub fn path(&self) -> &Path {
        match self {
            Into::Place(path) | Into::Directory(path) => path,
        }
    }
}

/// Write what is in the archive. `from` must fail, not end, where the archive breaks off. `owner`: of what is new.
pub fn unpack(
    from: impl Read,
    to: &Into,
    owner: Option<(u32, u32)>,
    progress: &mut dyn FnMut(u64),
) -> Result<Copied, Error> {
    let mut archive = Archive::new(from);
    let mut unpacking =
        Unpacking { to, place: None, owner, directories: Vec::new(), copied: Copied::default(), progress };
    let done = unpacking.all(&mut archive).and_then(|()| {
        // To the end of the stream: whether it broke off behind the archive's own end.
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(Error::Archive)?;
        unpacking.finish()
    });
    if done.is_err() {
        unpacking.undo();
    }
    done.map(|()| unpacking.copied)
}

struct Unpacking<'a> {
    to: &'a Into,
    /// Known once the first entry is.
    place: Option<Place>,
    owner: Option<(u32, u32)>,
    /// Their modes and times come last: they could forbid what goes into them.
    directories: Vec<(PathBuf, u32, u64)>,
    copied: Copied,
    progress: &'a mut dyn FnMut(u64),
}

/// Where the entries of an archive go.
struct Place {
    /// The component with which all entries begin; none: they go below `at` with all of their path.
    top: Option<OsString>,
    at: PathBuf,
    /// Where `at` shall be at last.
    finally: Option<PathBuf>,
}

impl Unpacking<'_> {
    fn all(&mut self, archive: &mut Archive<impl Read>) -> Result<(), Error> {
        for entry in archive.entries().map_err(Error::Archive)? {
            let mut entry = entry.map_err(Error::Archive)?;
            let name = entry.path().map_err(Error::Archive)?.into_owned();
            let mut parts = Vec::new();
            for part in name.components() {
                match part {
                    Component::Normal(part) => parts.push(part.to_os_string()),
                    Component::CurDir => {}
                    _ => return Err(Error::Escapes(name.clone())),
                }
            }
            let is_directory = entry.header().entry_type() == EntryType::Directory;
            if self.place.is_none() {
                self.place = Some(self.choose(parts.first(), is_directory || parts.len() > 1)?);
            }
            let path = self.path(&name, &parts)?;
            self.one(&mut entry, &path, &name)?;
        }
        if self.place.is_none() { Err(Error::Empty) } else { Ok(()) }
    }

    /// Where the first entry, and with it all, goes.
    fn choose(&self, top: Option<&OsString>, is_directory: bool) -> Result<Place, Error> {
        let path = match self.to {
            Into::Directory(path) => {
                return match path.is_dir() {
                    true => Ok(Place { top: None, at: path.clone(), finally: None }),
                    false => Err(Error::NoDirectory(path.clone())),
                };
            }
            Into::Place(path) => path,
        };
        let top = top.ok_or(Error::Empty)?;
        let below = path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/");
        let wanted = if below { path.join(top) } else { path.clone() };
        let place = |at: PathBuf, finally| Place { top: Some(top.clone()), at, finally };
        match (fs::symlink_metadata(&wanted), is_directory) {
            (Ok(there), true) if there.is_dir() => return Ok(place(wanted, None)),
            (Ok(_), true) => return Err(Error::NoDirectory(wanted)),
            (Ok(there), false) if there.is_dir() => return Err(Error::IsDirectory(wanted)),
            _ => {}
        }
        let parent = match wanted.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        if !parent.is_dir() {
            let missing = io::Error::from_raw_os_error(libc::ENOENT);
            return Err(Error::io("write to the directory", parent)(missing));
        }
        Ok(place(aside(parent), Some(wanted)))
    }

    /// Where an entry goes, if the way there is one of directories only.
    fn path(&self, name: &Path, parts: &[OsString]) -> Result<PathBuf, Error> {
        let place = self.place.as_ref().ok_or(Error::Empty)?;
        let below = match &place.top {
            Some(top) if parts.first() == Some(top) => &parts[1..],
            Some(_) => return Err(Error::Escapes(name.into())),
            None => parts,
        };
        let mut path = place.at.clone();
        for (n, part) in below.iter().enumerate() {
            // The destination itself may be a link that its owner has made.
            if n > 0 && fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_symlink()) {
                return Err(Error::Through(name.into()));
            }
            path.push(part);
        }
        Ok(path)
    }

    fn one(&mut self, entry: &mut Entry<'_, impl Read>, path: &Path, name: &Path) -> Result<(), Error> {
        let header = entry.header();
        let (mode, mtime) = (header.mode().unwrap_or(0o644), header.mtime().unwrap_or(0));
        match header.entry_type() {
            EntryType::Directory => {
                match fs::symlink_metadata(path) {
                    Ok(there) if there.is_dir() => return Ok(()),
                    Ok(_) if fs::metadata(path).is_ok_and(|there| there.is_dir()) => return Ok(()),
                    Ok(_) => return Err(Error::NoDirectory(path.into())),
                    Err(_) => fs::create_dir(path).map_err(Error::io("make", path))?,
                }
                self.directories.push((path.into(), mode, mtime));
                self.own(path)
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(entry, path, mode, mtime)
            }
            EntryType::Symlink => {
                let target = entry.link_name().map_err(Error::Archive)?.unwrap_or_default();
                clear(path)?;
                symlink(&target, path).map_err(Error::io("make", path))?;
                self.copied.files += 1;
                self.own(path)
            }
            EntryType::Link => {
                let target = entry.link_name().map_err(Error::Archive)?.unwrap_or_default();
                let parts: Vec<_> = target.components().map(|part| part.as_os_str().to_os_string()).collect();
                if target.components().any(|part| !matches!(part, Component::Normal(_))) {
                    return Err(Error::Escapes(name.into()));
                }
                let first = self.path(&target, &parts)?;
                clear(path)?;
                fs::hard_link(first, path).map_err(Error::io("make", path))?;
                self.copied.files += 1;
                Ok(())
            }
            _ => {
                self.copied.skipped += 1;
                Ok(())
            }
        }
    }

    fn file(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        path: &Path,
        mode: u32,
        mtime: u64,
    ) -> Result<(), Error> {
        if fs::symlink_metadata(path).is_ok_and(|there| there.is_dir()) {
            return Err(Error::IsDirectory(path.into()));
        }
        let aside = aside(path.parent().unwrap_or(Path::new(".")));
        let written = self.write(entry, &aside, mode, mtime).and_then(|bytes| {
            fs::rename(&aside, path).map_err(Error::io("write", path))?;
            Ok(bytes)
        });
        match written {
            Ok(bytes) => {
                self.copied.files += 1;
                self.copied.bytes += bytes;
                Ok(())
            }
            Err(error) => {
                let _ = fs::remove_file(&aside);
                Err(error)
            }
        }
    }

    fn write(&mut self, entry: &mut impl Read, path: &Path, mode: u32, mtime: u64) -> Result<u64, Error> {
        let mut file = File::create_new(path).map_err(Error::io("make", path))?;
        let mut buffer = vec![0; 128 << 10];
        let mut bytes = 0;
        loop {
            let read = entry.read(&mut buffer).map_err(Error::Archive)?;
            if read == 0 {
                break;
            }
            io::Write::write_all(&mut file, &buffer[..read]).map_err(Error::io("write", path))?;
            bytes += read as u64;
            (self.progress)(read as u64);
        }
        self.own(path)?;
        // Without the bits that lend rights: whose they would be differs on the two sides.
        let permissions = Permissions::from_mode(mode & 0o777);
        file.set_permissions(permissions).map_err(Error::io("change the mode of", path))?;
        let _ = file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(mtime));
        Ok(bytes)
    }

    fn own(&self, path: &Path) -> Result<(), Error> {
        match self.owner {
            Some((uid, gid)) => lchown(path, Some(uid), Some(gid)).map_err(Error::io("give away", path)),
            None => Ok(()),
        }
    }

    fn finish(&mut self) -> Result<(), Error> {
        // The innermost first.
        for (path, mode, mtime) in self.directories.drain(..).rev() {
            let permissions = Permissions::from_mode(mode & 0o777);
            fs::set_permissions(&path, permissions).map_err(Error::io("change the mode of", &path))?;
            if let Ok(dir) = File::open(&path) {
                let _ = dir.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(mtime));
            }
        }
        if let Some(Place { at, finally: Some(finally), .. }) = &self.place {
            fs::rename(at, finally).map_err(Error::io("write", finally))?;
        }
        Ok(())
    }

    /// Nothing is left of what would have been new.
    fn undo(&self) {
        if let Some(Place { at, finally: Some(_), .. }) = &self.place {
            match fs::symlink_metadata(at) {
                Ok(there) if there.is_dir() => drop(fs::remove_dir_all(at)),
                _ => drop(fs::remove_file(at)),
            }
        }
    }
}

/// Takes a file or link out of the way of what replaces it.
fn clear(path: &Path) -> Result<(), Error> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => Err(Error::IsDirectory(path.into())),
        Ok(_) => fs::remove_file(path).map_err(Error::io("replace", path)),
        Err(_) => Ok(()),
    }
}

/// A name in the directory that nobody else has.
fn aside(directory: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let (process, next) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    directory.join(format!(".covey-cp-{process}-{now:x}-{next}"))
}
