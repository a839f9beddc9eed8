//! Hosts on one machine: what `covey-lab` is made of, and what stories and figures use directly.
//!
//! A host has network, UTS and mount namespaces of its own, held by a sleeping process, a cgroup in every hierarchy
//! on which its CPU and memory are limited, and a disk (a file system in a file). Its cable goes to a bridge in a network
//! namespace of the lab's. All processes of a lab are in its cgroups and all its namespaces end with them, so ending a
//! lab, or what a crash has left of one, is: kill what is in there, remove two trees of directories.

mod agent;
mod emulator;
mod error;
mod faults;
mod form;
mod host;
mod network;
mod order;
mod space;
mod state;
mod wait;

use std::fs;
use std::net::Ipv4Addr;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Instant;

use serde_json::Value;

pub use error::{Error, Result};
pub use form::{Times, voters_of};
pub use state::{Cut, Host, Limits, State};

use crate::cgroups::Cgroups;
use crate::error::output_of;
use host::Machine;
use network::Network;
use state::{Files, Lock};

/// How many busy processes of the machine all labs weigh together: they stand for several machines, and what is slow for
/// one looks dead to the others.
const WEIGHT: u64 = 10;

/// What a new lab shall be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Of the lab and of its cell.
    pub name: String,
    /// `h1` to `hN`.
    pub hosts: u32,
    /// Hosts are dealt to `r1` to `rR` in turn.
    pub racks: u32,
    /// Of each host.
    pub limits: Limits,
    /// The covey binary that hosts run.
    pub binary: PathBuf,
    /// The configuration file of all agents, if they have one; not for virtual machines, which do not see it.
    pub config: Option<PathBuf>,
    /// Hosts are virtual machines.
    pub vms: bool,
    /// The covey-lab binary, which every virtual machine runs as its first process.
    pub tool: PathBuf,
    /// Is told what is being waited for.
    pub tell: fn(&str),
}

impl Plan {
    /// A lab as `covey-lab up` makes it when nothing else is said: 4 CPUs, 4 GiB of memory and 2 GiB of disk for each host.
    pub fn new(name: &str, hosts: u32, binary: PathBuf) -> Self {
        let limits = Limits { cpu_milli: 4000, memory_bytes: 4 << 30, disk_bytes: 2 << 30 };
        let (vms, tool) = (false, tool(&binary));
        Self { name: name.to_owned(), hosts, racks: 1, limits, binary, config: None, vms, tool, tell: |_| {} }
    }

    /// The same with virtual machines: 2 CPUs and 1 GiB of memory, all of which one thread of this machine emulates.
    pub fn of_vms(name: &str, hosts: u32, binary: PathBuf) -> Self {
        let limits = Limits { cpu_milli: 2000, memory_bytes: 1 << 30, disk_bytes: 2 << 30 };
        Self { limits, vms: true, ..Self::new(name, hosts, binary) }
    }
}

/// A lab that is there. Every method reads what is on disk anew, so any number of processes may use one lab.
#[derive(Clone, Debug)]
pub struct Lab {
    name: String,
    files: Files,
    tell: fn(&str),
}

impl Lab {
    /// Makes hosts without agents.
    ///
    /// # Errors
    /// When there is a lab of that name, or something of it cannot be made; then nothing is left over.
    pub fn raise(plan: &Plan) -> Result<Self> {
        state::check_name(&plan.name)?;
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        let lab = Self { name: plan.name.clone(), files: Files::of(&plan.name), tell: plan.tell };
        let lock = lab.files.create(&lab.name)?;
        let raised = lab.raise_all(plan);
        drop(lock);
        if raised.is_err() {
            // The first error is the one to tell.
            let _ = Self::down(&lab.name);
        }
        raised.map(|()| lab)
    }

    fn raise_all(&self, plan: &Plan) -> Result<()> {
        let cgroups = self.make_cgroups()?;
        let network = Network::make(&cgroups)?;
        let mut state = State {
            version: 1,
            binary: plan.binary.clone(),
            tool: plan.tool.clone(),
            config: plan.config.clone(),
            vms: plan.vms,
            racks: plan.racks.max(1) as usize,
            limits: plan.limits,
            hosts: Default::default(),
            cuts: Vec::new(),
            loss: Default::default(),
            rate: Default::default(),
        };
        self.files.save(&state)?;
        let hosts: Vec<String> = (1..=plan.hosts).map(|number| format!("h{number}")).collect();
        hosts.iter().try_for_each(|host| self.place(&mut state, host, None, plan.vms))?;
        self.power_on(&mut state, &cgroups, &network, &hosts)
    }

    fn make_cgroups(&self) -> Result<Cgroups> {
        let labs = Cgroups::make(host::all_labs());
        let lab = labs.and_then(|labs| {
            labs.weigh(WEIGHT)?;
            labs.child(&self.name)
        });
        lab.map_err(Error::step("make the lab's cgroups"))
    }

    /// The lab of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(name: &str) -> Result<Self> {
        state::check_name(name)?;
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        let lab = Self { name: name.to_owned(), files: Files::of(name), tell: |_| {} };
        lab.state().map(|_| lab)
    }

    /// The same lab, which says what is being waited for.
    pub fn telling(self, tell: fn(&str)) -> Self {
        Self { tell, ..self }
    }

    /// Ends all that carries this lab's name, or whatever is left of it. Whether anything was there.
    ///
    /// # Errors
    /// When something does not go away.
    pub fn down(name: &str) -> Result<bool> {
        state::check_name(name)?;
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        let files = Files::of(name);
        // Whoever holds it is making something, and ends soon.
        let lock = match files.lock(name) {
            Ok(lock) => Some(lock),
            Err(Error::NoLab(_)) => None,
            Err(why) => return Err(why),
        };
        let cgroups = Cgroups::find(&host::lab_cgroup(name))?;
        let found = lock.is_some() || cgroups.exist();
        cgroups.end().map_err(Error::step(format!("end lab `{name}`")))?;
        host::released(files.dir())?;
        if lock.is_some() {
            fs::remove_dir_all(files.dir()).map_err(crate::Error::file("remove", files.dir()))?;
        }
        // The last lab takes what all have shared; a refusal says that there is another.
        Cgroups::find(host::all_labs())?.remove_if_empty();
        let _ = files.dir().parent().map(fs::remove_dir);
        Ok(found)
    }

    /// Its name, which is its cell's too.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is remembered of it.
    ///
    /// # Errors
    /// When it has been taken down.
    pub fn state(&self) -> Result<State> {
        self.files.load(&self.name)
    }

    /// The names of its hosts, by number.
    ///
    /// # Errors
    /// As [`Lab::state`].
    pub fn hosts(&self) -> Result<Vec<String>> {
        let mut hosts: Vec<String> = self.state()?.hosts.into_keys().collect();
        hosts.sort_by_key(|host| state::number(host).unwrap_or(u32::MAX));
        Ok(hosts)
    }

    /// Where a host's files are on this machine: `data` (seen from within the host only), `agent.log`.
    pub fn dir(&self, host: &str) -> PathBuf {
        self.files.host(host)
    }

    /// A command on a host: in its namespaces, below its limits, with `covey` in its PATH.
    ///
    /// # Errors
    /// When there is no such host, or it is powered off.
    pub fn exec(&self, host: &str, program: &str) -> Result<Command> {
        self.machine(&self.state()?, host)?.command(program)
    }

    /// A command that sees what a host sees, as somebody who comes by: CPU and memory are the caller's, not the host's.
    ///
    /// # Errors
    /// As [`Lab::exec`].
    pub fn visit(&self, host: &str, program: &str) -> Result<Command> {
        self.machine(&self.state()?, host)?.visit(program)
    }

    /// Runs `covey` on a host and gives what it printed.
    ///
    /// # Errors
    /// When it is refused or fails, with what it said.
    pub fn covey(&self, host: &str, args: &[&str]) -> Result<String> {
        let mut covey = self.exec(host, "covey")?;
        output_of(covey.args(args)).map_err(Error::step(format!("run covey on host `{host}`")))
    }

    /// The same with `--json`.
    ///
    /// # Errors
    /// As [`Lab::covey`], and when it printed no JSON.
    pub fn json(&self, host: &str, args: &[&str]) -> Result<Value> {
        let said = self.covey(host, &[args, &["--json"]].concat())?;
        serde_json::from_str(&said).map_err(|why| Error::NoJson {
            host: host.to_owned(),
            command: format!("covey {} --json", args.join(" ")),
            why: why.to_string(),
            said,
        })
    }

    /// The agent's pid on this machine, if it runs.
    ///
    /// # Errors
    /// When there is no such host, or it is powered off.
    pub fn agent_pid(&self, host: &str) -> Result<Option<i32>> {
        Ok(self.machine(&self.state()?, host)?.agent_pid())
    }

    /// All processes of a host; none of them outlives a crash. Those of a virtual machine are its emulator's.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn processes(&self, host: &str) -> Result<Vec<i32>> {
        self.known(&self.state()?, host)?;
        Ok(self.cgroups()?.below_named(host).processes())
    }

    /// The processes of a host with power and what each runs, as `/proc/PID/cmdline` has it. A virtual machine numbers
    /// its own, and its kernel's are not among them.
    ///
    /// # Errors
    /// When there is no such host, or a virtual machine does not answer.
    pub fn command_lines(&self, host: &str) -> Result<Vec<(i32, Vec<u8>)>> {
        let state = self.state()?;
        match self.known(&state, host)?.power {
            true => self.machine(&state, host)?.command_lines(),
            false => Ok(Vec::new()),
        }
    }

    /// SIGKILL for the agent alone: containers stay.
    ///
    /// # Errors
    /// When none runs there.
    pub fn kill(&self, host: &str) -> Result<()> {
        self.machine(&self.state()?, host)?.kill_agent()
    }

    /// Power off: nothing is sent or received any more, then everything ends at one moment.
    ///
    /// # Errors
    /// When it has no power, or does not lose it.
    pub fn crash(&self, host: &str) -> Result<()> {
        let (_lock, mut state) = self.change()?;
        let machine = self.machine(&state, host)?;
        let network = self.network()?;
        network.unplug(host)?;
        machine.end()?;
        network.remove(host)?;
        if let Some(host) = state.hosts.get_mut(host) {
            host.power = false;
        }
        self.files.save(&state)
    }

    /// Power on, with the same disk, an empty `/run`, and the same address unless another is given. No agent is started.
    ///
    /// # Errors
    /// When it has power already, or does not come up.
    pub fn power(&self, host: &str, addr: Option<Ipv4Addr>) -> Result<()> {
        let (_lock, mut state) = self.change()?;
        if self.known(&state, host)?.power {
            return Err(Error::On(host.to_owned()));
        }
        let is_vm = self.known(&state, host)?.vm;
        self.place(&mut state, host, addr, is_vm)?;
        self.power_on(&mut state, &self.cgroups()?, &self.network()?, &[host.to_owned()])
    }

    /// Power on for all that have none, at a time. No agents are started.
    ///
    /// # Errors
    /// When one does not come up.
    pub fn power_all(&self) -> Result<()> {
        let (_lock, mut state) = self.change()?;
        let off = state.hosts.iter().filter(|(_, host)| !host.power).map(|(name, _)| name.clone());
        let off: Vec<String> = off.collect();
        self.power_on(&mut state, &self.cgroups()?, &self.network()?, &off)
    }

    /// One more host of the lab's kind, without an agent.
    ///
    /// # Errors
    /// When it is there already, or cannot be made.
    pub fn add_host(&self, host: &str) -> Result<()> {
        self.make_host(host, self.state()?.vms)
    }

    /// One more host of either kind, without an agent.
    ///
    /// # Errors
    /// As [`Lab::add_host`].
    pub fn make_host(&self, host: &str, is_vm: bool) -> Result<()> {
        let (_lock, mut state) = self.change()?;
        if state.hosts.contains_key(host) {
            return Err(Error::HostExists { lab: self.name.clone(), host: host.to_owned() });
        }
        self.place(&mut state, host, None, is_vm)?;
        self.power_on(&mut state, &self.cgroups()?, &self.network()?, &[host.to_owned()])
    }

    /// Drops all packets from the first to the second; both ways unless `one_way`. Cuts add up.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn cut(&self, from: &[&str], to: &[&str], one_way: bool) -> Result<()> {
        self.fault(from.iter().chain(to), |state| {
            let owned = |hosts: &[&str]| hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>();
            state.cuts.push(Cut { from: owned(from), to: owned(to) });
            if !one_way {
                state.cuts.push(Cut { from: owned(to), to: owned(from) });
            }
        })
    }

    /// Undoes all cuts.
    ///
    /// # Errors
    /// When the rules cannot be set.
    pub fn heal(&self) -> Result<()> {
        self.fault(&[], |state| state.cuts.clear())
    }

    /// Drops that share of the packets that a host sends, and of those that it would receive; 0 ends it.
    ///
    /// # Errors
    /// When there is no such host, or it is no percentage.
    pub fn loss(&self, host: &str, percent: f64) -> Result<()> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(Error::BadPercent(percent));
        }
        self.fault(&[host], |state| {
            state.loss.remove(host);
            if percent > 0.0 {
                state.loss.insert(host.to_owned(), percent);
            }
        })
    }

    /// Limits what a host sends, and what it receives, to so many Mbit/s each; 0 ends it.
    ///
    /// # Errors
    /// When there is no such host, or its kernel has no token bucket.
    pub fn rate(&self, host: &str, mbit: u32) -> Result<()> {
        let (_lock, mut state) = self.change()?;
        state.rate.remove(host);
        if mbit > 0 {
            state.rate.insert(host.to_owned(), mbit);
        }
        if self.known(&state, host)?.power {
            let machine = self.machine(&state, host)?;
            self.network()?.pace(host, &machine.space, state.rate.get(host).copied())?;
        }
        self.files.save(&state)
    }

    fn fault<'a>(
        &self,
        hosts: impl IntoIterator<Item = &'a &'a str>,
        change: impl FnOnce(&mut State),
    ) -> Result<()> {
        let (_lock, mut state) = self.change()?;
        hosts.into_iter().try_for_each(|host| self.known(&state, host).map(drop))?;
        change(&mut state);
        self.network()?.apply(&state)?;
        self.files.save(&state)
    }

    /// Gives a host its address and rack.
    fn place(&self, state: &mut State, name: &str, addr: Option<Ipv4Addr>, vm: bool) -> Result<()> {
        let number = state::number(name)?;
        let before = state.hosts.get(name);
        let addr = addr.or(before.map(|host| host.addr)).unwrap_or_else(|| state::usual_addr(number));
        let taken = state.hosts.iter().any(|(other, host)| other != name && host.addr == addr);
        if taken || !state::in_network(addr) {
            return Err(Error::BadAddress(addr.to_string()));
        }
        let rack = format!("r{}", (number as usize - 1) % state.racks + 1);
        state.hosts.insert(name.to_owned(), Host { addr, rack, power: false, vm });
        Ok(())
    }

    /// Powers hosts on that have their places, all at a time.
    fn power_on(
        &self,
        state: &mut State,
        cgroups: &Cgroups,
        network: &Network,
        names: &[String],
    ) -> Result<()> {
        self.files.save(state)?;
        let seen: &State = state;
        let vms = names.iter().filter(|name| seen.hosts.get(*name).is_some_and(|host| host.vm)).count();
        if vms > 0 {
            emulator::prepare(&self.files, &seen.tool, self.tell)?;
            (self.tell)(&format!("booting {vms} virtual machines: some 5 seconds of a CPU each"));
        }
        let begun = Instant::now();
        let boot = |name: &String| -> Result<()> {
            let host = self.known(seen, name)?;
            let machine = Machine::boot(cgroups, &self.files, name, seen.limits, host.vm)?;
            machine.install(&seen.binary)?;
            network.connect(name, host.addr, &machine.space, host.vm)?;
            if let Some(mbit) = seen.rate.get(name) {
                network.pace(name, &machine.space, Some(*mbit))?;
            }
            if host.vm {
                machine.emulate(&self.files, host, seen.limits, &seen.tool)?;
                (self.tell)(&format!("{name} has booted after {:.1} s", begun.elapsed().as_secs_f64()));
            }
            Ok(())
        };
        let booted: Vec<(&String, Result<()>)> = thread::scope(|scope| {
            let threads: Vec<_> = names.iter().map(|name| (name, scope.spawn(|| boot(name)))).collect();
            threads
                .into_iter()
                .map(|(name, thread)| (name, thread.join().unwrap_or_else(|p| resume_unwind(p))))
                .collect()
        });
        for (name, booted) in &booted {
            if booted.is_err() {
                // Half a host is none; the first error is the one to tell.
                let _ = Machine::running(cgroups, &self.files, name, false).end();
            }
            if let Some(host) = state.hosts.get_mut(*name) {
                host.power = booted.is_ok();
            }
        }
        self.files.save(state)?;
        booted.into_iter().try_for_each(|(_, booted)| booted)
    }

    /// Alone with the lab, and as it is now.
    fn change(&self) -> Result<(Lock, State)> {
        let lock = self.files.lock(&self.name)?;
        if !lock.holds(&self.files) {
            return Err(Error::NoLab(self.name.clone()));
        }
        Ok((lock, self.state()?))
    }

    fn cgroups(&self) -> Result<Cgroups> {
        Ok(Cgroups::find(&host::lab_cgroup(&self.name))?)
    }

    fn network(&self) -> Result<Network> {
        Ok(Network::of(&self.cgroups()?))
    }

    fn known<'a>(&self, state: &'a State, host: &str) -> Result<&'a Host> {
        state.hosts.get(host).ok_or_else(|| Error::NoHost {
            lab: self.name.clone(),
            host: host.to_owned(),
            hosts: state.hosts.keys().cloned().collect::<Vec<_>>().join(", "),
        })
    }

    fn machine(&self, state: &State, host: &str) -> Result<Machine> {
        let known = self.known(state, host)?;
        if !known.power {
            return Err(Error::Off(host.to_owned()));
        }
        Ok(Machine::running(&self.cgroups()?, &self.files, host, known.vm))
    }
}

/// Where a lab keeps its files.
pub fn directory(lab: &str) -> PathBuf {
    Files::of(lab).dir().to_path_buf()
}

/// The covey-lab binary: the program that runs, if it is that, else the one beside covey.
fn tool(covey: &Path) -> PathBuf {
    let runs =
        std::env::current_exe().ok().filter(|runs| runs.file_name().is_some_and(|name| name == "covey-lab"));
    runs.unwrap_or_else(|| covey.with_file_name("covey-lab"))
}

/// The covey binary that a lab's hosts run: `given`, else `$COVEY`, else the one beside the program that runs.
///
/// # Errors
/// When there is none.
pub fn binary(given: Option<&Path>) -> crate::Result<PathBuf> {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join("covey"));
    let path =
        given.map(Path::to_path_buf).or_else(|| std::env::var_os("COVEY").map(PathBuf::from)).or_else(beside);
    let path = path.unwrap_or_else(|| PathBuf::from("covey"));
    path.canonicalize().map_err(|why| {
        crate::Error::Missing(format!(
            "no covey binary at {}: {why}; build it with `make build`, or name one with --binary or COVEY",
            path.display()
        ))
    })
}
