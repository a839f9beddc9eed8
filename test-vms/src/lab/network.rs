//! The lab's network: a bridge in a network namespace of its own, the *hub*, with one port for each host, named after it.
//! Every lab has the addresses 10.77.0.0/16, since no lab sees another, nor the machine.

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use super::faults;
use super::space::{Kind, Space};
use super::state::{State, number};
use super::{Error, Result};
use crate::cgroups::Cgroups;
use crate::guest::{INSIDE, OUTSIDE};

/// The cgroup of the hub, below that of the lab.
const HUB: &str = "hub";

/// An emulator's end of its machine's card, in the host's network.
pub(super) const TAP: &str = "vm";
/// The same of the cable between guest and lab.
pub(super) const CABLE: &str = "cable";

/// The hardware address of the host whose number's last bytes these are.
pub(super) fn mac(a: u8, b: u8) -> String {
    format!("02:c0:7e:00:{a:02x}:{b:02x}")
}

/// The namespace that the bridge is in.
pub(super) struct Network(Space);

impl Network {
    pub(super) fn make(lab: &Cgroups) -> Result<Self> {
        let made = || -> crate::Result<Self> {
            let hub = Self(Space::make(Kind::Network, lab.child(HUB)?, HUB)?);
            hub.ip("link set lo up\nlink add br0 type bridge mcast_snooping 0\nlink set br0 addrgenmode none up\n")?;
            Ok(hub)
        };
        made().map_err(Error::step("make the lab's network"))
    }

    pub(super) fn of(lab: &Cgroups) -> Self {
        Self(Space::held(Kind::Network, lab.below_named(HUB)))
    }

    /// Connects a host: a cable from a port of the bridge to its `eth0`. That of an emulator leads on to the machine's own.
    pub(super) fn connect(&self, name: &str, addr: Ipv4Addr, host: &Space, is_vm: bool) -> Result<()> {
        let pid = host.holder().unwrap_or_default();
        // A machine keeps its hardware address, over a loss of power too: others have it in their tables.
        let [.., a, b] = number(name)?.to_be_bytes();
        let mac = if is_vm { format!("02:c0:7e:01:{a:02x}:{b:02x}") } else { mac(a, b) };
        let port = format!(
            "link add {name} type veth peer name eth0 address {mac} netns {pid}\n\
             link set {name} master br0 addrgenmode none up\n"
        );
        let card = if is_vm {
            format!(
                "link set lo up\nlink add br0 type bridge mcast_snooping 0\nlink set br0 addrgenmode none up\n\
                 link set eth0 master br0 addrgenmode none up\n\
                 tuntap add {TAP} mode tap\nlink set {TAP} master br0 addrgenmode none up\n\
                 tuntap add {CABLE} mode tap\naddr add {OUTSIDE} peer {} dev {CABLE}\n\
                 link set {CABLE} addrgenmode none up\n",
                INSIDE.ip()
            )
        } else {
            format!("link set lo up\naddr add {addr}/16 brd + dev eth0\nlink set eth0 addrgenmode none up\n")
        };
        let what = || Error::step(format!("connect host `{name}` to the lab's network"));
        self.ip(&port).map_err(what())?;
        batch(host.command("ip", None).map_err(what())?, &card).map_err(what())
    }

    /// Nothing passes any more, at once.
    pub(super) fn unplug(&self, name: &str) -> Result<()> {
        self.port(name, &format!("link set {name} down\n"))
            .map_err(Error::step(format!("unplug host `{name}`")))
    }

    /// Takes the port away.
    pub(super) fn remove(&self, name: &str) -> Result<()> {
        self.port(name, &format!("link del {name}\n"))
            .map_err(Error::step(format!("remove the port of host `{name}`")))
    }

    /// Does something to a port that goes by itself some time after the host's end of the cable has.
    fn port(&self, name: &str, command: &str) -> crate::Result<()> {
        self.ip(command).or_else(|why| {
            let hub = self.0.holder().unwrap_or_default();
            let devices = std::fs::read_to_string(format!("/proc/{hub}/net/dev")).unwrap_or_default();
            let there = devices.lines().any(|line| line.trim_start().starts_with(&format!("{name}:")));
            if there { Err(why) } else { Ok(()) }
        })
    }

    /// Makes the network as faulty as `state` has it, all at one moment.
    pub(super) fn apply(&self, state: &State) -> Result<()> {
        let apply = || -> crate::Result<()> {
            let mut nft = self.0.command("nft", None)?;
            feed(nft.args(["-f", "-"]), &faults::rules(state))
        };
        apply().map_err(Error::step("set the faults of the lab's network"))
    }

    /// Limits what a host sends and receives, each to `mbit` in a second; none is no limit.
    pub(super) fn pace(&self, name: &str, host: &Space, mbit: Option<u32>) -> Result<()> {
        for (space, device) in [(&self.0, name), (host, "eth0")] {
            let pace = || {
                let mut tc = space.command("tc", None)?;
                tc.args(["qdisc", "replace", "dev", device, "root"]).args(faults::shaping(mbit));
                crate::error::output_of(&mut tc).map(drop)
            };
            pace().map_err(Error::step(format!("limit the bandwidth of host `{name}`")))?;
        }
        Ok(())
    }

    fn ip(&self, commands: &str) -> crate::Result<()> {
        batch(self.0.command("ip", None)?, commands)
    }
}

fn batch(mut ip: Command, commands: &str) -> crate::Result<()> {
    feed(ip.args(["-batch", "-"]), commands)
}

/// Runs a command that reads `text`.
fn feed(command: &mut Command, text: &str) -> crate::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |why| crate::Error::Run {
        program: program.clone(),
        why,
        hint: " (`make test` installs what is missing)",
    };
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // Who does not read to the end says why itself.
        let _ = stdin.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(crate::Error::Failed {
        program,
        status: output.status,
        said: format!("{}\n(told: {text})", said.trim()),
    })
}
