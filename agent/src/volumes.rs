//! The node's volumes: directories that stay with a job's index, whatever becomes of its containers.
//!
//! ```text
//! DIR/volumes/OWNER/JOB/INDEX/NAME      the volume, in the container's own ids; made by the first run that mounts it
//!                            /.NAME.new one that is being made; .NAME.gone one that is being deleted
//!                            /.used     the generation of the newest copy that mounted one
//!                      /.ended          since when the job is wanted no more
//! ```
//! By the job's name and not by its uid: a job that is stopped and run again finds its data.

pub(crate) mod anonymous;
mod keep;
mod remove;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fmt::Write as _,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use placement::{
    ids::{Generation, JobKey},
    node::Held,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{sync::Notify, task::spawn_blocking, time::timeout};

pub(crate) use keep::keep;
pub(crate) use remove::Found;

use crate::{daemon::inbox::NodeHandle, event::Event};

/// What a node has, as it reports it: by `OWNER/NAME` and index.
type All = BTreeMap<String, BTreeMap<u32, Held>>;

/// How often their sizes are measured.
const MEASURE: Duration = Duration::from_secs(300);

const USED: &str = ".used";

/// A handle for the directory that holds them.
#[derive(Debug, Clone)]
pub struct Volumes {
    root: PathBuf,
    changed: Arc<Notify>,
    /// Held while a run begins to use some, and while some are removed.
    starts: Arc<tokio::sync::Mutex<()>>,
    /// As last measured, by index.
    sizes: Arc<Mutex<BTreeMap<PathBuf, u64>>>,
}

/// `.used`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Used {
    generation: Generation,
}

impl Volumes {
    /// Below `root`, which need not exist.
    pub fn new(root: PathBuf) -> Volumes {
        Volumes { root, changed: Arc::default(), starts: Arc::default(), sizes: Arc::default() }
    }

    fn job(&self, job: &JobKey) -> PathBuf {
        self.root.join(component(&job.owner)).join(component(&job.name))
    }

    /// Where an index's volume is, or will be.
    pub fn path(&self, job: &JobKey, index: u32, name: &str) -> PathBuf {
        self.job(job).join(index.to_string()).join(name)
    }

    /// A copy of this generation is about to mount them: on disk before it does. Not for an asynchronous task.
    pub fn used(&self, job: &JobKey, index: u32, generation: Generation) -> io::Result<()> {
        let _starts = self.starts.blocking_lock();
        let dir = self.job(job).join(index.to_string());
        fs::create_dir_all(&dir)?;
        write(&dir.join(USED), &Used { generation })
    }

    /// There may be new ones: report them.
    pub fn look(&self) {
        self.changed.notify_one();
    }

    /// All that are whole.
    pub fn list(&self) -> All {
        let sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut all = All::new();
        for (job, dir) in self.jobs() {
            for (name, dir) in entries(&dir) {
                let Ok(index) = name.parse::<u32>() else { continue };
                let names: BTreeSet<String> = entries(&dir).into_iter().map(|(name, _)| name).collect();
                if names.is_empty() {
                    continue;
                }
                let used: Option<Used> = read(&dir.join(USED));
                let generation = used.map(|used| used.generation).unwrap_or_default();
                let bytes = sizes.get(&dir).copied().unwrap_or_default();
                let held = Held { generation, names, bytes };
                all.entry(job.to_string()).or_default().insert(index, held);
            }
        }
        all
    }

    fn jobs(&self) -> Vec<(JobKey, PathBuf)> {
        let of_owner = |(owner, dir): (String, PathBuf)| {
            let key = move |name: &str| Some(JobKey { owner: plain(&owner)?, name: plain(name)? });
            entries(&dir).into_iter().filter_map(move |(name, dir)| Some((key(&name)?, dir)))
        };
        entries(&self.root).into_iter().flat_map(of_owner).collect()
    }

    fn measure(&self) {
        let indexes = self.jobs().into_iter().flat_map(|(_, dir)| entries(&dir));
        let sizes = indexes.map(|(_, dir)| (dir.clone(), size(&dir))).collect();
        *self.sizes.lock().unwrap_or_else(PoisonError::into_inner) = sizes;
    }
}

/// Tells the node's core what volumes there are, whenever that changes and now and then, for as long as the agent runs.
pub(crate) async fn report(volumes: Volumes, node: NodeHandle) {
    let mut measure = true;
    loop {
        let here = volumes.clone();
        let look = spawn_blocking(move || {
            if measure {
                here.measure();
            }
            here.list()
        });
        if let Ok(all) = look.await {
            node.tell(Event::Volumes(all));
        }
        measure = timeout(MEASURE, volumes.changed.notified()).await.is_err();
    }
}

/// The directories in a directory, in order; what begins with a dot is ours.
fn entries(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let named = named.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())));
    let mut named: Vec<_> = named.filter(|(name, _)| !name.starts_with('.')).collect();
    named.sort();
    named
}

/// Disk that a directory takes, in bytes. What goes away meanwhile does not count.
fn size(dir: &Path) -> u64 {
    let mut sum = 0;
    let mut dirs = vec![dir.to_path_buf()];
    let mut seen = BTreeSet::new();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.nlink() == 1 || meta.is_dir() || seen.insert(meta.ino()) {
                sum += meta.blocks() * 512;
            }
            if meta.is_dir() {
                dirs.push(entry.path());
            }
        }
    }
    sum
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Whole or not at all.
fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let name = path.file_name().unwrap_or(OsStr::new("")).to_string_lossy();
    let temporary = path.with_file_name(format!("{name}.tmp"));
    let file = fs::File::create(&temporary)?;
    serde_json::to_writer(&file, value)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

/// As a file name: names of jobs are so already, owners may be anything.
fn component(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => out.push(char::from(byte)),
            other => {
                let _ = write!(out, "%{other:02x}");
            }
        }
    }
    out
}

/// The other way.
fn plain(component: &str) -> Option<String> {
    let mut parts = component.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn job(owner: &str) -> JobKey {
        JobKey { owner: owner.into(), name: "db".into() }
    }

    #[test]
    fn no_owner_leads_out_of_the_directory() {
        let volumes = Volumes::new("/d".into());
        let of = |owner: &str| volumes.path(&job(owner), 3, "data").display().to_string();
        assert_eq!(of("ann"), "/d/ann/db/3/data");
        assert_eq!(of("../x@y"), "/d/%2e%2e%2fx%40y/db/3/data");
        assert_eq!(plain("%2e%2e%2fx%40y").as_deref(), Some("../x@y"));
    }

    #[test]
    fn what_is_whole_is_listed_with_the_newest_copy_that_used_it() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::new(dir.path().join("volumes"));
        assert_eq!(volumes.list(), All::new());
        let generation = Generation { cell: 1, activation: 7, seq: 3 };
        let used = |index| volumes.used(&job("a.b"), index, generation).unwrap();
        used(0);
        used(12);
        assert_eq!(volumes.list(), All::new(), "nothing was mounted yet");
        fs::create_dir(volumes.path(&job("a.b"), 12, "data")).unwrap();
        fs::create_dir(volumes.path(&job("a.b"), 12, ".more.new")).unwrap();
        fs::write(volumes.path(&job("a.b"), 12, "data").join("x"), [1; 10_000]).unwrap();
        volumes.measure();
        let all = volumes.list();
        let held = &all["a.b/db"][&12];
        assert_eq!((all["a.b/db"].len(), held.generation), (1, generation));
        assert_eq!(held.names, BTreeSet::from(["data".to_string()]));
        assert!(held.bytes >= 10_000, "{held:?}");
        // A later release reads it.
        let golden = r#"{"generation":[1,7,3]}"#;
        assert_eq!(fs::read_to_string(dir.path().join("volumes/a%2eb/db/12/.used")).unwrap(), golden);
    }
}
