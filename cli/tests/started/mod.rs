//! Agents that a test starts, and commands to them.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub(crate) mod node;

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use serde_json::Value;

/// A command to the agent whose socket is `dir/agent.sock`, of somebody who has logged in nowhere.
pub(crate) fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_covey"));
    command.args(args).env("COVEY_SOCKET", dir.join("agent.sock")).stdin(Stdio::null());
    command.env("XDG_CONFIG_HOME", dir.join("config"));
    command
}

/// Starts an agent, and waits until it says that it answers.
pub(crate) fn agent(command: &mut Command) -> Child {
    let mut agent = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(agent.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut said = Vec::new();
    let answers =
        lines.by_ref().inspect(|line| said.push(line.clone())).any(|line| line.contains("answers on"));
    assert!(answers, "{command:?} ended before it answered: {said:?}");
    // Nobody reads on, and nobody may block.
    thread::spawn(move || lines.for_each(drop));
    agent
}

/// Starts `covey dev` in `dir`, and waits for the document that says that it is ready.
pub(crate) fn dev(dir: &Path) -> (Child, Value) {
    let mut command = command(dir, &["dev", "--json"]);
    let command = command.env("TMPDIR", dir).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut dev = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(dev.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let mut errors = BufReader::new(dev.stderr.take().unwrap());
    let ready = serde_json::from_str(&line).unwrap_or_else(|why| {
        let mut said = String::new();
        let _ = errors.read_to_string(&mut said);
        panic!("{why}: {line}{said}")
    });
    thread::spawn(move || errors.lines().for_each(drop));
    (dev, ready)
}

pub(crate) fn kill(agent: &Child, signal: Signal) {
    signal::kill(Pid::from_raw(i32::try_from(agent.id()).unwrap()), signal).unwrap();
}

pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|why| panic!("{why}: {output:?}"))
}
