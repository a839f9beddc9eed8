//! Removes volumes of jobs that are over, after a while.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use oci::bundle::{Bundle, BundleConfig};
use placement::{ids::JobKey, ledger::Ledger};
use serde::{Deserialize, Serialize};
use tokio::{task::spawn_blocking, time::sleep};

use super::{Volumes, read, write};
use crate::{cell::Cell, clock, journal::Journal};

/// How long volumes outlive their job: somebody may run it again.
const RETENTION_MS: u64 = 24 * 3_600_000;
const LOOK: Duration = Duration::from_secs(60);

const ENDED: &str = ".ended";

/// `.ended`: wall time, in milliseconds since 1970.
#[derive(Debug, Serialize, Deserialize)]
struct Ended {
    since_ms: u64,
}

/// For as long as the agent runs. `bundles` are those of the runs that are here.
pub(crate) async fn keep(volumes: Volumes, bundles: PathBuf, cell: Cell, journal: Journal) {
    loop {
        sleep(LOOK).await;
        let (here, bundles, ledger) = (volumes.clone(), bundles.clone(), cell.state());
        // Without a ledger nobody knows what is wanted.
        if ledger.cell.is_none() {
            continue;
        }
        let swept =
            spawn_blocking(move || here.sweep(&ledger, &mounted(&bundles), clock::now().wall_ms)).await;
        for (job, result) in swept.unwrap_or_default() {
            match result {
                Ok(()) => {
                    let text = format!("the volumes of {job} were removed: it ended more than 24 hours ago");
                    journal.job("volume_removed", &job.owner, &job.name, text);
                    volumes.look();
                }
                Err(error) => tracing::warn!("cannot remove the volumes of {job}: {error}"),
            }
        }
    }
}

/// The host's side of what containers have mounted.
pub(super) fn mounted(bundles: &Path) -> BTreeSet<PathBuf> {
    let bundles = fs::read_dir(bundles).into_iter().flatten().flatten().map(|e| Bundle::at(e.path()));
    let sources = |config: BundleConfig| config.binds.into_iter().map(|bind| bind.source);
    bundles.filter_map(|bundle| bundle.config().ok()).flat_map(sources).collect()
}

impl Volumes {
    /// Marks what is wanted no more, and removes what has been so for long. Returns what it removed, or could not.
    fn sweep(
        &self,
        ledger: &Ledger,
        mounted: &BTreeSet<PathBuf>,
        now_ms: u64,
    ) -> Vec<(JobKey, io::Result<()>)> {
        let mut removed = Vec::new();
        for (job, dir) in self.jobs() {
            let mark = dir.join(ENDED);
            let wanted = ledger.jobs.get(&job).is_some_and(|record| !record.stopped);
            if wanted || mounted.iter().any(|source| source.starts_with(&dir)) {
                let _ = fs::remove_file(&mark);
                continue;
            }
            let since = read::<Ended>(&mark).map(|ended| ended.since_ms);
            match since {
                // A clock that was set back begins the time anew.
                Some(since_ms) if since_ms <= now_ms => {
                    if now_ms - since_ms >= RETENTION_MS {
                        removed.push((job, fs::remove_dir_all(&dir)));
                    }
                }
                _ => {
                    if let Err(error) = write(&mark, &Ended { since_ms: now_ms }) {
                        removed.push((job, Err(error)));
                    }
                }
            }
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use placement::{
        ids::{CellId, Generation},
        ledger::{Command, Entry, Expect},
    };
    use serde_json::json;

    use super::*;

    fn job(name: &str) -> JobKey {
        JobKey { owner: "ann".into(), name: name.into() }
    }

    fn apply(ledger: &mut Ledger, command: Command) {
        ledger.apply(ledger.applied + 1, &Entry { request: None, at_ms: 0, command });
    }

    #[test]
    fn volumes_outlive_their_job_by_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::new(dir.path().into());
        let mut ledger = Ledger::default();
        apply(&mut ledger, Command::Found { cell: CellId("c".into()), name: "c".into(), generation: 1 });
        for name in ["runs", "ended", "unknown"] {
            let document = json!({"name": name, "task": {"image": "hello:1"}});
            if name != "unknown" {
                let (job, images) = (job(name), [("hello:1".to_string(), "sha256:0".to_string())].into());
                apply(&mut ledger, Command::Submit { job, document, images, expect: Expect::Any });
            }
            volumes.used(&job(name), 0, Generation::default()).unwrap();
            fs::create_dir(volumes.path(&job(name), 0, "data")).unwrap();
        }
        let stop = |ledger: &mut Ledger| apply(ledger, Command::Stop { job: job("ended"), index: None });
        let there = || volumes.list().into_keys().collect::<Vec<_>>();
        let all = ["ann/ended", "ann/runs", "ann/unknown"];
        let mounted = BTreeSet::from([volumes.path(&job("unknown"), 0, "data")]);
        stop(&mut ledger);
        for now_ms in [0, RETENTION_MS - 1] {
            assert_eq!(volumes.sweep(&ledger, &mounted, now_ms).len(), 0);
        }
        assert_eq!(there(), all);
        let removed = volumes.sweep(&ledger, &mounted, RETENTION_MS);
        assert!(matches!(&removed[..], [(gone, Ok(()))] if *gone == job("ended")), "{removed:?}");
        assert_eq!(there(), [all[1], all[2]]);
        // Its container has ended: from now on the time counts.
        assert_eq!(volumes.sweep(&ledger, &BTreeSet::new(), RETENTION_MS).len(), 0);
        assert_eq!(volumes.sweep(&ledger, &BTreeSet::new(), 2 * RETENTION_MS - 1).len(), 0);
        assert_eq!(volumes.sweep(&ledger, &BTreeSet::new(), 2 * RETENTION_MS).len(), 1);
        assert_eq!(there(), [all[1]]);
    }
}
