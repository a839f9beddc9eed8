//! Two agents on one machine become a cell and part again, as somebody with a command line sees it. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod started;

use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;
use started::json;

struct Node<'a> {
    dir: &'a Path,
    name: &'static str,
    agent: Option<Child>,
}

impl<'a> Node<'a> {
    /// Starts its agent, and waits until it says that it answers.
    fn start(dir: &'a Path, name: &'static str, args: &[&str], token: &str) -> Self {
        let data = dir.join(name);
        let mut node = Node { dir, name, agent: None };
        let mut command = node.command(&["agent", "--listen", "127.0.0.1:0", "--name", name, "--data"]);
        command.arg(data).args(args).env("COVEY_TOKEN", token);
        node.agent = Some(started::agent(&mut command));
        node
    }

    /// A command that talks to its agent.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = started::command(self.dir, args);
        command.env("COVEY_SOCKET", self.dir.join(format!("{}.sock", self.name)));
        command
    }

    fn covey(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        json(&self.covey(args))
    }

    /// Its address, once all of `nodes` are alive for it and one of them places.
    fn together(&self, nodes: &[&str]) -> String {
        loop {
            let list = self.json(&["nodes", "--json"]);
            let items = list["items"].as_array().cloned().unwrap_or_default();
            let alive = |name: &&str| items.iter().any(|n| n["name"] == **name && n["state"] == "alive");
            let placed = items.iter().any(|node| node["placer"] == true);
            if items.len() == nodes.len() && nodes.iter().all(alive) && placed {
                let me = items.iter().find(|node| node["name"] == self.name).unwrap();
                return me["addr"].as_str().unwrap().to_owned();
            }
            // Nothing announces it to a command line.
            sleep(Duration::from_millis(50));
        }
    }

    fn end(mut self, signal: Signal) {
        let mut agent = self.agent.take().unwrap();
        started::kill(&agent, signal);
        agent.wait().unwrap();
    }
}

/// A test that fails leaves no agents.
impl Drop for Node<'_> {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}

fn text(output: &Output) -> String {
    let out = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    format!("{:?}: {}", output.status.code(), String::from_utf8(out).unwrap())
}

#[test]
fn two_nodes_meet_a_user_comes_in_and_one_node_leaves() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let n1 = Node::start(dir, "n1", &["--cell", "lab"], "");
    let first = n1.together(&["n1"]);
    let token = |args: &[&str]| String::from_utf8(n1.covey(args).stdout).unwrap().trim().to_owned();
    let for_nodes = token(&["token"]);
    let n2 = Node::start(dir, "n2", &["--join", &first], &for_nodes);
    let second = n2.together(&["n1", "n2"]);
    n1.together(&["n1", "n2"]);

    // Ann logs in at one node, and then any will do.
    let for_ann = token(&["token", "--role", "user", "--name", "ann"]);
    let ann = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_covey"));
        command.args(args).stdin(Stdio::null()).env("XDG_CONFIG_HOME", dir.join("ann"));
        command.output().unwrap()
    };
    let login = ann(&["login", "--node", &second, "--token", &for_ann]);
    assert_eq!(
        text(&login),
        "Some(0): logged in to the cell lab as ann (user); context lab is used from now on\n"
    );
    assert_eq!(json(&ann(&["nodes", "--json"]))["items"].as_array().unwrap().len(), 2);
    let denied = text(&ann(&["label", "n1", "rack=r1"]));
    assert!(denied.contains("`ann` is a user: only admins change the cell"), "{denied}");
    let elsewhere = text(&ann(&["leave"]));
    assert!(elsewhere.contains("a node leaves its cell by its own command"), "{elsewhere}");
    let again = text(&ann(&["login", "--node", &second, "--token", &for_ann, "--context", "two"]));
    assert!(again.contains("the token is used up"), "{again}");

    // Refusals that say what would do.
    let alive = text(&n1.covey(&["node", "rm", "n2"]));
    assert!(alive.contains("node n2 is not gone") && alive.contains("covey leave"), "{alive}");
    let unknown = text(&n1.covey(&["label", "n3", "rack=r1"]));
    assert!(unknown.contains("there is no node `n3`") && unknown.contains("did you mean n"), "{unknown}");

    // The node that Ann knows best dies: the other one answers.
    n2.end(Signal::SIGKILL);
    let jobs = ann(&["jobs", "--json"]);
    assert!(jobs.status.success(), "{}", text(&jobs));

    // It comes back, where it is told to join being of no interest any more, and leaves for good.
    let n2 = Node::start(dir, "n2", &["--join", "127.0.0.1:9"], "used up");
    n2.together(&["n1", "n2"]);
    n1.together(&["n1", "n2"]);
    let doctor = n1.json(&["doctor", "--json"]);
    assert_eq!(
        (&doctor["missing"], &doctor["pairs"].as_array().unwrap().len()),
        (&serde_json::json!([]), &2)
    );
    assert!(doctor["pairs"].as_array().unwrap().iter().all(|pair| pair["rtt_us"].is_u64()), "{doctor}");
    let left = text(&n2.covey(&["leave"]));
    assert!(left.contains("n2 has left the cell"), "{left}");
    let mut n2 = n2;
    assert!(n2.agent.take().unwrap().wait().unwrap().success());
    assert!(!dir.join("n2/identity.json").exists() && dir.join("n2/content").exists());
    n1.together(&["n1"]);
    let alone = text(&n1.covey(&["leave"]));
    assert!(alone.contains("n1 is the only node of its cell"), "{alone}");
    n1.end(Signal::SIGTERM);
}
