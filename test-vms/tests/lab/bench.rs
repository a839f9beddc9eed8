//! What the tests of labs share: a lab that goes away with the test, and packets to count.

use std::net::UdpSocket;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

use test_vms::lab::{Lab, Plan};

/// Much longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A lab without agents, taken down when dropped.
pub(crate) struct Bare(Lab);

impl Bare {
    /// So many hosts in a lab that no other test has.
    pub(crate) fn up(test: &str, hosts: u32) -> Self {
        Self::of(&Self::plan(test, hosts))
    }

    pub(crate) fn of(plan: &Plan) -> Self {
        Self(Lab::raise(plan).unwrap())
    }

    pub(crate) fn plan(test: &str, hosts: u32) -> Plan {
        // These tests need no covey; whatever is named here is only linked.
        let tool = PathBuf::from(env!("CARGO_BIN_EXE_covey-lab"));
        Plan {
            tool,
            ..Plan::new(&format!("{test}-{}", std::process::id()), hosts, PathBuf::from("/bin/true"))
        }
    }

    /// Runs a shell script on a host.
    pub(crate) fn sh(&self, host: &str, script: &str) -> Output {
        self.exec(host, "/bin/sh").unwrap().args(["-ec", script]).output().unwrap()
    }

    /// What it prints, when it does not fail.
    pub(crate) fn says(&self, host: &str, script: &str) -> String {
        let output = self.sh(host, script);
        assert!(output.status.success(), "{host}: {script}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// That packets get from one host to another, whatever comes back.
    pub(crate) fn reaches(&self, from: &str, to: &str) {
        assert!(self.arrive(from, to, 1, 1) == 1, "{from} reaches {to}");
    }

    /// That they do not.
    pub(crate) fn silent(&self, from: &str, to: &str) {
        assert!(self.arrive(from, to, 20, 0) == 0, "nothing passes from {from} to {to}");
    }

    /// Sends packets as fast as it goes.
    pub(crate) fn send(&self, from: &str, to: &str, packets: u64, bytes: usize) {
        let here = self.socket(from, to);
        let (packet, addr) = (vec![0; bytes], self.state().unwrap().hosts[to].addr);
        for _ in 0..packets {
            // A full queue is what is tested.
            let _ = here.send_to(&packet, (addr, 9));
        }
    }

    /// A socket on `from` that can send to `to` at once: whoever is cut off has no answer to "who has this address" either.
    fn socket(&self, from: &str, to: &str) -> UdpSocket {
        let addr = self.state().unwrap().hosts[to].addr;
        self.says(from, &format!("ip neigh replace {addr} lladdr {} dev eth0", mac(to)));
        inside(self, from, || UdpSocket::bind("0.0.0.0:0").unwrap())
    }

    /// How many of so many packets arrive. The kernel delivers while the sender sends, unless it is busy: so it is waited
    /// for `least`, and for what may come although nothing should.
    pub(crate) fn arrive(&self, from: &str, to: &str, packets: usize, least: usize) -> usize {
        let there = inside(self, to, || UdpSocket::bind("0.0.0.0:9").unwrap());
        there.set_nonblocking(true).unwrap();
        let (here, addr) = (self.socket(from, to), self.state().unwrap().hosts[to].addr);
        let mut arrived = 0;
        for _ in 0..packets {
            here.send_to(b"packet", (addr, 9)).unwrap();
            arrived += usize::from(there.recv(&mut [0; 8]).is_ok());
        }
        for wait in [PATIENCE, Duration::from_millis(20)] {
            let until = Instant::now() + wait;
            while (arrived < least || wait < PATIENCE) && Instant::now() < until {
                arrived += usize::from(there.recv(&mut [0; 8]).is_ok());
            }
        }
        arrived
    }
}

impl Deref for Bare {
    type Target = Lab;
    fn deref(&self) -> &Lab {
        &self.0
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        Lab::down(self.0.name()).unwrap();
    }
}

/// The hardware address that a host keeps for ever.
fn mac(host: &str) -> String {
    let number: u16 = host[1..].parse().unwrap();
    format!("02:c0:7e:00:{:02x}:{:02x}", number >> 8, number & 0xff)
}

/// Does something in the network of a host: a thread may enter it, and ends with it.
fn inside<T: Send>(lab: &Lab, host: &str, act: impl FnOnce() -> T + Send) -> T {
    let pid = lab.processes(host).unwrap()[0];
    let network = std::fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
    std::thread::scope(|scope| {
        let act = scope.spawn(move || {
            nix::sched::setns(&network, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            act()
        });
        act.join().unwrap()
    })
}
