//! Volumes: an index is where its data is.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use placement::{ids::NodeId, ledger::Command, node::Held, view::Standing};
use serde_json::json;
use world::{World, job, pending, three};

/// Index 0 of `db`, whose volume `data` is where it was put.
fn with_volume(world: &mut World, holders: &[(u64, u64)]) {
    world.submit("me", "db", json!({"task.cpu": 2, "task.volumes": [{"name": "data", "path": "/data"}]}));
    for (node, generation) in holders {
        hold(world, *node, "data", *generation);
    }
}

fn hold(world: &mut World, node: u64, name: &str, generation: u64) {
    let held = Held { generation: world.generation(generation), names: [name.to_string()].into(), bytes: 0 };
    let info = world.node(node).info.as_mut().unwrap();
    info.volumes.entry("me/db".into()).or_default().insert(0, held);
}

#[test]
fn an_index_goes_back_to_its_volume() {
    let mut world = three();
    with_volume(&mut world, &[(1, 3), (2, 5), (3, 4)]);
    // Other data than it asks for, of another index, of another owner: not its own.
    hold(&mut world, 1, "other", 9);
    world.submit("you", "db", json!({"task.volumes": [{"name": "data", "path": "/data"}]}));
    let plan = world.plan();
    let mine = plan.offers.iter().find(|o| o.spec.job == job("me", "db")).unwrap();
    assert_eq!((mine.node.0, mine.remark.as_deref()), (2, None));
    world.settle();
    // A new version too, though others are as good.
    world
        .submit("me", "db", json!({"task.cpu": 3, "task.volumes": [{"name": "data", "path": "/data"}]}))
        .settle();
    assert_eq!(world.at("me", "db"), [(0, 2)]);
}

#[test]
fn it_waits_for_its_volumes_node_as_long_as_there_is_hope() {
    let mut world = three();
    with_volume(&mut world, &[(2, 5)]);
    world.submit("you", "big", json!({"require": ["node=n2"], "task.cpu": 3}));
    world.run(2, "you", "big", 0);
    let key = world.key("me", "db", 0);
    let waits = |world: &World| pending(&world.plan(), key);
    let at_home = "the data of its volume data is on n2".to_string();
    let full = "cpu: wants 2 cores, 1 core of 4 cores are free on n2".to_string();
    assert_eq!(waits(&world), [full, at_home.clone()]);
    assert_eq!(world.why("me", "db", Some(0)).obstacles.len(), 2);
    world.end(NodeId(2), world.key("you", "big", 0));
    world.entry(Command::Stop { job: job("you", "big"), index: None });
    world.node(2).draining = true;
    assert_eq!(waits(&world), ["n2 is being drained".to_string(), at_home.clone()]);
    world.node(2).draining = false;
    world.node(2).standing = Standing::Away;
    assert_eq!(waits(&world), ["n2 has no connection to the placer".to_string(), at_home]);
    world.node(2).standing = Standing::Live;
    assert_eq!(world.plan().offers[0].node.0, 2);
}

#[test]
fn a_drain_does_not_take_an_index_from_its_volume() {
    let mut world = three();
    with_volume(&mut world, &[(2, 5)]);
    world.settle();
    world.node(2).draining = true;
    let plan = world.plan();
    assert!(plan.is_empty(), "{plan:?}");
    let stuck: Vec<String> = plan.stuck[&world.key("me", "db", 0)].iter().map(|o| o.text()).collect();
    assert_eq!(stuck, ["n2 is being drained", "the data of its volume data is on n2"]);
}

#[test]
fn without_hope_it_starts_anew_and_says_so() {
    let mut world = three();
    with_volume(&mut world, &[(2, 5)]);
    world.node(2).standing = Standing::Gone;
    let plan = world.plan();
    assert_ne!(plan.offers[0].node.0, 2);
    let lost = "its volume data starts empty: the data is on n2, which is gone";
    assert_eq!(plan.offers[0].remark.as_deref(), Some(lost));
    // Older data is better than none.
    hold(&mut world, 3, "data", 4);
    let plan = world.plan();
    assert_eq!(plan.offers[0].node.0, 3);
    let lost = "the newest data of its volume data is on n2, which is gone; n3 has older";
    assert_eq!(plan.offers[0].remark.as_deref(), Some(lost));
    // It has moved on by then: what comes back is the old data.
    hold(&mut world, 3, "data", 6);
    world.node(2).standing = Standing::Live;
    let plan = world.plan();
    assert_eq!((plan.offers[0].node.0, plan.offers[0].remark.as_deref()), (3, None));
}
