//! What is wrong with a lab's network, as the programs are told that make it so. The rules are those of the bridge, by its
//! ports: whatever passes from one host to another is dropped, whichever protocol it is.

use super::state::State;

/// The whole rule set for nft(8), which sets it in one transaction.
pub(super) fn rules(state: &State) -> String {
    let mut rules = String::from(
        "flush ruleset\ntable bridge faults {\n  chain forward {\n    type filter hook forward priority 0; policy accept;\n",
    );
    for cut in &state.cuts {
        rules.push_str(&format!("    iifname {} oifname {} drop\n", set(&cut.from), set(&cut.to)));
    }
    for (host, percent) in &state.loss {
        // In hundredths of a percent; the kernel has no netem everywhere, but always this.
        let share = (percent * 100.0).round() as u32;
        let chance =
            if share < 10_000 { format!("numgen random mod 10000 < {share} ") } else { String::new() };
        for way in ["iifname", "oifname"] {
            rules.push_str(&format!("    {way} \"{host}\" {chance}drop\n"));
        }
    }
    rules.push_str("  }\n}\n");
    rules
}

fn set(hosts: &[String]) -> String {
    let quoted: Vec<String> = hosts.iter().map(|host| format!("\"{host}\"")).collect();
    format!("{{ {} }}", quoted.join(", "))
}

/// The arguments for tc(8) after the device: a token bucket, or the kernel's own queue.
pub(super) fn shaping(mbit: Option<u32>) -> Vec<String> {
    let Some(mbit) = mbit else { return vec!["noqueue".to_owned()] };
    // What arrives in 10 ms, the longest tick of a kernel's clock, and never less than one large segment.
    let burst = (u64::from(mbit) * 1_000_000 / 8 / 100).max(64 * 1024);
    ["tbf", "rate", &format!("{mbit}mbit"), "burst", &burst.to_string(), "latency", "50ms"]
        .map(str::to_owned)
        .to_vec()
}
