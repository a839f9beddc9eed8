//! `make bench`: what covey takes, beside what others take, measured alternately in the same run.

mod agent_kills;
mod antagonists;
mod arrivals;
mod band;
mod beside;
mod cell;
mod cores;
mod cycles;
mod dice;
mod estimate;
mod figures;
mod hog;
mod idle;
mod jump;
mod load;
mod logs;
mod many;
mod members;
mod memory;
mod oom;
mod pairs;
mod peers;
mod service;
mod start;
mod start_cycle;
mod starts;
mod submit;
mod upgrades;
mod usage;
mod valley;
mod watched;

use std::process::ExitCode;

use test_vms::lab::Result;

/// A figure's name, what it shows, how often it is done if nobody says, and what does it: true when its goal is met.
type Bench = (&'static str, &'static str, usize, fn(usize) -> Result<bool>);

const BENCHES: [Bench; 26] = [
    ("start", "agent start to first task running", 20, |count| Ok(start::run(count)?)),
    ("submit", "submit to running, one task, image present", 50, |count| Ok(submit::run(count)?)),
    ("agent-kills", "kills and restarts of the agent under 20 running tasks", 1000, |count| {
        Ok(agent_kills::run(count)?)
    }),
    ("cycles", "start/stop cycles, and what they leave over", 1000, |count| Ok(cycles::run(count)?)),
    ("start-cycle", "a container's start, end and removal, below the agent", 60, |count| {
        Ok(start_cycle::run(count)?)
    }),
    ("starts", "starts of sleeping containers, two at a time", 200, |count| Ok(starts::run(count)?)),
    ("shim-memory", "memory of a waiting shim", 50, |count| Ok(starts::memory(count)?)),
    ("memory", "VmRSS of the agent, idle and with 50 tasks", 1, |count| Ok(memory::run(count)?)),
    ("many", "one node with so many tasks, in a quiet minute", 500, |count| Ok(many::run(count)?)),
    ("estimate", "what it costs to measure and estimate so many tasks that do a little", 100, |count| {
        Ok(estimate::run(count)?)
    }),
    ("idle", "so many tasks in a quiet minute, beside docker's", 50, |count| Ok(idle::run(count)?)),
    ("logs", "a task that writes so many GiB, far more than its logs hold", 4, |count| Ok(logs::run(count)?)),
    ("upgrades", "upgrades of the agent under 500 requests a second", 100, |count| Ok(upgrades::run(count)?)),
    ("beside", "a service that fills its node on paper, alone and beside as much batch work", 10, |count| {
        Ok(beside::run(count)?)
    }),
    ("antagonists", "a service beside unkind work of weaker bands on its core", 5, |count| {
        Ok(antagonists::run(count)?)
    }),
    ("hog", "a free task that takes all memory, beside a service at its limit", 100, |count| {
        Ok(hog::run(count)?)
    }),
    ("jump", "a service takes all that it may within a second, from batch work that had it", 3, |count| {
        Ok(jump::run(count)?)
    }),
    ("valley", "batch work beside a service whose load comes and goes, so many times", 2, |count| {
        Ok(valley::run(count)?)
    }),
    ("cell-up", "five hosts and one cell of them, from nothing", 5, cell::up::run),
    ("cell-submit", "submit to all running and healthy, five hosts, image on all", 10, cell::submit::run),
    ("cell-crash", "a host of five loses power, to its tasks running elsewhere", 5, cell::crash::run),
    ("cell-placer", "the placer loses power, to the next submission accepted", 5, cell::placer::run),
    ("placer-kills", "kills of the placer while clients on all nodes submit", 200, cell::kills::run),
    (
        "reclaimed",
        "work in room that limits would leave empty, five hosts, so many minutes",
        4,
        cell::reclaimed::run,
    ),
    ("death-50", "a death among 50 members, to all others knowing", 10, members::death),
    ("swim", "what membership costs each node", 1, members::steady),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, program, dir] = &args[..]
        && flag == peers::cycles::FLAG
    {
        return match peers::cycles::serve(program, std::path::Path::new(dir)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("{program}: {why}");
                ExitCode::FAILURE
            }
        };
    }
    if let [flag, gib] = &args[..]
        && flag == logs::FLAG
    {
        return match logs::write(gib) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("cannot write: {why}");
                ExitCode::FAILURE
            }
        };
    }
    if let [flag, at, seconds] = &args[..]
        && flag == cell::reclaimed::FLAG
    {
        return match cell::reclaimed::ask_for(at, seconds) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("{why}");
                ExitCode::FAILURE
            }
        };
    }
    let (names, count) = match arguments(args.into_iter()) {
        Ok(arguments) => arguments,
        Err(why) => {
            let known: Vec<_> = BENCHES.iter().map(|bench| bench.0).collect();
            eprintln!("{why}\nusage: covey-bench [{}]… [--count N]", known.join("|"));
            return ExitCode::from(2);
        }
    };
    if let Some(code) = watched::ended() {
        return code;
    }
    let mut missed = Vec::new();
    for (name, what, usual, run) in BENCHES {
        if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
            continue;
        }
        let count = count.unwrap_or(usual);
        println!("\n== {name}: {what} (× {count})");
        // Whoever reads the figures should know what else the machine did.
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        println!("  (load {} on {cpus} CPUs before)", load.split(' ').next().unwrap_or("?"));
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
