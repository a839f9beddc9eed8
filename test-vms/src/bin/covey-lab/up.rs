use std::time::{Duration, Instant};

use test_vms::Error;
use test_vms::lab::{self, Lab, Limits, Plan, Result};

use crate::args::Up;

pub(crate) fn up(name: &str, up: Up) -> Result<()> {
    let new = if up.vm { Plan::of_vms } else { Plan::new };
    let plan = new(name, up.hosts, lab::binary(up.binary.as_deref())?);
    let limits = Limits {
        cpu_milli: up.cpu.unwrap_or(plan.limits.cpu_milli),
        memory_bytes: up.memory.unwrap_or(plan.limits.memory_bytes),
        disk_bytes: up.disk,
    };
    let config = up.config.map(|path| path.canonicalize().map_err(Error::file("find", &path))).transpose()?;
    let plan = Plan { racks: up.racks, limits, config, tell: crate::tell, ..plan };
    let begun = Instant::now();
    let lab = Lab::raise(&plan)?;
    let hosts = begun.elapsed();
    say!("{} hosts in {} ({})", up.hosts, seconds(hosts), lab.hosts()?.join(" "));
    if up.bare {
        return Ok(());
    }
    let times = lab.form()?;
    say!("all alive everywhere, and a placer leads, after {}", seconds(hosts + times.alive));
    say!("voters settled after {}", seconds(hosts + times.settled));
    say!("try: covey-lab{} exec h1 -- covey nodes", option(name));
    Ok(())
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// How to name the lab to another command.
pub(crate) fn option(name: &str) -> String {
    if name == "lab" { String::new() } else { format!(" --name {name}") }
}
