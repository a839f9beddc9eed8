//! What fails again and again on a node is tried on another.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use placement::task::State;
use serde_json::json;
use world::{World, three};

#[test]
fn what_fails_again_and_again_is_tried_elsewhere() {
    let mut world = three();
    world.submit("me", "web", json!({})).settle();
    assert_eq!(world.at("me", "web"), [(0, 1)]);
    world.fail(1, "me", "web", 0);
    let plan = world.plan();
    // The old copy has to be gone first.
    assert!(plan.offers.is_empty());
    assert_eq!(
        plan.stops[0].reason,
        "it failed 3 times in a row on n1: it is tried elsewhere until 12:34 UTC"
    );
    world.settle();
    assert_eq!(world.at("me", "web"), [(0, 2)]);
    world.fail(2, "me", "web", 0);
    world.settle();
    assert_eq!(world.at("me", "web"), [(0, 3)]);

    // Nowhere else: it stays, and goes on.
    world.fail(3, "me", "web", 0);
    let plan = world.plan();
    assert!(plan.is_empty());
    let key = world.key("me", "web", 0);
    let texts: Vec<String> = plan.stuck[&key].iter().map(|o| o.text()).collect();
    assert_eq!(texts, ["n1 and n2: it failed 3 times in a row there: exited with code 1"]);

    // A node that forgets is tried again.
    world.node(2).info.as_mut().unwrap().bad.clear();
    world.settle();
    assert_eq!(world.at("me", "web"), [(0, 2)]);
}

#[test]
fn where_a_job_failed_its_other_tasks_go_last_and_a_new_version_goes_anywhere() {
    let two = [("n1", 4, 4), ("n2", 4, 4)];
    let mut world = World::new(&two);
    world.submit("me", "web", json!({"task.memory": "1GiB"})).settle();
    world.fail(1, "me", "web", 0);
    world.settle();
    world.submit("me", "web", json!({"count": 3, "task.memory": "1GiB"})).settle();
    assert_eq!(world.at("me", "web"), [(0, 2), (1, 2), (2, 2)]);
    // Rather there than not at all.
    world.submit("me", "web", json!({"count": 5, "task.memory": "1GiB"})).settle();
    assert_eq!(world.at("me", "web").iter().filter(|(_, node)| *node == 1).count(), 1);

    let mut world = World::new(&two);
    world.submit("me", "web", json!({})).settle();
    world.fail(1, "me", "web", 0);
    world.submit("me", "web", json!({"task.env": {"FIXED": "yes"}})).settle();
    assert_eq!(world.at("me", "web"), [(0, 1)], "what failed was another version");

    // A restart that somebody asks for may run anywhere too, and where there is but one node a task stays.
    let mut world = World::new(&two[..1]);
    world.submit("me", "web", json!({})).settle();
    world.fail(1, "me", "web", 0);
    assert!(world.plan().is_empty());
}

#[test]
fn a_task_that_runs_again_is_left_alone_and_room_is_needed_to_move() {
    let mut world = World::new(&[("n1", 4, 4), ("n2", 4, 1)]);
    world.submit("me", "web", json!({"task.memory": "2GiB"})).settle();
    world.fail(1, "me", "web", 0);
    let plan = world.plan();
    assert!(plan.is_empty());
    let texts: Vec<String> = plan.stuck.values().flat_map(|o| o.iter().map(|o| o.text())).collect();
    assert_eq!(texts, ["memory: wants 2 GiB, 1 of 1 GiB are free on n2"]);

    let mut world = three();
    world.submit("me", "web", json!({})).settle();
    world.fail(1, "me", "web", 0);
    let key = world.key("me", "web", 0);
    world.node(1).tasks.get_mut(&key).unwrap().state = State::Running;
    assert!(world.plan().is_empty());
}
