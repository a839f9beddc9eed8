//! `make bench`: what covey takes, beside what others take, measured alternately in the same run.

mod agent_kills;
mod cycles;
mod figures;
mod memory;
mod peers;
mod start;
mod submit;

use std::process::ExitCode;

use test_vms::Result;

/// A figure's name, what it shows, how often it is done if nobody says, and what does it: true when its goal is met.
type Bench = (&'static str, &'static str, usize, fn(usize) -> Result<bool>);

const BENCHES: [Bench; 5] = [
    ("start", "agent start to first task running", 20, start::run),
    ("submit", "submit to running, one task, image present", 50, submit::run),
    ("agent-kills", "kills and restarts of the agent under 20 running tasks", 1000, agent_kills::run),
    ("cycles", "start/stop cycles, and what they leave over", 1000, cycles::run),
    ("memory", "VmRSS of the agent, idle and with 50 tasks", 1, memory::run),
];

fn main() -> ExitCode {
    let (names, count) = match arguments(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(why) => {
            let known: Vec<_> = BENCHES.iter().map(|bench| bench.0).collect();
            eprintln!("{why}\nusage: covey-bench [{}]… [--count N]", known.join("|"));
            return ExitCode::from(2);
        }
    };
    let mut missed = Vec::new();
    for (name, what, usual, run) in BENCHES {
        if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
            continue;
        }
        let count = count.unwrap_or(usual);
        println!("\n== {name}: {what} (× {count})");
        match run(count) {
            Ok(true) => {}
            Ok(false) => missed.push(name),
            Err(why) => {
                println!("  not measured: {why}");
                missed.push(name);
            }
        }
    }
    if missed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("\nmissed or not measured: {}", missed.join(", "));
    ExitCode::FAILURE
}

fn arguments(
    args: impl Iterator<Item = String>,
) -> std::result::Result<(Vec<String>, Option<usize>), String> {
    let mut names = Vec::new();
    let mut count = None;
    let mut args = args;
    while let Some(arg) = args.next() {
        if arg == "--count" {
            let given = args.next().and_then(|value| value.parse().ok()).filter(|count| *count > 0);
            count = Some(given.ok_or("--count needs a number from 1")?);
        } else if BENCHES.iter().any(|bench| bench.0 == arg) {
            names.push(arg);
        } else {
            return Err(format!("there is no figure {arg:?}"));
        }
    }
    Ok((names, count))
}
