//! The bundle: one directory per run, and the whole interface between agent and shim.
//!
//! ```text
//! bundle.json   agent → shim: layers, id map, cgroup, limits, log cap       config.json   agent → shim: the OCI runtime spec
//! rootfs/ upper/ work/ etc/    log/STREAM.OFFSET                            lock          held by the shim for its life
//! state.json    shim → agent: the container runs (the same file as lock)    exit.json     shim → agent: how it ended
//! ```
//! Shims outlive upgrades of the agent, so every document carries a version: an older one is understood, a newer
//! one refused by name, and unknown fields are ignored.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cgroup::{Limits, Placement};
use crate::network::Attachment;

/// The version that this build writes, and the newest that it reads.
pub const VERSION: u32 = 1;

/// What the agent tells the shim beside the runtime spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleConfig {
    /// [`VERSION`].
    pub version: u32,
    /// The run's name: `[a-z0-9.-]+`.
    pub run: String,
    /// The image's unpacked layers, the topmost first.
    pub layers: Vec<PathBuf>,
    /// How ids in the container's user namespace show on the host; `None`: no user namespace.
    #[serde(default)]
    pub idmap: Option<IdMap>,
    /// `USER[:GROUP]` as the image or the job names them, resolved by the shim in the container's own files.
    #[serde(default)]
    pub user: Option<String>,
    /// The run's cgroups.
    pub cgroup: Placement,
    /// What the container may use at most.
    pub limits: Limits,
    /// Disk that each of stdout and stderr may take, in bytes.
    pub log_cap_bytes: u64,
    /// How the container is attached to the node's private network; `None`: it has the host's network, or none at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Attachment>,
    /// What the container sees of the host's files and devices. The spec mounts them, from [`bind_source`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub binds: Vec<Bind>,
    /// To which the writable layer belongs, and by which the file system holds it to its limit (see [`crate::quota`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<u32>,
}

/// Where the shim makes the `n`-th of a bundle's binds ready: in its own mount namespace, out of the way of parents
/// that the container's root may not pass.
pub fn bind_source(n: usize) -> PathBuf {
    PathBuf::from(format!("/sys/binds/{n}"))
}

/// Something of the host's in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// On the host.
    pub source: PathBuf,
    /// In the container.
    pub target: PathBuf,
    /// What it is.
    pub kind: BindKind,
}

/// What a [`Bind`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BindKind {
    /// A directory that outlives the run, in the container's own ids. Made when it is missing, with what the image has
    /// at the target.
    Volume,
    /// A file or directory with all that is mounted below it, read-only, in the host's ids.
    Host,
    /// A device. Its node belongs to the container's user.
    Device,
}

/// Ids `0..size` in the container are `host..host + size` on the host, for users and groups alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// The host's id of the container's 0.
    pub host: u32,
    /// How many ids there are.
    pub size: u32,
}

/// A process, told from a later one with the same pid by its start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The pid, as the host sees it.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`, in clock ticks since boot.
    pub start_time: u64,
}

/// Written by the shim when the container runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// [`VERSION`].
    pub version: u32,
    /// The waiting shim.
    pub shim: Process,
    /// The container's first process.
    pub init: Process,
    /// Wall time of the start, in milliseconds since 1970.
    pub started_at_ms: u64,
}

/// Why a container did not start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Failure {
    /// What was tried, on what.
    pub what: String,
    /// Why that failed.
    pub why: String,
    /// What a user can do about it; empty when there is nothing to say.
    #[serde(default)]
    pub hint: String,
}

/// How a run ended. Exactly one of `code`, `signal` and `error` is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// [`VERSION`].
    pub version: u32,
    /// The exit code of the container's first process.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The container ended by a kill, and the kernel had killed for its memory limit. The shim cannot tell: whoever reads
    /// the record looks at the cgroup (see [`crate::container::exit_record`]).
    #[serde(default)]
    pub oom: bool,
    /// Wall time, in milliseconds since 1970.
    pub finished_at_ms: u64,
    /// The container never ran.
    #[serde(default)]
    pub error: Option<Failure>,
    /// Log bytes that could not be stored (a full disk), both streams together.
    #[serde(default)]
    pub log_bytes_lost: u64,
}

/// The one line that a shim writes to its stdout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Announcement {
    /// The container's program has been executed.
    Started(State),
    /// It has not, and nothing is left of the attempt but the bundle directory.
    Failed(Failure),
}

/// A container's output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

impl Stream {
    /// `stdout` or `stderr`.
    pub fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }

    /// The file name of the segment whose first byte is the stream's `offset`-th.
    pub fn segment(self, offset: u64) -> String {
        format!("{}.{offset:020}", self.name())
    }

    /// The offset in a segment's file name, if it is one of this stream's.
    pub fn segment_offset(self, file_name: &str) -> Option<u64> {
        let digits = file_name.strip_prefix(self.name())?.strip_prefix('.')?;
        (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
    }
}

/// A bundle could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("cannot {op} {path}: {source}")]
    Io {
        /// read, write or create
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Not JSON, or not the document that it should be.
    #[error("{path} is unreadable: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// Written by a later release.
    #[error(
        "{path} has version {found}, this covey knows up to {VERSION}: use the covey that wrote it, or a newer one"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The runtime spec is not one.
    #[error("{path} is not a runtime spec: {source}")]
    Spec {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
}

/// A bundle directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    dir: PathBuf,
}

impl Bundle {
    /// The bundle at `dir`, which need not exist yet.
    pub fn at(dir: impl Into<PathBuf>) -> Bundle {
        Bundle { dir: dir.into() }
    }

    /// Make the directory with what the agent has to say in it. An existing directory is an error.
    pub fn create(dir: impl Into<PathBuf>, config: &BundleConfig, spec: &Spec) -> Result<Bundle, Error> {
        let bundle = Bundle { dir: dir.into() };
        // Others may pass (a container's root is another user on the host) but see nothing.
        make(&bundle.dir, 0o711)?;
        bundle.fill(config, spec)?;
        Ok(bundle)
    }

    /// Put into a directory what the agent has to say. Documents of an earlier run may be there, and no writable layer.
    pub(crate) fn fill(&self, config: &BundleConfig, spec: &Spec) -> Result<(), Error> {
        make(&self.upper(), 0o755)?;
        // Nobody looks before all of them are there.
        self.write_over("config.json", spec)?;
        self.write_over("bundle.json", config)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    /// Where the log segments are; made by whoever first has something for it.
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }
    /// Where what an ended container has left is mounted, in a mount namespace of its own; made when it is wanted.
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }
    /// The writable layer.
    pub fn upper(&self) -> PathBuf {
        self.dir.join("upper")
    }
    /// Overlay's scratch directory.
    pub fn work(&self) -> PathBuf {
        self.dir.join("work")
    }
    /// What its `/etc` has from outside the image, if anything.
    pub fn etc(&self) -> PathBuf {
        self.dir.join("etc")
    }
    /// The file whose POSIX lock the shim holds.
    pub fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// Read `bundle.json`.
    pub fn config(&self) -> Result<BundleConfig, Error> {
        self.read("bundle.json")
    }
    /// Write down that a run has other limits now, and maybe more cgroups.
    pub fn change_limits(&self, cgroup: &Placement, limits: &Limits) -> Result<(), Error> {
        let config = self.config()?;
        self.write("bundle.json", &BundleConfig { cgroup: cgroup.clone(), limits: *limits, ..config })
    }
    /// Read `config.json`.
    pub fn spec(&self) -> Result<Spec, Error> {
        let path = self.dir.join("config.json");
        // Not by `Spec::load`, which takes each byte from a reader: in a profile of system calls there are many.
        let text = fs::read(&path).map_err(|source| Error::Io { op: "read", path: path.clone(), source })?;
        serde_json::from_slice(&text).map_err(|source| Error::Spec { path, source })
    }
    /// Read `state.json`; `None` when there is none.
    pub fn state(&self) -> Result<Option<State>, Error> {
        self.read_if_there("state.json")
    }
    /// Read `exit.json`; `None` when there is none.
    pub fn exit_record(&self) -> Result<Option<ExitRecord>, Error> {
        self.read_if_there("exit.json")
    }
    /// Write `state.json`: as another name of the lock, which is there already and has nothing in it.
    pub fn write_state(&self, lock: &File, state: &State) -> Result<(), Error> {
        let path = self.dir.join("state.json");
        let text = serde_json::to_vec(state).map_err(|source| Error::Parse { path: path.clone(), source })?;
        // Whole before it has the name.
        let written = lock.write_all_at(&text, 0).and_then(|()| fs::hard_link(self.lock(), &path));
        written.map_err(|source| Error::Io { op: "write", path, source })
    }
    /// Set room aside for the exit record, so that it can be written on a disk that is full by then.
    pub fn reserve_exit_record(&self) -> Result<(), Error> {
        let path = self.dir.join("exit.json.tmp");
        let reserve = || {
            let mut file =
                File::options().create(true).truncate(false).write(true).mode(0o600).open(&path)?;
            // Written, not allocated: most runs are over before any disk hears of it.
            file.write_all(&[0; 4096])
        };
        reserve().map_err(|source| Error::Io { op: "reserve", path: path.clone(), source })
    }
    /// Write `exit.json`. Not durably: see [`waiter::record`].
    pub fn write_exit_record(&self, record: &ExitRecord) -> Result<(), Error> {
        self.write("exit.json", record)
    }

    fn read_if_there<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        match self.read(name) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<T, Error> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let path = self.dir.join(name);
        let text = fs::read(&path).map_err(|source| Error::Io { op: "read", path: path.clone(), source })?;
        let parse = |source| Error::Parse { path: path.clone(), source };
        // The version first: the rest of a newer document need not look like ours.
        let found = serde_json::from_slice::<Versioned>(&text).map_err(parse)?.version;
        if found > VERSION {
            return Err(Error::Newer { path, found });
        }
        serde_json::from_slice(&text).map_err(parse)
    }

    /// In place, as nobody reads it yet. A power cut ends the run whatever its bundle says.
    fn write_over(&self, name: &str, document: &impl Serialize) -> Result<(), Error> {
        let path = self.dir.join(name);
        let text =
            serde_json::to_vec(document).map_err(|source| Error::Parse { path: path.clone(), source })?;
        overwrite(&path, &text).map_err(|source| Error::Io { op: "write", path, source })
    }

    /// Whole or not at all.
    fn write(&self, name: &str, document: &impl Serialize) -> Result<(), Error> {
        let path = self.dir.join(name);
        let temp = self.dir.join(format!("{name}.tmp"));
        let text =
            serde_json::to_vec(document).map_err(|source| Error::Parse { path: path.clone(), source })?;
        overwrite(&temp, &text).and_then(|()| fs::rename(&temp, &path)).map_err(|source| Error::Io {
            op: "write",
            path: path.clone(),
            source,
        })
    }
}

fn make(dir: &Path, mode: u32) -> Result<(), Error> {
    let made = fs::DirBuilder::new().mode(mode).create(dir);
    made.map_err(|source| Error::Io { op: "create", path: dir.into(), source })
}

/// Not truncated before it is written: what was reserved must not be given back to a full disk.
fn overwrite(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = File::options().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    if file.metadata()?.len() == text.len() as u64 { Ok(()) } else { file.set_len(text.len() as u64) }
}

impl Process {
    /// Hold it; `None` when it has ended. A later process with its pid is never held.
    pub fn hold(&self) -> io::Result<Option<OwnedFd>> {
        match crate::pidfd::open(self.pid) {
            // Looked at again now that whatever has the pid is held.
            Ok(held) => Ok(self.is_there().then_some(held)),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The process `pid` as it is now; `None` when there is none.
    pub fn now(pid: i32) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name, in parentheses, and may itself hold spaces and parentheses.
        let start_time = stat.get(stat.rfind(')')? + 2..)?.split(' ').nth(19)?.parse().ok()?;
        Some(Process { pid, start_time })
    }

    /// Whether this very process is still there (a zombie counts).
    pub fn is_there(&self) -> bool {
        Process::now(self.pid).as_ref() == Some(self)
    }
}

/// Wall time in milliseconds since 1970, for the records.
pub(crate) fn now_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
#[path = "bundle_tests.rs"]
pub(crate) mod tests;
