//! Files into and out of a container, as tar archives.
//!
//! Inside, the work is done by a process that has entered the container as a command would (see `exec`): whatever links
//! the container has prepared lead nowhere but into itself. Outside, an archive that comes out of a container is not
//! believed: nothing is written but below the destination, and never through a link.

pub(crate) mod chunks;
pub(crate) mod inside;
mod pack;
mod unpack;

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::chunks::{END, head};
pub use self::pack::pack;
pub use self::unpack::{Into, unpack};
use crate::bundle::{Bundle, Failure};
use crate::exec::message::{Order, Work};
use crate::exec::{Error as ExecError, Running, begin};

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Files, links among them, without directories.
    pub files: u64,
    /// Of their content.
    pub bytes: u64,
    /// Sockets, pipes and devices, which are not copied.
    #[serde(default)]
    pub skipped: u64,
}

/// What the process inside says on its stderr when it is done.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// All of it.
    Done(Copied),
    /// Not all; what was begun at the destination is gone again.
    Failed(Failure),
}

/// Something could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// read, write, make …
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The archive ended early, or is none.
    #[error("the archive breaks off or is none: {0}")]
    Archive(io::Error),
    /// An entry that would be written elsewhere.
    #[error("the archive's entry {} leads out of the destination", .0.display())]
    Escapes(PathBuf),
    /// An entry below a symbolic link.
    #[error("the archive's entry {} would be written through a symbolic link", .0.display())]
    Through(PathBuf),
    /// There is a directory where a file should be.
    #[error("{} is a directory, and what is copied is none", .0.display())]
    IsDirectory(PathBuf),
    /// There is something else where a directory should be.
    #[error("{} is there and is no directory", .0.display())]
    NoDirectory(PathBuf),
    /// A file that somebody was changing.
    #[error("{} became shorter while it was read: copy it again", .0.display())]
    Shrank(PathBuf),
    /// There is nothing in the archive.
    #[error("the archive is empty")]
    Empty,
}

impl Error {
    fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { op, path: path.into(), source }
    }
}

/// Have `path` of a container that runs written to the stdout of what is returned; [`Told`] comes on its stderr.
pub fn send(exe: &Path, bundle: &Bundle, path: &Path) -> Result<Running, ExecError> {
    begin(exe, bundle, &order(bundle, Work::Send(path.into())))
}

/// As `send`, of a container that is no more: `bundle` holds its config and the writable layer that it has left.
pub fn send_left(exe: &Path, bundle: &Bundle, path: &Path) -> Result<Running, ExecError> {
    begin(exe, bundle, &Order { ended: true, ..order(bundle, Work::Send(path.into())) })
}

/// Have what comes on the stdin of what is returned (an archive in chunks: [`head`] before each, [`END`] after the last)
/// written to a container that runs; [`Told`] comes on its stderr.
pub fn receive(exe: &Path, bundle: &Bundle, to: Into) -> Result<Running, ExecError> {
    begin(exe, bundle, &order(bundle, Work::Receive(to)))
}

fn order(bundle: &Bundle, work: Work) -> Order {
    let bundle = bundle.dir().to_path_buf();
    // Paths are the container's, whatever directory its program began in.
    Order { bundle, work, env: Vec::new(), cwd: Some("/".into()), user: None, terminal: None, ended: false }
}

#[cfg(test)]
mod tests;
