//! What containers have written, kept for a while after their end: of each task the newest run's, for `covey cp`.
//!
//! ```text
//! DIR/left/RUN/upper           the writable layer
//!             /bundle.json     over which layers it lies, and in which ids
//!             /rootfs          where both are mounted to be read
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use oci::{bundle::Bundle, container};
use placement::ids::TaskKey;

use crate::{event::RunId, logs};

/// Of a node, the newest; and for how long at most.
const KEPT_RUNS: usize = 20;
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);

/// Files that could not be put aside, or let go.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} the files in {path}: {source}")]
pub struct LeftError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// A handle for the directory that holds them.
#[derive(Debug, Clone)]
pub struct Left(PathBuf);

impl Left {
    /// Below `root`, which need not exist.
    pub fn new(root: PathBuf) -> Left {
        Left(root)
    }

    /// Puts aside what a run has left, if anything, and lets go of what is beyond the bounds.
    pub fn keep(&self, run: RunId, bundle: &Bundle) -> Result<(), LeftError> {
        let upper = bundle.upper();
        // One that never ran, or wrote nothing.
        if !fs::read_dir(&upper).is_ok_and(|mut entries| entries.next().is_some()) {
            return Ok(());
        }
        let dir = self.0.join(run.to_string());
        let aside = || {
            container::delete_tree(&dir)?;
            fs::create_dir_all(&dir)?;
            fs::copy(bundle.dir().join("bundle.json"), dir.join("bundle.json"))?;
            // Last: with it, it is whole.
            fs::rename(&upper, Bundle::at(&dir).upper())
        };
        aside().map_err(failed("put aside", &upper))?;
        let mut runs = self.runs()?;
        runs.sort_by_key(|(_, ended)| std::cmp::Reverse(*ended));
        for (place, (old, _)) in runs.into_iter().enumerate() {
            if place >= KEPT_RUNS || old.key == run.key && old != run {
                self.delete(old)?;
            }
        }
        Ok(())
    }

    /// Lets go of what was left so long ago.
    pub fn tidy(&self, after: Duration) -> Result<(), LeftError> {
        let now = SystemTime::now();
        for (old, ended) in self.runs()? {
            if now.duration_since(ended).is_ok_and(|age| age > after) {
                self.delete(old)?;
            }
        }
        Ok(())
    }

    /// The newest run of a task of which there is anything.
    pub fn newest(&self, task: TaskKey) -> Option<RunId> {
        let runs = self.runs().unwrap_or_default().into_iter().map(|(run, _)| run);
        runs.filter(|run| run.key == task && self.bundle(*run).is_some()).max()
    }

    /// What a run has left, as a bundle without a container.
    pub fn bundle(&self, run: RunId) -> Option<Bundle> {
        let bundle = Bundle::at(self.0.join(run.to_string()));
        bundle.upper().is_dir().then_some(bundle)
    }

    fn runs(&self) -> Result<Vec<(RunId, SystemTime)>, LeftError> {
        logs::list(&self.0).map_err(failed("list", &self.0))
    }

    fn delete(&self, run: RunId) -> Result<(), LeftError> {
        let dir = self.0.join(run.to_string());
        container::delete_tree(&dir).map_err(failed("delete", &dir))
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LeftError {
    move |source| LeftError { what, path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_newest_of_a_task_is_kept_and_all_are_bounded() {
        let temp = tempfile::tempdir().unwrap();
        let left = Left::new(temp.path().join("left"));
        let run = |task: &str, number: u32| format!("{task}-1.2.3-{number}").parse::<RunId>().unwrap();
        let ended = |run: RunId, wrote: bool| {
            let bundle = Bundle::at(temp.path().join("bundle"));
            fs::create_dir_all(bundle.upper()).unwrap();
            fs::write(bundle.dir().join("bundle.json"), "{}").unwrap();
            if wrote {
                fs::write(bundle.upper().join("file"), run.to_string()).unwrap();
            }
            left.keep(run, &bundle).unwrap();
            fs::remove_dir_all(bundle.dir()).unwrap();
        };
        let task = "1.7.0".parse().unwrap();
        assert_eq!(left.newest(task), None);
        ended(run("1.7.0", 0), true);
        ended(run("1.7.0", 1), true);
        ended(run("1.7.0", 2), false);
        assert_eq!(left.newest(task), Some(run("1.7.0", 1)));
        assert_eq!(left.bundle(run("1.7.0", 0)).map(|bundle| bundle.upper()), None);
        let kept = left.bundle(run("1.7.0", 1)).unwrap();
        assert_eq!(fs::read_to_string(kept.upper().join("file")).unwrap(), "1.7.0-1.2.3-1");
        for index in 0..KEPT_RUNS + 3 {
            ended(run(&format!("1.8.{index}"), 0), true);
        }
        assert_eq!(left.runs().unwrap().len(), KEPT_RUNS);
        left.tidy(KEPT_FOR).unwrap();
        assert_eq!(left.runs().unwrap().len(), KEPT_RUNS);
        left.tidy(Duration::ZERO).unwrap();
        assert_eq!(left.runs().unwrap().len(), 0);
    }
}
