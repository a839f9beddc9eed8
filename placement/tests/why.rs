//! Why a task does not run, and that each fix is one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use placement::{
    ledger::Command,
    task::State,
    view::Standing,
    why::{Why, why_each},
};
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

/// A job of many is asked for with one plan, and says of each what stands in its way.
#[test]
fn of_many_each_says_what_stands_in_its_way() {
    let mut world = World::new(&[("n1", 4, 4)]);
    world.submit("me", "web", json!({"count": 5000, "task.memory": "1536MiB"})).settle();
    let all = why_each(&world.intent(), &world.view, &job("me", "web"), 0..5000, "me");
    assert_eq!(all.len(), 5000);
    assert_eq!(all[0], Why::default());
    assert!(!all[4999].fixes.is_empty());
    for index in [1, 2] {
        assert_eq!(all[index as usize], world.why("me", "web", Some(index)), "{index}");
    }
    // What would help the first of those that wait is told of all.
    assert_eq!(all[4999], all[2]);
    assert_eq!(all[4999].obstacles, world.why("me", "web", Some(4999)).obstacles);
    assert_eq!(
        why_each(&world.intent(), &world.view, &job("me", "none"), [0, 1], "me"),
        [Why::default(), Why::default()]
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
            "no node has disk=ssd, only disk=hdd",
            "covey label n2 disk=ssd: if that is true of n2",
            "covey run web.toml --set 'require=[\"node!=n9\"]': with the job's file: it no longer requires disk=ssd",
        ]
    );
    // A fix is one: the node that is full, or may not be it, is not named.
    world.submit("you", "big", json!({"require": ["node=n2"], "task.memory": "4GiB"})).settle();
    assert_eq!(world.why("me", "web", Some(0)).fixes[0].command, "covey label n1 disk=ssd");
    world.submit("me", "web", json!({"require": ["disk in (ssd,nvme)", "size=large", "node!=n1"]}));
    let plan = world.why("me", "web", Some(0));
    assert!(plan.fixes.iter().all(|fix| !fix.command.starts_with("covey label")), "{plan:?}");
    world.submit("me", "web", json!({"require": ["disk in (ssd,nvme)", "size=large"]}));
    assert_eq!(world.why("me", "web", Some(0)).fixes[0].command, "covey label n1 disk=ssd size=large");
}

#[test]
fn a_label_that_some_nodes_have() {
    let mut world = World::new(&[("n1", 4, 4), ("n2", 4, 4), ("n3", 4, 4)]);
    world.operator_label(1, "disk", Some("ssd"));
    world.operator_label(2, "disk", Some("hdd"));
    world.node(1).standing = Standing::Gone;
    world.submit("me", "web", json!({"require": ["disk=ssd"]}));
    assert_eq!(
        shown(&world.why("me", "web", Some(0))),
        [
            "it requires disk=ssd, and n3 has no label disk",
            "it requires disk=ssd, and disk is hdd on n2",
            "n1 is gone",
            "covey label n3 disk=ssd: if that is true of n3",
            "covey run web.toml --set 'require=[]': with the job's file: it no longer requires disk=ssd",
        ]
    );
}

#[test]
fn what_the_agent_detects_is_not_for_an_operator_to_say() {
    let mut world = World::new(&[("n1", 4, 4), ("n2", 4, 4)]);
    world.label(1, "arch", "x86_64");
    world.label(2, "arch", "x86_64");
    world.submit("me", "web", json!({"require": ["arch=aarch64"]}));
    assert_eq!(
        shown(&world.why("me", "web", Some(0))),
        [
            "no node has arch=aarch64, only arch=x86_64",
            "covey run web.toml --set 'require=[]': with the job's file: it no longer requires arch=aarch64",
        ]
    );
    world.submit("me", "web", json!({"require": ["arch!=x86_64"]}));
    assert_eq!(world.why("me", "web", Some(0)).obstacles[0].text(), "no node meets arch!=x86_64");
    // Of a node that has not said anything yet nobody knows.
    world.node(2).info = None;
    world.node(2).standing = Standing::Away;
    world.submit("me", "web", json!({"require": ["arch=aarch64"]}));
    let text = "it requires arch=aarch64, and arch is x86_64 on n1";
    assert_eq!(world.why("me", "web", Some(0)).obstacles[0].text(), text);
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
