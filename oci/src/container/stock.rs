//! The directories of removed runs, for the next ones.
//!
//! A file system remembers for a while what was deleted, and some look through all of it whenever something is created
//! (ext4 without a journal: half a minute's inodes, for each new one). A run takes ten inodes and a busy node starts many
//! runs a second. So most of a bundle is used again: its directory, its documents, overlay's scratch directory; never
//! what a container could write to. Until it is another run's bundle it lies where nobody looks for runs, so that
//! whatever is cut short leaves no run half made or half removed, and what lies there is thrown away by the next agent.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use oci_spec::runtime::Spec;

use super::{Error, remains};
use crate::bundle::{self, Bundle, BundleConfig};

/// Directories that are kept: more than are started or removed at a time. Each takes a few tens of kilobytes of disk.
const MOST: usize = 16;

/// A directory of directories that were bundles.
#[derive(Debug)]
pub struct Stock {
    root: PathBuf,
    shelf: Mutex<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    /// Clean.
    ready: Vec<PathBuf>,
    /// The name that comes next.
    next: u64,
}

impl Stock {
    /// An empty one in `root`, on the bundles' file system. What an earlier one has left there goes.
    pub fn open(root: PathBuf) -> io::Result<Stock> {
        remains::delete(&root)?;
        fs::create_dir(&root)?;
        Ok(Stock { root, shelf: Mutex::default() })
    }

    /// As [`Bundle::create`], of a directory that was used before if there is one.
    pub fn create(&self, dir: PathBuf, config: &BundleConfig, spec: &Spec) -> Result<Bundle, bundle::Error> {
        let ready = self.shelf().ready.pop();
        if let Some(used) = ready {
            let bundle = Bundle::at(&used);
            let made = bundle.fill(config, spec).is_ok() && !dir.exists();
            if made && fs::rename(&used, &dir).is_ok() {
                return Ok(Bundle::at(dir));
            }
            // Whatever is wrong with it, a new one may do.
            let _ = remains::delete(&used);
        }
        Bundle::create(dir, config, spec)
    }

    /// Take over the directory of a run of which nothing else is left, or delete it.
    pub(super) fn put(&self, bundle: &Bundle) -> Result<(), Error> {
        let failed = |source| Error::Delete { bundle: bundle.dir().display().to_string(), source };
        let place = {
            let mut shelf = self.shelf();
            shelf.next += 1;
            (shelf.ready.len() < MOST).then(|| self.root.join(shelf.next.to_string()))
        };
        match place.map(|place| (fs::rename(bundle.dir(), &place), place)) {
            Some((Ok(()), place)) => {
                match clean(&place) {
                    Ok(()) => self.shelf().ready.push(place),
                    Err(_) => remains::delete(&place).map_err(failed)?,
                }
                Ok(())
            }
            // It may have been removed before.
            Some((Err(_), _)) | None => remains::delete(bundle.dir()).map_err(failed),
        }
    }

    fn shelf(&self) -> std::sync::MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Make it as good as new: documents that nobody would read as another run's, no more.
fn clean(dir: &Path) -> io::Result<()> {
    let mut ended = false;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        match entry.file_name().as_encoded_bytes() {
            b"config.json" | b"bundle.json" | b"exit.json.tmp" => {}
            b"exit.json" => ended = true,
            b"work" => remains::empty(&path)?,
            // The writable layer's directory too: a container may have left its mark on it. And the lock: that it is there
            // says that a shim has been.
            _ if entry.file_type()?.is_dir() => remains::delete(&path)?,
            _ => fs::remove_file(path)?,
        }
    }
    // The next run's record begins where it has room.
    if ended { fs::rename(dir.join("exit.json"), dir.join("exit.json.tmp")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::bundle::tests::{config, exit, state};
    use std::os::unix::fs::MetadataExt as _;

    fn listed(dir: &Path) -> Vec<String> {
        let entries =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = entries.collect();
        names.sort();
        names
    }

    /// A run from its start to its end, with what it leaves.
    fn lived(bundle: &Bundle) {
        bundle.reserve_exit_record().unwrap();
        let lock = fs::File::options().create(true).truncate(false).write(true).open(bundle.lock()).unwrap();
        bundle.write_state(&lock, &state()).unwrap();
        bundle.write_exit_record(&exit()).unwrap();
        for dir in ["work/work/incompat/volatile", "upper/deep/down", "log", "etc"] {
            fs::create_dir_all(bundle.dir().join(dir)).unwrap();
        }
        fs::write(bundle.dir().join("etc/hosts"), "127.0.0.1 localhost").unwrap();
    }

    #[test]
    fn nothing_of_a_run_is_seen_in_the_next() {
        let temp = tempfile::tempdir().unwrap();
        let stock = Stock::open(temp.path().join("stock")).unwrap();
        let fresh = stock.create(temp.path().join("fresh"), &config(), &Spec::default()).unwrap();
        let first = stock.create(temp.path().join("first"), &config(), &Spec::default()).unwrap();
        let inode = fs::metadata(first.dir()).unwrap().ino();
        lived(&first);
        stock.put(&first).unwrap();
        assert!(!first.dir().exists());

        let mut other = config();
        (other.run, other.layers) = ("a".into(), Vec::new());
        let second = stock.create(temp.path().join("second"), &other, &Spec::default()).unwrap();
        assert_eq!(fs::metadata(second.dir()).unwrap().ino(), inode);
        assert_eq!(second.config().unwrap(), other);
        assert_eq!(second.spec().unwrap(), Spec::default());
        assert!(second.state().unwrap().is_none() && second.exit_record().unwrap().is_none());
        assert!(listed(&second.upper()).is_empty() && listed(&second.dir().join("work")).is_empty());
        // Beside what a new one has: what is written anew before it is read.
        let mut expected = listed(fresh.dir());
        expected.extend(["exit.json.tmp", "work"].map(String::from));
        expected.sort();
        assert_eq!(listed(second.dir()), expected);
        let mode = |bundle: &Bundle| fs::metadata(bundle.dir()).unwrap().mode();
        assert_eq!(mode(&second), mode(&fresh));

        lived(&second);
        assert_eq!(second.exit_record().unwrap(), Some(exit()));
        assert_eq!(second.state().unwrap(), Some(state()));
    }

    #[test]
    fn what_cannot_be_used_again_goes() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("stock");
        let stock = Stock::open(root.clone()).unwrap();
        let bundles: Vec<_> = (0..MOST + 2)
            .map(|n| stock.create(temp.path().join(format!("run-{n}")), &config(), &Spec::default()).unwrap())
            .collect();
        bundles.iter().for_each(|bundle| stock.put(bundle).unwrap());
        // Once more, as after an interruption.
        stock.put(&bundles[0]).unwrap();
        assert!(bundles.iter().all(|bundle| !bundle.dir().exists()));
        assert_eq!(listed(&root).len(), MOST);

        // Somebody has been there.
        let newest = stock.shelf().ready.last().unwrap().clone();
        fs::remove_file(newest.join("config.json")).unwrap();
        fs::create_dir(newest.join("config.json")).unwrap();
        let bundle = stock.create(temp.path().join("again"), &config(), &Spec::default()).unwrap();
        assert_eq!(bundle.config().unwrap(), config());
        // A bundle that is there is never replaced.
        assert!(stock.create(temp.path().join("again"), &config(), &Spec::default()).is_err());

        // Of another agent.
        Stock::open(root.clone()).unwrap();
        assert!(listed(&root).is_empty());
    }
}
