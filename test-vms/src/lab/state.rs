//! What a lab remembers between commands: which hosts it has and what is wrong with its network. Processes are not in it:
//! they are found in the lab's cgroups, so that no pid can be mistaken for another.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::{Error, Result};

/// Where labs keep their disks and logs. Not /run: a disk may be larger than that.
const LABS: &str = "/var/lib/covey-lab";

/// What each host may use at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Thousandths of a CPU.
    pub cpu_milli: u64,
    /// Bytes of memory, without swap.
    pub memory_bytes: u64,
    /// Bytes of the data directory.
    pub disk_bytes: u64,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// On the lab's own network.
    pub addr: Ipv4Addr,
    /// The value of the label `rack`.
    pub rack: String,
    /// Powered on.
    pub power: bool,
    /// A virtual machine.
    #[serde(default)]
    pub vm: bool,
}

/// Packets from any of these to any of those are dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Senders.
    pub from: Vec<String>,
    /// Receivers.
    pub to: Vec<String>,
}

/// All that is remembered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Of this file's form.
    pub version: u32,
    /// The covey binary that hosts run.
    pub binary: PathBuf,
    /// The covey-lab binary, which is what a virtual machine runs first.
    #[serde(default)]
    pub tool: PathBuf,
    /// The agents' configuration file.
    #[serde(default)]
    pub config: Option<PathBuf>,
    /// Hosts are virtual machines, unless one was added otherwise.
    #[serde(default)]
    pub vms: bool,
    /// How many racks the hosts are spread over.
    pub racks: usize,
    /// Of each host.
    pub limits: Limits,
    /// By name.
    pub hosts: BTreeMap<String, Host>,
    /// In force now.
    pub cuts: Vec<Cut>,
    /// By host: the percentage of its packets that is dropped.
    pub loss: BTreeMap<String, f64>,
    /// By host: Mbit/s in each direction.
    pub rate: BTreeMap<String, u32>,
}

/// Where the files of a lab are.
#[derive(Clone, Debug)]
pub(super) struct Files {
    dir: PathBuf,
}

impl Files {
    pub(super) fn of(lab: &str) -> Self {
        Self { dir: Path::new(LABS).join(lab) }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The names of all hosts of the lab, as /etc/hosts has them.
    pub(super) fn names(&self) -> PathBuf {
        self.dir.join("hosts")
    }

    /// What virtual machines boot from.
    pub(super) fn initramfs(&self) -> PathBuf {
        self.dir.join("initramfs")
    }

    pub(super) fn host(&self, host: &str) -> PathBuf {
        self.dir.join(host)
    }

    /// Creates the lab's directory; only one can.
    pub(super) fn create(&self, lab: &str) -> Result<Lock> {
        fs::create_dir_all(LABS).map_err(crate::Error::file("make", LABS))?;
        match fs::create_dir(&self.dir) {
            Err(why) if why.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(Error::Exists { name: lab.to_owned(), dir: self.dir.clone() });
            }
            made => made.map_err(crate::Error::file("make", &self.dir))?,
        }
        self.lock(lab)
    }

    /// Waits until no other command changes this lab. Whoever dies lets go.
    pub(super) fn lock(&self, lab: &str) -> Result<Lock> {
        let directory = File::open(&self.dir).map_err(|why| match why.kind() {
            std::io::ErrorKind::NotFound => Error::NoLab(lab.to_owned()),
            _ => crate::Error::file("open", &self.dir)(why).into(),
        })?;
        Flock::lock(directory, FlockArg::LockExclusive)
            .map(Lock)
            .map_err(|(_, errno)| crate::Error::file("lock", &self.dir)(errno.into()).into())
    }

    pub(super) fn load(&self, lab: &str) -> Result<State> {
        let path = self.dir.join("state.json");
        let text = fs::read(&path).map_err(|why| match why.kind() {
            // A directory without it is half a lab: `up` was ended before it had begun.
            std::io::ErrorKind::NotFound if self.dir.exists() => {
                Error::Exists { name: lab.to_owned(), dir: self.dir.clone() }
            }
            std::io::ErrorKind::NotFound => Error::NoLab(lab.to_owned()),
            _ => crate::Error::file("read", &path)(why).into(),
        })?;
        serde_json::from_slice(&text).map_err(|why| crate::Error::file("read", &path)(why.into()).into())
    }

    pub(super) fn save(&self, state: &State) -> Result<()> {
        let (path, new) = (self.dir.join("state.json"), self.dir.join("state.json.new"));
        let text =
            serde_json::to_vec_pretty(state).map_err(|why| crate::Error::file("write", &new)(why.into()))?;
        fs::write(&new, text).map_err(crate::Error::file("write", &new))?;
        fs::rename(&new, &path).map_err(crate::Error::file("write", &path))?;
        self.save_names(state)
    }

    /// In place, since every host has this very file bound over its /etc/hosts.
    fn save_names(&self, state: &State) -> Result<()> {
        let mut text = String::from("127.0.0.1 localhost\n");
        for (name, host) in &state.hosts {
            text.push_str(&format!("{} {name}\n", host.addr));
        }
        let path = self.names();
        let mut file = File::options().create(true).write(true).truncate(true).open(&path);
        let written =
            file.as_mut().map_err(|why| why.kind().into()).and_then(|f| f.write_all(text.as_bytes()));
        Ok(written.map_err(crate::Error::file("write", &path))?)
    }
}

/// Held while a lab is changed.
#[derive(Debug)]
pub(super) struct Lock(Flock<File>);

impl Lock {
    /// Whether the directory that was locked is still the lab's: it may have been taken down meanwhile.
    pub(super) fn holds(&self, files: &Files) -> bool {
        use std::os::unix::fs::MetadataExt;
        let locked = nix::sys::stat::fstat(std::os::fd::AsRawFd::as_raw_fd(&self.0.as_fd()));
        let there = fs::metadata(files.dir());
        matches!((locked, there), (Ok(a), Ok(b)) if a.st_ino == b.ino() && a.st_dev == b.dev())
    }
}

/// The number in `h12`.
pub(super) fn number(host: &str) -> Result<u32> {
    let digits = host
        .strip_prefix('h')
        .filter(|rest| rest.bytes().all(|b| b.is_ascii_digit()) && !rest.starts_with('0'));
    let number = digits.and_then(|digits| digits.parse().ok()).filter(|number| (1..=65_000).contains(number));
    number.ok_or_else(|| Error::BadHost(host.to_owned()))
}

/// `h12` has 10.77.0.12, unless it was given another.
pub(super) fn usual_addr(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 77, 0, 0)) + number)
}

/// Whether a host may have it: inside of the lab's network, and neither its first nor its last.
pub(super) fn in_network(addr: Ipv4Addr) -> bool {
    let [a, b, ..] = addr.octets();
    (a, b) == (10, 77) && ![0, 0xffff].contains(&(u32::from(addr) & 0xffff))
}

pub(super) fn check_name(lab: &str) -> Result<()> {
    let letters = lab.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let begins = lab.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    if letters && begins && lab.len() <= 32 { Ok(()) } else { Err(Error::BadName(lab.to_owned())) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn hosts_are_numbered() {
        assert_eq!(number("h12").unwrap(), 12);
        for bad in ["h0", "h", "h012", "12", "x1", "h65001", "h1/..", "h+1"] {
            assert!(number(bad).is_err(), "{bad}");
        }
        assert_eq!(usual_addr(300), Ipv4Addr::new(10, 77, 1, 44));
    }

    #[test]
    fn labs_have_names_that_are_one_directory() {
        assert!(check_name("lab-2").is_ok());
        for bad in ["", "..", "a/b", "2nd", "Lab", &"a".repeat(33)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
