//! Membership alone, without agents: gossip's own figures, from a program of that crate.

use std::process::Command;
use std::time::Duration;

use test_vms::Error;
use test_vms::lab::Result;

use crate::figures::{Series, show, show_at_most};

const DEATH: Duration = Duration::from_secs(4);
const SERF: Duration = Duration::from_millis(9400);
const BYTES: f64 = 300.0;
const MEMBERS: &str = "50";
const MANY: &str = "1000";

/// Real endpoints in one process: members fall silent one after another.
pub(crate) fn death(count: usize) -> Result<bool> {
    let mut series = Series::new(format!("covey, {MEMBERS} in one process"));
    for seconds in figures(&["death", MEMBERS, &count.to_string()])? {
        series.push(Duration::from_secs_f64(seconds));
    }
    Ok(show(&[series, Series::given("Serf", SERF)], DEATH))
}

/// Bytes a second when nothing happens.
pub(crate) fn steady(_: usize) -> Result<bool> {
    let mut met = true;
    for members in [MEMBERS, MANY] {
        let [payload] = figures(&["simulated", members])?[..] else { return Err(nonsense()) };
        met &= show_at_most(&format!("payload, simulated {members}"), payload, BYTES, "B/s");
    }
    let [wire] = figures(&["wire", MEMBERS])?[..] else { return Err(nonsense()) };
    println!("  {:28} {wire:>7.1} B/s   with QUIC, UDP and handshakes", format!("on the wire, {MEMBERS}"));
    Ok(met)
}

/// The numbers that gossip's program prints, one a line, in a network of its own.
fn figures(args: &[&str]) -> Result<Vec<f64>> {
    let beside = std::env::current_exe().ok().and_then(|me| Some(me.parent()?.join("examples/figures")));
    let program = beside.filter(|path| path.exists()).ok_or_else(|| {
        Error::Missing(
            "gossip's figures are not built: cargo build --release -p gossip --example figures".to_owned(),
        )
    })?;
    let script = r#"ip link set lo up && exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--net", "/bin/sh", "-c", script, "sh"]).arg(program).args(args);
    let said = crate::peers::output(&mut command)?;
    Ok(said.lines().filter_map(|line| line.trim().parse().ok()).collect())
}

fn nonsense() -> test_vms::lab::Error {
    Error::Missing("gossip's program printed something else than a number".to_owned()).into()
}
