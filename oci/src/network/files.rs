//! What a container's `/etc` says of its network: its own name, who is where, and whom to ask for other names.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

/// Whose network it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The host's.
    Host,
    /// Its own, with this address.
    Private(Ipv4Addr),
    /// Its own, without a way out.
    None,
}

/// Where systemd-resolved says whom it asks itself: its own address is on a loopback that is not the container's.
const UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";

/// The files of one container.
#[derive(Debug)]
pub struct Etc {
    dir: PathBuf,
    files: Vec<(&'static str, String)>,
    /// Where each is, and where the container has it. What it shares with the host is named by its own path.
    pub mounts: Vec<(PathBuf, PathBuf)>,
}

impl Etc {
    /// `hostname`, `hosts` and `resolv.conf`, to be written to `dir`.
    pub fn new(dir: PathBuf, hostname: &str, whose: Whose) -> Etc {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let hosts = hosts(&read("/etc/hosts"), hostname, whose);
        let mut files = vec![("hostname", format!("{hostname}\n")), ("hosts", hosts)];
        let mut mounts = Vec::new();
        match whose {
            Whose::Host if Path::new("/etc/resolv.conf").is_file() => {
                mounts.push(("/etc/resolv.conf".into(), "/etc/resolv.conf".into()));
            }
            Whose::Host => {}
            _ => files.push(("resolv.conf", resolv_conf(&read("/etc/resolv.conf"), &read(UPSTREAM), whose))),
        }
        mounts.extend(files.iter().map(|(name, _)| (dir.join(name), Path::new("/etc").join(name))));
        Etc { dir, files, mounts }
    }

    /// Makes the directory and writes what is in it.
    pub fn write(&self) -> io::Result<()> {
        fs::create_dir(&self.dir)?;
        self.files.iter().try_for_each(|(name, text)| fs::write(self.dir.join(name), text))
    }
}

/// With the host's network the host's own names, and otherwise no more than the container's.
fn hosts(of_host: &str, hostname: &str, whose: Whose) -> String {
    let known = |text: &str| {
        text.lines().any(|line| {
            let line = line.split('#').next().unwrap_or_default();
            line.split_whitespace().skip(1).any(|name| name == hostname)
        })
    };
    let mut text = match whose {
        Whose::Host => of_host.to_string(),
        _ => "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n".to_string(),
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    if !known(&text) {
        let address = match whose {
            // As Debian does for a host without a fixed address.
            Whose::Host => Ipv4Addr::new(127, 0, 1, 1),
            Whose::Private(address) => address,
            Whose::None => Ipv4Addr::LOCALHOST,
        };
        text.push_str(&format!("{address} {hostname}\n"));
    }
    text
}

/// Servers on the host's loopback are out of reach: those that they ask take their place, where they are known.
fn resolv_conf(of_host: &str, upstream: &str, whose: Whose) -> String {
    let reached = |line: &&str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        // Private networks are IPv4.
        ["nameserver", server, ..] => {
            server.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4() && !ip.is_loopback() && whose != Whose::None)
        }
        _ => true,
    };
    let servers =
        |text: &str| text.lines().filter(reached).any(|line| line.trim_start().starts_with("nameserver"));
    let source = if servers(of_host) { of_host } else { upstream };
    source.lines().filter(reached).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const OWN: Whose = Whose::Private(Ipv4Addr::new(10, 1, 2, 3));

    #[test]
    fn a_container_knows_its_own_name() {
        let host = "127.0.0.1 localhost\n192.0.2.7 db # not web-0";
        assert_eq!(hosts(host, "web-0", Whose::Host), format!("{host}\n127.0.1.1 web-0\n"));
        assert_eq!(hosts(host, "db", Whose::Host), format!("{host}\n"));
        let own = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";
        assert_eq!(hosts(host, "web-0", OWN), format!("{own}10.1.2.3 web-0\n"));
        assert_eq!(hosts(host, "web-0", Whose::None), format!("{own}127.0.0.1 web-0\n"));
    }

    #[test]
    fn it_asks_whom_it_can_reach() {
        let resolved = "# stub\nnameserver 127.0.0.53\noptions edns0\nsearch lan\n";
        let upstream = "nameserver fd00::1\nnameserver 192.0.2.53\nsearch lan\n";
        assert_eq!(resolv_conf(resolved, upstream, OWN), "nameserver 192.0.2.53\nsearch lan\n");
        assert_eq!(resolv_conf("nameserver 192.0.2.1\n", upstream, OWN), "nameserver 192.0.2.1\n");
        assert_eq!(resolv_conf("nameserver 192.0.2.1\n", "", Whose::None), "");
    }

    #[test]
    fn the_files_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let etc = Etc::new(dir.path().join("etc"), "web-0", OWN);
        etc.write().unwrap();
        let targets: Vec<_> = etc.mounts.iter().map(|(_, to)| to.to_str().unwrap()).collect();
        assert_eq!(targets, ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"]);
        assert_eq!(fs::read_to_string(&etc.mounts[0].0).unwrap(), "web-0\n");
        let host = Etc::new(dir.path().join("other"), "web-0", Whose::Host);
        assert!(host.mounts.iter().all(|(from, to)| to != Path::new("/etc/resolv.conf") || from == to));
    }
}
