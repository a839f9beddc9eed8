//! One container from its start over its end to its removal, below the agent: what the runtime itself takes.

use std::thread::sleep;
use std::time::Duration;

use test_vms::{Error, Result};

use crate::figures::{Series, show_against};
use crate::peers::Starter;

const IDLE: Duration = Duration::from_millis(100);
/// Of crun's.
const BACK_TO_BACK: f64 = 0.9;
const AFTER_IDLE: f64 = 0.6;
const CPU: f64 = 1.0;
/// ext4 without a journal looks, for each file that is made, through those that were deleted within the last 35 seconds: what
/// others have deleted, the making of a bundle is not to be measured by.
const SETTLED: Duration = Duration::from_secs(40);
/// Cycles that nobody counts.
const WARM_UP: usize = 5;

pub(crate) fn run(count: usize) -> Result<bool> {
    let scratch = tempfile::tempdir()
        .map_err(|why| Error::Missing(format!("cannot make a temporary directory: {why}")))?;
    let mut starters = vec![Starter::covey(scratch.path())?];
    for program in ["crun", "runc"] {
        match Starter::peer(program, scratch.path()) {
            Ok(peer) => starters.push(peer),
            Err(why) => println!("  {program}: not measured here ({why})"),
        }
    }
    println!("  (/bin/true, limits, a network namespace, no user namespace, no filter; the others' `run`)");
    sleep(SETTLED);
    let mut met = true;
    for (when, gap, goal) in
        [("back to back", Duration::ZERO, BACK_TO_BACK), ("after 100 ms idle", IDLE, AFTER_IDLE)]
    {
        let named = |what: &str| {
            starters.iter().map(|s| Series::new(format!("{}{what}", s.name))).collect::<Vec<_>>()
        };
        let (mut wall, mut cpu) = (named(""), named(", CPU"));
        for round in 0..WARM_UP + count {
            // Forth and back: what one leaves to the kernel to clean up falls on whoever comes next.
            let order = (0..starters.len()).map(|n| if round % 2 == 0 { n } else { starters.len() - 1 - n });
            for index in order.collect::<Vec<_>>() {
                sleep(gap);
                let (took, used) = starters[index].cycle()?;
                if round >= WARM_UP {
                    wall[index].push(took);
                    cpu[index].push(used);
                }
            }
        }
        println!("  {when}:");
        met &= show_against(&wall, goal) & show_against(&cpu, CPU);
    }
    Ok(met)
}
