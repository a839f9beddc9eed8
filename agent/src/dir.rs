//! The data directory: whose it is, which format, and that only one agent uses it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use serde::{Deserialize, Serialize};

/// The newest format that this build writes and reads. Changes are additive: N−1 reads what N wrote.
pub const FORMAT: u32 = 1;

/// An agent that was killed while it started a process leaves its lock to that process until it has become another
/// program: a moment, for which its successor waits.
const PATIENCE: Duration = Duration::from_millis(500);

/// A data directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    #[error("cannot {what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} is in use by another agent{by}: each agent needs a directory of its own")]
    Locked { path: PathBuf, by: String },
    #[error("{path} is not a data directory of covey (it holds `{holds}`): name an empty or a new one")]
    Foreign { path: PathBuf, holds: String },
    #[error(
        "{path} was written by {by} in format {format}; this is covey {} and reads up to format {FORMAT}: \
         use that version, or a newer one",
        env!("CARGO_PKG_VERSION")
    )]
    Newer { path: PathBuf, by: String, format: u32 },
    #[error("{path} cannot be read as {what}: {why}. Restore it from a copy, or start with a new directory")]
    Unreadable { path: PathBuf, what: &'static str, why: String },
}

/// `DIR/format`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    pub format: u32,
    pub written_by: String,
}

/// What makes the directory a node's of one cell. The identity goes first: without it, what is left over is of no use.
const OF_THE_CELL: [&str; 9] = [
    "identity.json",
    "authority.json",
    "joining.json",
    "members.json",
    "address.json",
    "ledger.redb",
    "copy.redb",
    "agent.redb",
    "registries.json",
];

/// A data directory that is ours until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: Flock<File>,
}

impl DataDir {
    /// Makes it if it is absent, locks it and checks its format.
    pub fn open(path: &Path) -> Result<DataDir, DirError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error("create", path))?;
        // Bundles and overlays name it from other mount namespaces and other working directories.
        let path = path.canonicalize().map_err(io_error("resolve", path))?;
        if !path.join("format").exists()
            && let Some(holds) = foreign(&path)?
        {
            return Err(DirError::Foreign { path, holds });
        }
        let lock = lock(&path)?;
        check_format(&path)?;
        Ok(DataDir { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Forgets the cell that its node has left: the next agent here is a new node. Images stay.
    pub(crate) fn forget_cell(&self) -> Result<(), DirError> {
        OF_THE_CELL.iter().try_for_each(|name| remove(&self.path.join(name)))
    }
}

/// The first entry that an agent which was cut short at its first start would not have left.
fn foreign(path: &Path) -> Result<Option<String>, DirError> {
    for entry in fs::read_dir(path).map_err(io_error("list", path))? {
        let name = entry.map_err(io_error("list", path))?.file_name().to_string_lossy().into_owned();
        if name != "lock" && name != "format.tmp" && name != "lost+found" {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn lock(dir: &Path) -> Result<Flock<File>, DirError> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_error("open", &path))?;
    let until = Instant::now() + PATIENCE;
    let mut file = file;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                // Only to say who holds it; that it is held is the kernel's word.
                let _ = lock.set_len(0).and_then(|()| write!(*lock, "{}", std::process::id()));
                return Ok(lock);
            }
            Err((held, Errno::EWOULDBLOCK)) if Instant::now() < until => {
                file = held;
                thread::sleep(Duration::from_millis(5));
            }
            Err((mut held, Errno::EWOULDBLOCK)) => {
                let mut pid = String::new();
                let _ = held.read_to_string(&mut pid);
                let by = if pid.is_empty() { pid } else { format!(" (pid {pid})") };
                return Err(DirError::Locked { path: dir.to_path_buf(), by });
            }
            Err((_, errno)) => return Err(DirError::Io { what: "lock", path, source: errno.into() }),
        }
    }
}

fn check_format(dir: &Path) -> Result<(), DirError> {
    let path = dir.join("format");
    let Some(found) = read_json::<Format>(&path, "a format")? else {
        let written_by = concat!("covey ", env!("CARGO_PKG_VERSION")).to_string();
        return write_json(&path, &Format { format: FORMAT, written_by }, 0o600);
    };
    if found.format > FORMAT {
        let Format { format, written_by: by } = found;
        return Err(DirError::Newer { path: dir.to_path_buf(), by, format });
    }
    Ok(())
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DirError {
    let path = path.to_path_buf();
    move |source| DirError::Io { what, path, source }
}

/// Reads a file of JSON; none if there is no such file.
pub(crate) fn read_json<T: for<'de> Deserialize<'de>>(
    path: &Path,
    what: &'static str,
) -> Result<Option<T>, DirError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| DirError::Unreadable {
            path: path.to_path_buf(),
            what,
            why: e.to_string(),
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io_error("read", path)(e)),
    }
}

/// Removes a file, if there is one.
pub(crate) fn remove(path: &Path) -> Result<(), DirError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(e)),
        _ => Ok(()),
    }
}

/// Writes a file of JSON whole or not at all.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T, mode: u32) -> Result<(), DirError> {
    let temp = path.with_extension("tmp");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temp)?;
        serde_json::to_writer_pretty(&mut file, value)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&temp, path)?;
        File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
    };
    write().map_err(io_error("write", path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_new_directory_gets_the_format_and_keeps_it() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("a/b");
        drop(DataDir::open(&dir).unwrap());
        let text = fs::read_to_string(dir.join("format")).unwrap();
        assert_eq!(
            text,
            format!("{{\n  \"format\": 1,\n  \"written_by\": \"covey {}\"\n}}\n", env!("CARGO_PKG_VERSION"))
        );
        drop(DataDir::open(&dir).unwrap());
    }

    #[test]
    fn a_locked_one_names_who_has_it() {
        let temp = tempfile::tempdir().unwrap();
        let held = DataDir::open(temp.path()).unwrap();
        let error = DataDir::open(temp.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("in use by another agent (pid {})", std::process::id())), "{error}");
        drop(held);
        DataDir::open(temp.path()).unwrap();
    }

    #[test]
    fn foreign_newer_and_spoilt_ones_are_refused_and_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("thesis.tex"), "x").unwrap();
        let error = DataDir::open(temp.path()).unwrap_err().to_string();
        assert!(error.contains("not a data directory of covey (it holds `thesis.tex`)"), "{error}");
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);

        let newer = tempfile::tempdir().unwrap();
        let text = r#"{"format":2,"written_by":"covey 9.1.0","more":true}"#;
        fs::write(newer.path().join("format"), text).unwrap();
        let error = DataDir::open(newer.path()).unwrap_err().to_string();
        assert!(error.contains("was written by covey 9.1.0 in format 2"), "{error}");
        assert_eq!(fs::read_to_string(newer.path().join("format")).unwrap(), text);

        fs::write(newer.path().join("format"), "{").unwrap();
        let error = DataDir::open(newer.path()).unwrap_err().to_string();
        assert!(error.contains("cannot be read as a format"), "{error}");
    }
}
