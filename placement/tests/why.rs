//! Why a task does not run, and that each fix is one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use placement::{ledger::Command, task::State, view::Standing, why::Why};
use serde_json::json;
use world::{World, ended, job};

fn shown(why: &Why) -> Vec<String> {
    let obstacles = why.obstacles.iter().map(|o| o.text());
    obstacles.chain(why.fixes.iter().map(|f| format!("{}: {}", f.command, f.text))).collect()
}

#[test]
fn nothing_stands_in_the_way() {
    let mut world = World::new(&[("n1", 4, 4)]);
    world.submit("me", "web", json!({})).settle();
    assert_eq!(world.why("me", "web", None), Why::default());
    assert_eq!(world.why("me", "web", Some(0)), Why::default());
}

#[test]
fn too_large() {
    let mut world = World::new(&[("n1", 4, 4), ("n2", 2, 8)]);
    world.submit("me", "web", json!({"task.memory": "9GiB", "task.cpu": "2500m"}));
    assert_eq!(
        shown(&world.why("me", "web", Some(0))),
        [
            "cpu: wants 2.5 cores, 2 of 2 cores are free on n2",
            "memory: wants 9 GiB, at most 8 of 8 GiB are free on n1 and n2",
            "covey run web.toml --set task.cpu=2 --set task.memory=8GiB: with the job's file: each task may use 2 instead \
         of 2500m and 8GiB instead of 9GiB",
        ]
    );
}

#[test]
fn another_job_is_in_the_way() {
    let mut world = World::new(&[("n1", 4, 4)]);
    world.submit("you", "low", json!({"priority": 110, "task.memory": "2GiB"}));
    world.submit("me", "mine", json!({"task.memory": "2GiB"})).settle();
    world.submit("me", "web", json!({"task.memory": "1GiB"}));
    world.submit("me", "high", json!({"band": "production", "task.memory": "512MiB"}));
    let why = world.why("me", "web", Some(0));
    assert_eq!(
        shown(&why),
        [
            "memory: wants 1 GiB, 0 of 4 GiB are free on n1",
            "covey stop you/low: ends you/low for it, of priority 110 (this job: 150)",
            "covey stop mine: ends me/mine for it, of priority 150 (this job: 150)",
        ]
    );
    assert!(why.fixes[0].cost < why.fixes[1].cost);
}

#[test]
fn more_than_fit() {
    let mut world = World::new(&[("n1", 4, 4)]);
    world.submit("me", "web", json!({"count": 3, "task.memory": "1536MiB"})).settle();
    assert_eq!(
        shown(&world.why("me", "web", None)),
        [
            "memory: wants 1.5 GiB, 1 of 4 GiB are free on n1",
            "covey run web.toml --set task.memory=1GiB: with the job's file: each task may use 1GiB instead of 1.5GiB",
            "covey scale web 2: nothing waits then: 2 of 3 have a place",
        ]
    );
}

#[test]
fn a_label_that_no_node_has() {
    let mut world = World::new(&[("n1", 4, 4), ("n2", 4, 4)]);
    world.label(1, "disk", "hdd");
    world.submit("me", "web", json!({"require": ["disk=ssd", "node!=n9"]}));
    assert_eq!(
        shown(&world.why("me", "web", Some(0))),
        [
            "it requires disk=ssd, and n2 has no label disk",
            "it requires disk=ssd, and disk is hdd on n1",
            "covey run web.toml --set 'require=[\"node!=n9\"]': with the job's file: it no longer requires disk=ssd",
        ]
    );
}

#[test]
fn stopped_by_people() {
    let mut world = World::new(&[("n1", 4, 4)]);
    world.submit("me", "web", json!({"count": 2})).settle();
    world.entry(Command::Stop { job: job("me", "web"), index: Some(1) });
    world.settle();
    assert_eq!(
        shown(&world.why("me", "web", Some(1))),
        ["index 1 was stopped by hand", "covey restart web/1: lets it run again",]
    );
    world.entry(Command::Stop { job: job("me", "web"), index: None });
    world.settle();
    assert_eq!(shown(&world.why("you", "web", None)), [""; 0]);
    assert_eq!(
        shown(&world.why("me", "web", None)),
        ["the job was stopped", "covey run web.toml: with the job's file: creates the job anew",]
    );
}

#[test]
fn failed_for_good() {
    let mut world = World::new(&[("n1", 4, 4)]);
    world.submit("me", "etl", json!({"kind": "batch"})).settle();
    let key = world.key("me", "etl", 0);
    let copy = world.node(1).tasks.get_mut(&key).unwrap();
    (copy.state, copy.exit) = (State::Failed, ended(3));
    world.settle();
    assert_eq!(
        shown(&world.why("me", "etl", None)),
        ["index 0 failed for good", "covey restart etl/0: lets it try again",]
    );
}

#[test]
fn it_has_a_place_but_does_not_run_well() {
    let mut world = World::new(&[("n1", 4, 4)]);
    world.submit("me", "web", json!({})).settle();
    let key = world.key("me", "web", 0);
    let copy = world.node(1).tasks.get_mut(&key).unwrap();
    (copy.state, copy.restarts, copy.exit) = (State::Starting, 4, ended(1));
    copy.reason = Some("exited with code 1; again in 8s".into());
    assert_eq!(
        shown(&world.why("me", "web", None)),
        [
            "n1: it is starting: exited with code 1; again in 8s (`covey logs --previous web/0` shows what it wrote last)",
        ]
    );
}

#[test]
fn no_node_can_be_asked() {
    let mut world = World::new(&[("n1", 4, 4), ("n2", 4, 4)]);
    world.node(1).standing = Standing::Gone;
    world.node(2).standing = Standing::Away;
    world.submit("me", "web", json!({}));
    let texts = ["n1 is gone", "n2 has no connection to the placer"];
    assert_eq!(shown(&world.why("me", "web", None)), texts);
}

#[test]
fn an_image_without_a_digest() {
    let mut world = World::new(&[("n1", 4, 4)]);
    world.submit("me", "web", json!({}));
    let record = world.ledger.jobs.get_mut(&job("me", "web")).unwrap();
    std::sync::Arc::make_mut(record).images.clear();
    assert_eq!(
        shown(&world.why("me", "web", None)),
        [
            "the image `hello:1` has no digest; submit the job again to resolve it",
            "covey image load FILE --name hello:1: with an archive of the image; then `covey run web.toml` once more",
        ]
    );
}
