//! A cgroup below a run's, for a command that somebody has executed in it: so that the command and all that it started
//! can be told from the container's own processes, and ended.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Doors, Error, Placement, UNIFIED, pids_in, remove_tree};
use crate::pidfd;

/// v1 hierarchies in which a new cgroup can be joined as it is; a cpuset could not.
const PLAIN: [&str; 4] = ["pids", "freezer", "memory", "cpu"];

/// In one hierarchy only: the limits of the others are the run's.
pub(crate) struct Nest(PathBuf);

impl Placement {
    /// Make a cgroup `name` below the run's. The doors lead into it, and into the run's own cgroups elsewhere.
    pub(crate) fn nest(&self, name: &str) -> Result<(Nest, Doors), Error> {
        let tree = [UNIFIED].iter().chain(&PLAIN).find_map(|key| self.trees.get(*key));
        let mut dirs: BTreeSet<PathBuf> = self.dirs();
        let nest = match tree {
            Some(tree) => {
                let run = self.in_tree(tree);
                let dir = run.join(name);
                // Never made without the run's own: the container may have ended a moment ago.
                fs::create_dir(&dir).map_err(|source| Error::Io { op: "make", path: dir.clone(), source })?;
                dirs.remove(&run);
                dirs.insert(dir.clone());
                Nest(dir)
            }
            None => Nest(PathBuf::new()),
        };
        match Doors::open(&dirs, None) {
            Ok(doors) => Ok((nest, doors)),
            Err(error) => {
                let _ = nest.remove();
                Err(error)
            }
        }
    }
}

impl Nest {
    /// Kill whatever is in it, until nothing is or `patience` is over.
    pub(crate) fn kill(&self, patience: Duration) {
        if self.0 == Path::new("") {
            return;
        }
        let deadline = Instant::now() + patience;
        loop {
            let left = pids_in(&self.0);
            if left.is_empty() || Instant::now() > deadline {
                return;
            }
            let _ = fs::write(self.0.join("cgroup.kill"), "1");
            let held: Vec<_> = left.iter().filter_map(|&pid| Some((pid, pidfd::open(pid).ok()?))).collect();
            // Still there now that we hold it: so it is not another process with a pid that was free again.
            let still = pids_in(&self.0);
            for (_, fd) in held.iter().filter(|(pid, _)| still.contains(pid)) {
                let _ = pidfd::signal(fd, libc::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Remove it, empty as it is by now. It goes with the run at the latest.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        if self.0 == Path::new("") { Ok(()) } else { remove_tree(&self.0) }
    }
}
