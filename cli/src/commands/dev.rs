//! A cell of one node that goes away with the terminal.

use std::{net::Ipv4Addr, path::PathBuf, time::Instant};

use ::agent::{
    config::{Config, SOCKET},
    daemon::Ready,
};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};
use serde_json::json;

use super::agent;
use crate::{
    failure::Failure,
    output::{Out, shown},
};

pub(super) fn dev(socket: Option<PathBuf>, out: &mut Out) -> Result<(), Failure> {
    let begin = Instant::now();
    let temp = tempfile::Builder::new()
        .prefix("covey-dev-")
        .tempdir()
        .map_err(|source| Failure::System { what: "make a temporary directory", source })?;
    agent::log_to_stderr("error");
    end_with_the_terminal();
    let config = Config {
        data: temp.path().join("data"),
        socket: socket.unwrap_or_else(|| PathBuf::from(SOCKET)),
        name: None,
        cell: Some("dev".into()),
        // Nobody else is to find it.
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        advertise: None,
        join: Vec::new(),
        token: None,
        labels: Default::default(),
        capacity: Default::default(),
        exe: agent::exe()?,
        subnet: None,
        registries: Default::default(),
        collect: Default::default(),
        estimate: agent::usual_estimate(),
        dev: true,
    };
    let data = config.data.display().to_string();
    let json = out.json();
    let mut said = Ok(());
    let ended = agent::run(config, |ready| {
        let took = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        said = if json {
            out.document(&json!({
                "cell": ready.cell, "node": ready.node.name, "socket": ready.socket, "data": data,
                "pid": std::process::id(), "started_in_ms": took, "warnings": ready.warnings,
            }))
        } else {
            out.text(&greeting(&ready, &data, took))
        };
    });
    let removed =
        temp.close().map_err(|source| Failure::System { what: "remove the cell's directory", source });
    ended.and(removed)?;
    if !json && said.is_ok() {
        said = out.text("the containers, the agent and the cell are gone");
    }
    said
}

/// A closed terminal is a Ctrl-C: nothing may be left behind.
fn end_with_the_terminal() {
    extern "C" fn terminate(_: i32) {
        // `raise` may be called in a handler; the agent listens for SIGTERM.
        let _ = raise(Signal::SIGTERM);
    }
    let action = SigAction::new(SigHandler::Handler(terminate), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler only calls `raise`, which is async-signal-safe. Without it SIGHUP ends the process as ever.
    let _ = unsafe { sigaction(Signal::SIGHUP, &action) };
}

fn greeting(ready: &Ready, data: &str, took: u64) -> String {
    let socket = ready.socket.display().to_string();
    let mut text = format!(
        "a cell of one node, {}, is ready after {took} ms\n  socket  {socket}\n  data    {data}, removed at the end\n  \
         image   hello:1, an HTTP server to try\n",
        shown(&ready.node.name)
    );
    for warning in &ready.warnings {
        text.push_str(&format!("  note    {}\n", shown(warning)));
    }
    text.push_str("\nTry in another terminal:\n");
    if socket != SOCKET {
        text.push_str(&format!("  export COVEY_SOCKET={socket}\n"));
    }
    text.push_str(
        "  printf 'name = \"web\"\\ntask = { image = \"hello:1\", ports = [\"http\"] }\\n' | covey run - --wait\n  \
         covey tasks\n  covey logs -f web/0\n  covey scale web 3\n  covey why web\n  covey --help\n\n\
         Ctrl-C ends the containers, the agent and the cell.\n",
    );
    text
}
