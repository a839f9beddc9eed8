//! The agent of a host: started as a service manager would, and found again by what it is, never by a remembered pid.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::host::Machine;
use super::space::spawn_detached;
use super::{Error, Result, emulator, wait};
use crate::error::{output_of, tail};

/// Where every host has its agent's socket: in its own /run.
pub(super) const SOCKET: &str = "/run/covey/agent.sock";
/// How long an agent may take until it answers, on a machine that is busy with others.
const PATIENCE: Duration = Duration::from_secs(60);

impl Machine {
    /// Starts the agent and returns when its program has begun.
    pub(super) fn start_agent(&self, args: &[String]) -> Result<()> {
        if self.agent_pid().is_some() {
            return Err(Error::AgentRuns(self.name.clone()));
        }
        let mut agent = self.service(&self.covey())?;
        agent.args(["agent", "--data"]).arg(self.data()).args(["--name", &self.name, "--socket", SOCKET]);
        agent.args(args);
        if self.is_vm {
            return self.start_in_guest(&self.covey(), &agent);
        }
        let path = self.log();
        let log = File::options().create(true).append(true).open(&path);
        let log = log.map_err(crate::Error::file("open", &path))?;
        let also = log.try_clone().map_err(crate::Error::file("open", &path))?;
        agent.stdin(Stdio::null()).stdout(log).stderr(also);
        spawn_detached(&mut agent).map_err(Error::step(format!("start the agent on host `{}`", self.name)))
    }

    /// Waits until the agent takes connections.
    pub(super) fn agent_answers(&self) -> Result<()> {
        // A host's /run is seen through any process that is in it.
        let what = format!("the agent on `{}` answers", self.name);
        if self.is_vm {
            return wait::until(what, emulator::PATIENCE, emulator::PAUSE, || match self.agent_pid() {
                Some(_) => self.guest_connects(SOCKET),
                None => Err(self.agent_ended()),
            });
        }
        wait::until(what, PATIENCE, wait::OFTEN, || {
            let Some(pid) = self.agent_pid() else { return Err(self.agent_ended()) };
            let socket = format!("/proc/{pid}/root{SOCKET}");
            Ok(UnixStream::connect(&socket).map(drop).map_err(|why| format!("{SOCKET}: {why}")))
        })
    }

    /// Why there is no agent.
    pub(super) fn agent_ended(&self) -> Error {
        let log = self.log();
        let said = tail(&fs::read_to_string(&log).unwrap_or_default(), 20);
        Error::AgentEnded { host: self.name.clone(), log, said }
    }

    /// The agent among the processes of the host; shims and commands are made of the same binary.
    pub(super) fn agent_pid(&self) -> Option<i32> {
        let data = self.data();
        let processes = self.command_lines().unwrap_or_default();
        let agent = processes.into_iter().find(|(_, line)| {
            let mut words = line.split(|byte| *byte == 0).skip(1);
            let agent = words.next() == Some(b"agent") && words.next() == Some(b"--data");
            agent && words.next() == Some(data.as_os_str().as_encoded_bytes())
        });
        agent.map(|(pid, _)| pid)
    }

    /// All processes of the host and what they run, numbered as its kernel does.
    pub(super) fn command_lines(&self) -> Result<Vec<(i32, Vec<u8>)>> {
        if self.is_vm {
            return self.guest_processes();
        }
        let line = |pid| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        Ok(self.cgroups.processes().into_iter().map(|pid| (pid, line(pid))).collect())
    }

    /// SIGKILL for the agent and nothing else; returns when it is gone.
    pub(super) fn kill_agent(&self) -> Result<()> {
        let pid = self.agent_pid().ok_or_else(|| Error::NoAgent(self.name.clone()))?;
        if self.is_vm {
            let mut shell = self.command("sh")?;
            shell.args(["-c", "kill -9 $0", &pid.to_string()]).stdin(Stdio::null());
            output_of(&mut shell).map_err(Error::step(format!("kill the agent on host `{}`", self.name)))?;
        } else {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        wait::until(format!("the agent on `{}` ends", self.name), wait::SHORT, wait::OFTEN, || {
            Ok(if self.agent_pid().is_none() { Ok(()) } else { Err(format!("process {pid} is there")) })
        })
    }
}
