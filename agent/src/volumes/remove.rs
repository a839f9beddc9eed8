//! Removes volumes of one index at a user's word.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use oci::container;
use placement::ids::JobKey;
use tokio::sync::MutexGuard;

use super::{USED, Volumes, entries, size};

/// What is no volume any more, until it is deleted: `.NAME.gone`.
const GONE: &str = ".gone";

/// Some of an index's volumes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    pub names: Vec<String>,
    pub bytes: u64,
}

impl Volumes {
    /// As long as this is held, no run begins to use a volume.
    pub async fn quiet(&self) -> MutexGuard<'_, ()> {
        self.starts.lock().await
    }

    /// Those of an index that are here, or the one of that name.
    pub fn of(&self, job: &JobKey, index: u32, name: Option<&str>) -> Found {
        let dirs = self.dirs(job, index, name);
        let bytes = dirs.iter().map(|(_, dir)| size(dir)).sum();
        Found { names: dirs.into_iter().map(|(name, _)| name).collect(), bytes }
    }

    /// Whether one of the directories that containers have mounted is among them.
    pub fn are_mounted(&self, job: &JobKey, index: u32, name: Option<&str>, bundles: &Path) -> bool {
        let mounted = super::keep::mounted(bundles);
        self.dirs(job, index, name).iter().any(|(_, dir)| mounted.contains(dir))
    }

    /// Takes them away; what they held is deleted before this returns. That they are not used is the caller's to know:
    /// see `quiet`.
    pub fn remove(&self, job: &JobKey, index: u32, name: Option<&str>) -> io::Result<Found> {
        let removed = self.of(job, index, name);
        let home = self.job(job).join(index.to_string());
        for (name, dir) in self.dirs(job, index, name) {
            // At once for whoever looks, however long the deletion takes.
            let gone = home.join(format!(".{name}{GONE}"));
            container::delete_tree(&gone)?;
            fs::rename(&dir, &gone)?;
        }
        clear_gone(&home)?;
        if entries(&home).is_empty() {
            let _ = fs::remove_file(home.join(USED));
            // Something else may lie there: then it stays.
            let _ = fs::remove_dir(&home);
        }
        Ok(removed)
    }

    fn dirs(&self, job: &JobKey, index: u32, name: Option<&str>) -> Vec<(String, PathBuf)> {
        let mut dirs = entries(&self.job(job).join(index.to_string()));
        dirs.retain(|(have, _)| name.is_none_or(|name| name == have));
        dirs
    }
}

/// Deletes what a removal has left, or another one that broke off.
fn clear_gone(home: &Path) -> io::Result<()> {
    for entry in fs::read_dir(home).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") && name.as_encoded_bytes().ends_with(GONE.as_bytes()) {
            container::delete_tree(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use placement::ids::Generation;

    use super::*;

    #[test]
    fn the_named_one_or_all_of_an_index_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::new(dir.path().join("volumes"));
        let job = JobKey { owner: "ann".into(), name: "db".into() };
        for (index, name) in [(0, "data"), (0, "log"), (1, "data")] {
            volumes.used(&job, index, Generation::default()).unwrap();
            fs::create_dir(volumes.path(&job, index, name)).unwrap();
            fs::write(volumes.path(&job, index, name).join("x"), [1; 10_000]).unwrap();
        }
        let there = || {
            let all = volumes.list().remove("ann/db").unwrap_or_default();
            all.into_iter().map(|(index, held)| (index, held.names.into_iter().collect())).collect::<Vec<_>>()
        };
        let names = |names: &[&str]| -> Vec<String> { names.iter().map(ToString::to_string).collect() };
        for nothing in ["..", "../1/data", ".used", "", "dat"] {
            assert_eq!(volumes.remove(&job, 0, Some(nothing)).unwrap(), Found::default());
        }
        assert_eq!(there(), [(0, names(&["data", "log"])), (1, names(&["data"]))]);
        let log = volumes.remove(&job, 0, Some("log")).unwrap();
        assert_eq!((log.names, log.bytes >= 10_000), (names(&["log"]), true));
        assert_eq!(there(), [(0, names(&["data"])), (1, names(&["data"]))]);
        // A removal that broke off is finished by the next one.
        let home = volumes.path(&job, 0, "data").parent().unwrap().to_path_buf();
        fs::create_dir_all(home.join(".old.gone/x")).unwrap();
        assert_eq!(volumes.remove(&job, 0, None).unwrap().names, ["data"]);
        assert!(!home.exists());
        assert_eq!(there(), [(1, names(&["data"]))]);
        assert_eq!(volumes.remove(&job, 0, None).unwrap(), Found::default());
    }
}
