//! Logs of runs: in the bundle while it is there, put aside when it goes.

pub(crate) mod marks;

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use placement::ids::{JobKey, TaskKey};

use crate::event::RunId;

/// Runs whose logs are kept after their end, the newest; and for how long at most.
const KEPT_RUNS: usize = 200;
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);
/// Of one task: the run before the present one, and one more while the present one is being replaced.
const KEPT_OF_TASK: usize = 2;

/// A log directory that could not be moved or listed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} the logs in {path}: {source}")]
pub struct LogsError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Puts a run's logs aside, and lets go of what is beyond the bounds.
pub fn keep(kept: &Path, run: RunId, log: &Path) -> Result<(), LogsError> {
    let failed = |what, path: &Path| {
        let path = path.to_path_buf();
        move |source| LogsError { what, path, source }
    };
    fs::create_dir_all(kept).map_err(failed("make room for", kept))?;
    let aside = kept.join(run.to_string());
    match fs::rename(log, &aside) {
        // Its age counts from here.
        Ok(()) => fs::File::open(&aside)
            .and_then(|dir| dir.set_modified(SystemTime::now()))
            .map_err(failed("date", &aside))?,
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("put aside", log)(error)),
        Err(_) => {}
    }
    let mut runs = list(kept).map_err(failed("list", kept))?;
    runs.sort_by_key(|(_, ended)| std::cmp::Reverse(*ended));
    let now = SystemTime::now();
    let mut of_task = 0;
    for (place, (old, ended)) in runs.into_iter().enumerate() {
        of_task += usize::from(old.key == run.key);
        let too_many = place >= KEPT_RUNS || (old.key == run.key && of_task > KEPT_OF_TASK);
        if too_many || now.duration_since(ended).is_ok_and(|age| age > KEPT_FOR) {
            delete(kept, old)?;
        }
    }
    Ok(())
}

/// Removes the logs of runs that ended so long ago, though nothing has ended since.
pub fn tidy(kept: &Path, after: Duration) -> Result<(), LogsError> {
    let failed = |what, path: &Path| {
        let path = path.to_path_buf();
        move |source| LogsError { what, path, source }
    };
    let now = SystemTime::now();
    for (old, ended) in list(kept).map_err(failed("list", kept))? {
        if now.duration_since(ended).is_ok_and(|age| age > after) {
            delete(kept, old)?;
        }
    }
    Ok(())
}

/// Lets go of one that was put aside. That it is gone already is fine: another run's end was quicker.
fn delete(kept: &Path, run: RunId) -> Result<(), LogsError> {
    let path = kept.join(run.to_string());
    match fs::remove_dir_all(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(LogsError { what: "delete", path, source })
        }
        _ => Ok(()),
    }
}

/// Whose log it is, beside its segments: a run's name does not say what its job was called.
const JOB: &str = "job";

/// Notes whose log this will be.
pub fn mark(log: &Path, job: &JobKey) -> Result<(), LogsError> {
    let path = log.join(JOB);
    let made = serde_json::to_vec(job).map_err(io::Error::from).and_then(|text| {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(log)?;
        fs::write(&path, text)
    });
    made.map_err(|source| LogsError { what: "say whose are", path, source })
}

/// Runs of earlier jobs of this name, of the same index, that have logs here; else as `of_task`.
pub fn before_task(
    bundles: &Path,
    kept: &Path,
    key: TaskKey,
    job: &JobKey,
) -> Result<Vec<(RunId, PathBuf)>, LogsError> {
    let mut runs = of(bundles, kept, |old| old.index == key.index && old.uid < key.uid)?;
    let whose = |log: &Path| serde_json::from_slice::<JobKey>(&fs::read(log.join(JOB)).ok()?).ok();
    runs.retain(|(_, log)| whose(log).as_ref() == Some(job));
    Ok(runs)
}

/// A task's runs that have logs here, the oldest first, with their directories.
pub fn of_task(bundles: &Path, kept: &Path, key: TaskKey) -> Result<Vec<(RunId, PathBuf)>, LogsError> {
    of(bundles, kept, |other| other == key)
}

fn of(
    bundles: &Path,
    kept: &Path,
    wanted: impl Fn(TaskKey) -> bool,
) -> Result<Vec<(RunId, PathBuf)>, LogsError> {
    let mut runs = BTreeMap::new();
    // In the order in which logs move, so that none is missed on its way. A bundle without its log may take a while to go.
    for (dir, below) in [(bundles, "log"), (kept, "")] {
        let found =
            list(dir).map_err(|source| LogsError { what: "list", path: dir.to_path_buf(), source })?;
        let found = found.into_iter().filter(|(run, _)| wanted(run.key));
        let logs = found.map(|(run, _)| (run, dir.join(run.to_string()).join(below)));
        runs.extend(logs.filter(|(_, log)| log.is_dir()));
    }
    Ok(runs.into_iter().collect())
}

/// The runs that have a directory here, and when it was last changed.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<(RunId, SystemTime)>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut runs = Vec::new();
    for entry in entries {
        let entry = entry?;
        let run = entry.file_name().to_str().and_then(|name| name.parse().ok());
        // Gone meanwhile: as if it had not been listed.
        if let (Some(run), Ok(meta)) = (run, entry.metadata()) {
            runs.push((run, meta.modified().unwrap_or(SystemTime::UNIX_EPOCH)));
        }
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn run(task: &str, number: u32) -> RunId {
        format!("{task}-1.2.3-{number}").parse().unwrap()
    }

    #[test]
    fn an_earlier_job_of_the_name_is_known_by_its_logs() {
        let temp = tempfile::tempdir().unwrap();
        let (bundles, kept) = (temp.path().join("bundles"), temp.path().join("logs"));
        let job = |owner: &str| JobKey { owner: owner.into(), name: "web".into() };
        for (task, owner) in
            [("1.5.0", "ann"), ("1.5.1", "ann"), ("1.6.0", "bob"), ("1.7.0", "ann"), ("1.9.0", "ann")]
        {
            let log = bundles.join(run(task, 0).to_string()).join("log");
            fs::create_dir_all(&log).unwrap();
            mark(&log, &job(owner)).unwrap();
            keep(&kept, run(task, 0), &log).unwrap();
        }
        // Of a release that did not note it.
        fs::create_dir(kept.join(run("1.4.0", 0).to_string())).unwrap();
        let before = before_task(&bundles, &kept, "1.9.0".parse().unwrap(), &job("ann")).unwrap();
        let before: Vec<RunId> = before.into_iter().map(|(run, _)| run).collect();
        assert_eq!(before, [run("1.5.0", 0), run("1.7.0", 0)]);
        let text = fs::read_to_string(kept.join("1.7.0-1.2.3-0/job")).unwrap();
        assert_eq!(text, r#"{"owner":"ann","name":"web"}"#, "a later release reads it");
    }

    #[test]
    fn the_newest_of_a_task_are_kept_and_all_are_bounded() {
        let temp = tempfile::tempdir().unwrap();
        let (bundles, kept) = (temp.path().join("bundles"), temp.path().join("logs"));
        for number in 0..4 {
            let log = bundles.join(run("1.7.0", number).to_string()).join("log");
            fs::create_dir_all(&log).unwrap();
            fs::write(log.join("x"), number.to_string()).unwrap();
            if number < 3 {
                keep(&kept, run("1.7.0", number), &log).unwrap();
            }
        }
        let of = of_task(&bundles, &kept, "1.7.0".parse().unwrap()).unwrap();
        let texts: Vec<String> =
            of.iter().map(|(_, dir)| fs::read_to_string(dir.join("x")).unwrap()).collect();
        assert_eq!(texts, ["1", "2", "3"], "of bundles that are not gone yet too");

        // Many runs end at once: what one has deleted already does not trouble the others.
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (kept, log) = (&kept, temp.path().join(format!("log{thread}")));
                scope.spawn(move || {
                    for task in 0..KEPT_RUNS as u32 / 4 {
                        fs::create_dir_all(&log).unwrap();
                        keep(kept, run(&format!("1.8.{}", task * 8 + thread), 0), &log).unwrap();
                    }
                });
            }
        });
        keep(&kept, run("1.9.0", 0), &temp.path().join("none")).unwrap();
        assert_eq!(fs::read_dir(&kept).unwrap().count(), KEPT_RUNS);
    }
}
