//! The placer loses power. How long until somebody's submission through another node is accepted?

use std::time::{Duration, Instant};

use test_vms::Error;
use test_vms::lab::Result;

use super::{Cell, PATIENCE, swarm, swarm_series, timed};
use crate::figures::{Series, show};

const GOAL: Duration = Duration::from_millis(2500);
const SWARM_TAKES: Duration = Duration::from_secs(22);

pub(crate) fn run(count: usize) -> Result<bool> {
    let (cell, _) = Cell::up()?;
    let mut swarm = swarm();
    cell.run("h1", "first", 1)?;
    let mut series = Series::new("covey run".to_owned());
    let mut docker = swarm_series(swarm.as_ref(), SWARM_TAKES);
    let mut refused = 0;
    for round in 0..count {
        let placer = cell.placer("h1")?;
        let others = cell.others(&placer);
        let through = others[round % others.len()];
        let job = cell.job(&format!("p{round}"), 1)?;
        cell.crash(&placer)?;
        let begun = Instant::now();
        loop {
            let mut covey = cell.exec(through, "covey")?;
            match timed(covey.arg("run").arg(&job)) {
                Ok(_) => break,
                Err(why) if begun.elapsed() > PATIENCE => {
                    return Err(Error::Missing(format!("nothing is accepted a minute later: {why}")).into());
                }
                Err(_) => refused += 1,
            }
        }
        series.push(begun.elapsed());
        cell.boot(&placer, None)?;
        cell.whole()?;

        if let Some(swarm) = &mut swarm {
            let leader = swarm.leader()?;
            let others = swarm.others(&leader);
            let through = others[round % others.len()];
            docker.push(swarm.lose_leader(&leader, through, &format!("p{round}"))?);
            swarm.back(&leader)?;
        }
    }
    println!("  ({refused} refusals before; nobody need ask twice when there are none)");
    Ok(show(&[series, docker], GOAL))
}
