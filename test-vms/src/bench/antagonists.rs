//! A service at its load, and at all that it can do, alone and beside work of weaker bands that is as unkind as its limits let
//! it be, on the same core.

use std::time::Duration;

use test_vms::Result;
use test_vms::node::Node;

use crate::arrivals::Asked;
use crate::figures::{show_holds, show_none_failed};
use crate::pairs::{Pairs, Window, order};
use crate::service::{Service, address, job, restarts, room_on_paper, running};
use crate::{band, cores};

/// Of what it can do alone.
const THROUGHPUT: f64 = 0.95;
/// Of its p99 alone.
const P99: f64 = 1.5;
const WINDOW: Duration = Duration::from_secs(4);
const SETTLES: Duration = Duration::from_millis(300);

/// What one is, and what it is asked for; the number is the service's port.
type Kind = (&'static str, fn(u16) -> String);

const KINDS: [Kind; 4] = [
    ("CPU burner", |_| "/burn?cpu=4&seconds=86400".to_owned()),
    ("direct-IO writer", |_| "/write?mib=256&seconds=86400".to_owned()),
    ("fork bomb", |_| "/fork".to_owned()),
    ("packet blaster", |port| format!("/send?port={port}&seconds=86400")),
];

pub(crate) fn run(count: usize) -> Result<bool> {
    let mut met = true;
    for (name, asks) in KINDS {
        let node = Node::start_as(room_on_paper())?;
        cores::part(&node)?;
        let mut service = Service::start(&node, "64MiB")?;
        for band in ["batch", "free"] {
            node.run(band, &job(band, band, 1, "500m", "128MiB"))?;
            cores::pin_tasks(&node)?;
            for task in running(&node, band)? {
                Asked { at: address(&task)?, path: asks(service.at().port()) }.once()?;
            }
        }
        println!("  {name}, one in batch and one in free, beside {:.0} requests a second", service.a_second);
        met &= beside(&node, &mut service, count)?;
        let restarted = restarts(&node, "service")?;
        met &= show_holds("the service was never restarted", restarted == 0, "");
    }
    Ok(met)
}

fn beside(node: &Node, service: &mut Service, count: usize) -> Result<bool> {
    let used = || -> Result<Duration> { Ok(band::cpu(node, "batch")? + band::cpu(node, "free")?) };
    let (before, mut turns) = (used()?, Duration::ZERO);
    let (mut p99, mut throughput, mut failed) = (Pairs::default(), Pairs::default(), Vec::new());
    for round in 0..count {
        p99.begin();
        throughput.begin();
        for window in order(round) {
            for band in ["batch", "free"] {
                band::go_on(node, band, window == Window::Beside)?;
            }
            std::thread::sleep(SETTLES);
            let answered = service.load(WINDOW)?;
            p99.note(window, answered.p99().as_secs_f64() * 1e3);
            let all = service.all_it_can(WINDOW)?;
            throughput.note(window, all.a_second);
            failed.extend(answered.failed.into_iter().chain(all.failed));
            if window == Window::Beside {
                turns += WINDOW * 2;
            }
        }
    }
    let got = (used()? - before).as_secs_f64() * 100.0 / turns.as_secs_f64();
    println!(
        "  they had {got:.0} % of the core meanwhile; {} restarts",
        restarts(node, "batch")? + restarts(node, "free")?
    );
    Ok(p99.show_at_most("p99", P99, "ms")
        & throughput.show_at_least("throughput, flat out", THROUGHPUT, "a second")
        & show_none_failed(&failed))
}
