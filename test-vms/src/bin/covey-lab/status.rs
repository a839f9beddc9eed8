use serde_json::json;
use test_vms::lab::{Lab, Result};

pub(crate) fn status(lab: &Lab, json: bool) -> Result<()> {
    let state = lab.state()?;
    let mut hosts = Vec::new();
    for name in lab.hosts()? {
        let Some(host) = state.hosts.get(&name) else { continue };
        let agent = if host.power { lab.agent_pid(&name)? } else { None };
        hosts.push((name, host, agent));
    }
    if json {
        let hosts: Vec<_> = hosts
            .iter()
            .map(|(name, host, agent)| {
                json!({
                    "name": name, "addr": host.addr, "rack": host.rack, "power": host.power, "agent": agent,
                    "dir": lab.dir(name), "loss": state.loss.get(name), "rate": state.rate.get(name),
                })
            })
            .collect();
        say!(
            "{}",
            json!({ "name": lab.name(), "binary": state.binary, "limits": state.limits, "cuts": state.cuts, "hosts": hosts })
        );
        return Ok(());
    }
    say!("{:<6} {:<14} {:<5} {:<6} AGENT", "HOST", "ADDRESS", "RACK", "POWER");
    for (name, host, agent) in hosts {
        let power = if host.power { "on" } else { "off" };
        let agent = agent.map_or("-".to_owned(), |pid| format!("pid {pid}"));
        say!("{name:<6} {:<14} {:<5} {power:<6} {agent}", host.addr.to_string(), host.rack);
    }
    for cut in &state.cuts {
        say!("cut: nothing passes from {} to {}", cut.from.join(","), cut.to.join(","));
    }
    for (host, percent) in &state.loss {
        say!("loss: {percent} percent of what {host} sends and receives");
    }
    for (host, mbit) in &state.rate {
        say!("rate: {host} sends and receives at most {mbit} Mbit/s");
    }
    Ok(())
}
