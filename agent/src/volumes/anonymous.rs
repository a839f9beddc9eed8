//! What an image says is data (its VOLUME entries) and its job says nothing of: directories outside of the writable layer,
//! which begin with what the image has there, stay over restarts in place, and go with the copy (or with a run that has to end
//! since the disk is short: its writable layer goes too).
//!
//! ```text
//! DIR/anonymous/KEY-GENERATION/PATH     PATH as one name: %2fvar%2flib%2fdata
//! ```

use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use oci::container;
use placement::{
    ids::{Generation, TaskKey},
    job::container::{Source, Volume},
};
use tokio::{
    sync::Notify,
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::{component, entries, keep::mounted};
use crate::{daemon::inbox::NodeHandle, event::RunId};

/// Between two looks, if no run ends; and from a run's end until its record is gone too, most often.
const LOOK: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(1);

/// A handle for the directory that holds them.
#[derive(Debug, Clone)]
pub struct Anonymous {
    root: PathBuf,
    ended: Arc<Notify>,
}

/// One placement of a task.
pub(crate) type Copy = (TaskKey, Generation);

impl Anonymous {
    /// Below `root`, which need not exist.
    pub fn new(root: PathBuf) -> Anonymous {
        Anonymous { root, ended: Arc::default() }
    }

    /// All those of a run's copy.
    pub fn of(&self, run: RunId) -> PathBuf {
        self.root.join(format!("{}-{}", run.key, run.generation))
    }

    /// Where it keeps what its container has at `target`.
    pub fn path(&self, run: RunId, target: &Path) -> PathBuf {
        self.of(run).join(component(&target.to_string_lossy()))
    }

    /// A run has ended: its copy may be over.
    pub fn look(&self) {
        self.ended.notify_one();
    }

    fn copies(&self) -> Vec<(Copy, PathBuf)> {
        let copy =
            |name: &str| format!("{name}-0").parse::<RunId>().ok().map(|run| (run.key, run.generation));
        entries(&self.root).into_iter().filter_map(|(name, dir)| Some((copy(&name)?, dir))).collect()
    }
}

/// Removes those of copies that are over, for as long as the agent runs.
pub(crate) async fn let_go(anonymous: Anonymous, bundles: PathBuf, node: NodeHandle) {
    loop {
        sleep(SOON).await;
        // Before the look at what lives: a copy's are made when the node has its record, and never again after it.
        let there = anonymous.copies();
        if !there.is_empty() {
            let Some(live) = node.read(|core| core.live_copies()).await else { return };
            let bundles = bundles.clone();
            drop(spawn_blocking(move || remove(there, &live, &mounted(&bundles))).await);
        }
        let _ = timeout(LOOK, anonymous.ended.notified()).await;
    }
}

fn remove(there: Vec<(Copy, PathBuf)>, live: &BTreeSet<Copy>, mounted: &BTreeSet<PathBuf>) {
    for (copy, dir) in there {
        if live.contains(&copy) || mounted.iter().any(|source| source.starts_with(&dir)) {
            continue;
        }
        if let Err(error) = container::delete_tree(&dir) {
            tracing::warn!("cannot remove the data of a task that is over, {}: {error}", dir.display());
        }
    }
}

/// Where a container has one: the image's entries but for those that the job's own volumes take the place of. An entry that
/// is no place for one (the root, a way out) stays in the writable layer, and so does one above a tmpfs.
pub(crate) fn targets(entries: &[String], own: &[Volume]) -> BTreeSet<PathBuf> {
    let tmpfs = |volume: &&Volume| matches!(volume.source, Source::Tmpfs(_));
    let is_free = |target: &PathBuf| {
        let hides = own.iter().filter(tmpfs).any(|volume| Path::new(&volume.path).starts_with(target));
        !hides && !own.iter().any(|volume| Path::new(&volume.path) == target)
    };
    entries.iter().filter_map(|entry| place(entry)).filter(is_free).collect()
}

fn place(entry: &str) -> Option<PathBuf> {
    let mut place = PathBuf::from("/");
    for part in Path::new(entry.strip_prefix('/')?).components() {
        match part {
            Component::Normal(name) => place.push(name),
            Component::CurDir => {}
            _ => return None,
        }
    }
    let kernels = ["/proc", "/sys", "/dev"].iter().any(|dir| place.starts_with(dir));
    (place != Path::new("/") && !kernels && !entry.contains('\0')).then_some(place)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    #[test]
    fn the_jobs_own_volumes_take_the_place_of_the_images() {
        let entries = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let of = |list: &[&str], own: &[Volume]| -> Vec<String> {
            targets(&entries(list), own).iter().map(|target| target.display().to_string()).collect()
        };
        let own = |path: &str, source| Volume { path: path.into(), source };
        assert_eq!(of(&["/data/", "/data", "/var//log"], &[]), ["/data", "/var/log"]);
        assert_eq!(of(&["data", "/", "", "/a/../b", "/proc/x", "/dev", "/nul\0"], &[]), [""; 0]);
        let data = own("/data", Source::Name("data".into()));
        assert_eq!(of(&["/data", "/data/deep", "/more"], &[data]), ["/data/deep", "/more"]);
        assert_eq!(of(&["/data", "/more"], &[own("/data/run", Source::Tmpfs(1))]), ["/more"]);
        assert_eq!(of(&["/data"], &[own("/data/in", Source::Name("x".into()))]), ["/data"]);
    }

    #[test]
    fn they_go_with_their_copy() {
        let dir = tempfile::tempdir().unwrap();
        let anonymous = Anonymous::new(dir.path().join("anonymous"));
        assert_eq!(anonymous.copies(), []);
        let runs: Vec<RunId> =
            ["1.7.0-1.2.3-4", "1.7.0-1.2.5-0", "1.8.0-1.2.3-0"].map(|run| run.parse().unwrap()).into();
        for run in &runs {
            fs::create_dir_all(anonymous.path(*run, Path::new("/var/lib/x"))).unwrap();
        }
        let copies =
            |runs: &[RunId]| runs.iter().map(|run| (run.key, run.generation)).collect::<BTreeSet<_>>();
        let there = || anonymous.copies().into_iter().map(|(copy, _)| copy).collect::<BTreeSet<_>>();
        assert_eq!(there(), copies(&runs));
        let mounted = BTreeSet::from([anonymous.path(runs[2], Path::new("/var/lib/x"))]);
        remove(anonymous.copies(), &copies(&runs[1..2]), &mounted);
        assert_eq!(there(), copies(&runs[1..]));
        remove(anonymous.copies(), &copies(&[]), &BTreeSet::new());
        assert_eq!(there(), copies(&[]));
    }
}
