//! What of a new version is given to running tasks in place.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use placement::{ledger::Command, resources::Resources, view::OpenAmend};
use serde_json::json;
use world::{World, indexes, job};

/// REQUIREMENTS B35, D04.
#[test]
fn other_limits_are_given_in_place_and_all_at_once() {
    let mut world = World::new(&[("n1", 4, 4), ("n2", 4, 4)]);
    let keys = |cpu: &str, memory: &str| json!({"count": 2, "task.cpu": cpu, "task.memory": memory});
    world.submit("me", "web", keys("1", "1GiB")).settle();
    world.submit("me", "web", json!({"count": 2, "task.cpu": "1", "task.memory": "1GiB", "priority": 160}));
    let plan = world.plan();
    assert_eq!(indexes(plan.amends.iter().map(|a| a.key)), [0, 1]);
    assert!(plan.amends.iter().all(|a| a.more == Resources::default() && a.spec.priority == 160));
    world.obey(&plan);
    world.submit("me", "web", keys("2", "512MiB"));
    let plan = world.plan();
    assert!(plan.stops.is_empty() && plan.offers.is_empty());
    assert_eq!(
        plan.amends[0].more.0.clone().into_iter().collect::<Vec<_>>(),
        [("cpu_milli".to_string(), 1000)]
    );
    let at = world.at("me", "web");
    world.settle();
    assert_eq!(world.at("me", "web"), at);

    // What was told and is not answered is not told again, and what it asks for is not given to others.
    world.submit("me", "web", keys("3", "512MiB"));
    for amend in world.plan().amends {
        let open = OpenAmend {
            generation: amend.generation,
            version: amend.version,
            band: amend.spec.band,
            more: amend.more,
        };
        world.node(amend.node.0).amended.insert(amend.key, open);
    }
    world.submit("me", "more", json!({"count": 2, "task.cpu": "1500m"}));
    let plan = world.plan();
    assert!(plan.amends.is_empty() && plan.offers.is_empty(), "{plan:?}");
    // What cannot be changed while it runs is replaced like anything else: one at a time.
    world.entry(Command::Stop { job: job("me", "more"), index: None });
    for node in world.view.nodes.values_mut() {
        for (key, amend) in std::mem::take(&mut node.amended) {
            node.rigid.insert(key, amend.version);
        }
    }
    let plan = world.plan();
    assert_eq!(indexes(plan.stops.iter().map(|s| s.key)), [0]);
}

#[test]
fn what_does_not_fit_where_it_is_moves_and_what_fits_nowhere_stays() {
    let mut world = World::new(&[("n1", 4, 4), ("n2", 8, 4)]);
    world.submit("me", "full", json!({"require": ["node=n1"], "task.cpu": "2"})).settle();
    world.submit("me", "web", json!({"require": ["node in (n1,n2)"], "task.cpu": "1"}));
    world.run(1, "me", "web", 0);
    world.submit("me", "web", json!({"require": ["node in (n1,n2)"], "task.cpu": "20"}));
    let plan = world.plan();
    assert!(plan.is_empty());
    let text = plan.stuck[&world.key("me", "web", 0)][0].text();
    assert_eq!(text, "cpu: wants 20 cores, at most 8 of 8 cores are free on n1 and n2");
    world.submit("me", "web", json!({"require": ["node in (n1,n2)"], "task.cpu": "3"}));
    world.settle();
    assert_eq!(world.at("me", "web"), [(0, 2)]);
}
