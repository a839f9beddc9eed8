//! From the command to all tasks running and healthy: `covey run --wait`, through one node after another.

use std::time::Duration;

use test_vms::lab::Result;

use super::{Cell, HOSTS, swarm, swarm_series};
use crate::figures::{Series, show};

/// How many tasks, the goal, and what a five-host Docker Swarm takes on such a machine.
const SIZES: [(usize, Duration, Duration); 2] = [
    (1, Duration::from_millis(370), Duration::from_millis(370)),
    (50, Duration::from_millis(1200), Duration::from_secs(3)),
];

pub(crate) fn run(count: usize) -> Result<bool> {
    let (cell, _) = Cell::up()?;
    let swarm = swarm();
    // Every host has run it once, so every host has the image.
    cell.run("h1", "first", HOSTS as usize)?;
    cell.stop("h1", "first")?;
    let mut takes = SIZES.map(|(tasks, _, known)| {
        [Series::new(format!("covey run --wait, {tasks}")), swarm_series(swarm.as_ref(), known)]
    });
    for round in 0..count {
        for ((tasks, ..), [covey, docker]) in SIZES.iter().zip(&mut takes) {
            let through = format!("h{}", round % HOSTS as usize + 1);
            let name = format!("s{tasks}-{round}");
            covey.push(cell.run(&through, &name, *tasks)?);
            cell.stop(&through, &name)?;
            if let Some(swarm) = &swarm {
                docker.push(swarm.run(&through, &name, *tasks)?);
                swarm.remove(&through, &name)?;
            }
        }
    }
    println!("  (covey's are also found healthy)");
    Ok(SIZES.iter().zip(&takes).fold(true, |met, ((_, goal, _), series)| met & show(series, *goal)))
}
