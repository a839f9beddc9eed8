//! From the command to all tasks running and healthy: `covey run --wait`, through one node after another.

use std::time::Duration;

use test_vms::lab::Result;

use super::{Cell, HOSTS, SWARM};
use crate::figures::{Series, show};

/// How many tasks, the goal, and what a five-host Docker Swarm takes on such a machine.
const SIZES: [(usize, Duration, Duration); 2] = [
    (1, Duration::from_millis(370), Duration::from_millis(370)),
    (50, Duration::from_millis(1200), Duration::from_secs(3)),
];

pub(crate) fn run(count: usize) -> Result<bool> {
    let (cell, _) = Cell::up()?;
    // Every host has run it once, so every host has the image.
    cell.run("h1", "first", HOSTS as usize)?;
    cell.stop("h1", "first")?;
    let mut takes = SIZES.map(|(tasks, ..)| Series::new(format!("covey run --wait, {tasks} tasks")));
    for round in 0..count {
        for ((tasks, ..), series) in SIZES.iter().zip(&mut takes) {
            let through = format!("h{}", round % HOSTS as usize + 1);
            let name = format!("s{tasks}-{round}");
            series.push(cell.run(&through, &name, *tasks)?);
            cell.stop(&through, &name)?;
        }
    }
    let met = SIZES
        .into_iter()
        .zip(takes)
        .map(|((_, goal, swarm), series)| show(&[series, Series::given(SWARM, swarm)], goal));
    Ok(met.fold(true, |all, met| all & met))
}
