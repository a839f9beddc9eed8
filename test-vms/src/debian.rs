//! Debian packages beside the system: unpacked into a cache instead of installed. Installing the emulator may remove a
//! newer one's tools; a kernel that is only tested is none of the boot loader's business; and a container engine that
//! is only compared should not start its daemon. Fetched once.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};

use crate::error::output_of;
use crate::{Error, Result};

/// Where Debian puts shared libraries.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const PROGRAMS: [&str; 2] = ["usr/bin", "usr/sbin"];

/// An unpacked set of packages.
#[derive(Debug)]
pub struct Unpacked {
    /// Holds `usr`, `boot`, `lib` and so on.
    pub root: PathBuf,
}

impl Unpacked {
    /// The set `name`, if it was fetched before.
    pub fn cached(name: &str) -> Option<Self> {
        Some(cache().join(name)).filter(|root| root.exists()).map(|root| Self { root })
    }

    /// Takes the set `name` from the cache, or fetches `packages`, of the `with_dependencies` also what this system
    /// lacks of their dependencies. Processes that want it at once wait for the first.
    ///
    /// # Errors
    /// Where there is no apt, no archive, or no room.
    pub fn get(name: &str, packages: &[&str], with_dependencies: &[&str]) -> Result<Self> {
        let cache = cache();
        fs::create_dir_all(&cache).map_err(Error::file("make", &cache))?;
        let lock = cache.join(format!("{name}.lock"));
        let file = File::create(&lock).map_err(Error::file("create", &lock))?;
        let _locked = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, why)| Error::file("lock", &lock)(why.into()))?;
        // Another process may have fetched it meanwhile.
        if Self::cached(name).is_none() {
            let wanted = || -> Result<Vec<String>> {
                let mut all: Vec<String> = packages.iter().copied().map(str::to_owned).collect();
                for package in with_dependencies {
                    all.extend(missing_for(package)?);
                }
                Ok(all)
            };
            fetch(&cache, &wanted, &cache.join(name))?;
        }
        Ok(Self { root: cache.join(name) })
    }

    /// A program of the set, which finds the set's libraries and its other programs.
    pub fn command(&self, program: &str) -> Command {
        let paths = PROGRAMS.map(|path| self.root.join(path));
        let found = paths.iter().map(|path| path.join(program)).find(|path| path.exists());
        let mut command = Command::new(found.unwrap_or_else(|| program.into()));
        let system = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(paths.into_iter().chain(env::split_paths(&system)));
        command.env("PATH", path.as_deref().unwrap_or(OsStr::new("/usr/bin:/bin")));
        command.env("LD_LIBRARY_PATH", self.root.join(LIBRARIES));
        command
    }
}

/// `$COVEY_CACHE`, else the user's cache directory, else the checkout's target directory.
pub fn cache() -> PathBuf {
    if let Some(cache) = env::var_os("COVEY_CACHE") {
        return cache.into();
    }
    let home = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    match home {
        Some(home) => home.join("covey"),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/cache"),
    }
}

/// The one package that a meta-package stands for now.
///
/// # Errors
/// Where apt does not know it.
pub fn behind(meta: &str) -> Result<String> {
    let ask = || output_of(Command::new("apt-cache").args(["depends", meta]));
    let find =
        |said: String| said.lines().find_map(|line| line.trim().strip_prefix("Depends: ").map(str::to_owned));
    match ask().ok().and_then(find) {
        Some(package) => Ok(package),
        None => {
            // A fresh image has no package lists.
            update()?;
            find(ask()?).ok_or_else(|| Error::Missing(format!("apt-cache knows no package behind {meta}")))
        }
    }
}

/// The package and those of its dependencies that this system lacks.
fn missing_for(package: &str) -> Result<Vec<String>> {
    // It may say that it would remove something; nothing is installed, only unpacked.
    let simulated = ["--simulate", "--no-install-recommends", "install", package];
    let said = output_of(Command::new("apt-get").args(simulated))?;
    let mut packages: Vec<String> = said
        .lines()
        .filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next())
        .map(str::to_owned)
        .collect();
    // One that is installed already is not in the list, and is needed all the same.
    if !packages.iter().any(|there| there == package) {
        packages.push(package.to_owned());
    }
    Ok(packages)
}

/// Downloads and unpacks into a directory beside `root`, which appears complete or not at all.
fn fetch(cache: &Path, wanted: &dyn Fn() -> Result<Vec<String>>, root: &Path) -> Result<()> {
    let scratch = tempfile::tempdir_in(cache).map_err(Error::file("make a directory in", cache))?;
    wanted().and_then(|packages| download(scratch.path(), &packages)).or_else(|_| {
        // There are no package lists, or they are older than the archive: what they name may be gone.
        update()?;
        download(scratch.path(), &wanted()?)
    })?;
    let unpacked = scratch.path().join("root");
    for entry in fs::read_dir(scratch.path()).map_err(Error::file("list", scratch.path()))? {
        let package = entry.map_err(Error::file("list", scratch.path()))?.path();
        if package.extension().is_some_and(|extension| extension == "deb") {
            output_of(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&unpacked))?;
        }
    }
    fs::rename(&unpacked, root).map_err(Error::file("move into place", root))
}

/// Fetches the package lists.
///
/// # Errors
/// Where there is no apt or no archive.
pub fn update() -> Result<()> {
    output_of(Command::new("apt-get").args(["-q", "update"])).map(drop)
}

/// Downloads packages, as they are, into a directory.
///
/// # Errors
/// Where there is no apt, no archive, or no such package.
pub fn download(into: &Path, packages: &[String]) -> Result<()> {
    let mut apt = Command::new("apt-get");
    apt.current_dir(into).args(["-q", "-o", "APT::Sandbox::User=root", "download"]).args(packages);
    output_of(&mut apt).map(drop)
}
