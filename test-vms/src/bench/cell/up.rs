//! `covey-lab up --hosts 5`: what somebody who tries a cell waits for.

use std::time::Duration;

use test_vms::lab::Result;

use super::Cell;
use crate::figures::{Series, millis, show};

const ALIVE: Duration = Duration::from_secs(2);
const SETTLED: Duration = Duration::from_secs(10);

pub(crate) fn run(count: usize) -> Result<bool> {
    let mut alive = Series::new("all alive, a placer leads".to_owned());
    let mut settled = Series::new("voters settled".to_owned());
    let mut hosts = Series::new("hosts alone".to_owned());
    for _ in 0..count {
        let (_cell, times) = Cell::up()?;
        hosts.push(times.hosts);
        alive.push(times.hosts + times.alive);
        settled.push(times.hosts + times.settled);
    }
    println!("  (making the hosts is included: {})", millis(hosts.median()));
    Ok(show(&[alive], ALIVE) & show(&[settled], SETTLED))
}
