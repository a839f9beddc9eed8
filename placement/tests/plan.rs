//! What the placer does next, case by case.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use placement::{
    ids::{NodeId, Uid},
    ledger::{Command, Expect},
    resources::Resources,
    task::State,
    view::{Refusal, Standing},
};
use serde_json::json;
use world::{DIGEST, World, ended, indexes, job, pending, report, three};

#[test]
fn a_job_spreads_over_nodes_and_then_over_racks() {
    let mut world = three();
    world.submit("me", "web", json!({"count": 3})).settle();
    assert_eq!(world.at("me", "web"), [(0, 1), (1, 2), (2, 3)]);

    let mut world = World::new(&[("n1", 4, 4), ("n2", 4, 4), ("n3", 4, 4), ("n4", 4, 4)]);
    for (node, rack) in [(1, "r1"), (2, "r1"), (3, "r2"), (4, "r2")] {
        world.label(node, "rack", rack);
    }
    world.submit("me", "web", json!({"count": 2})).settle();
    assert_eq!(world.at("me", "web"), [(0, 1), (1, 3)]);
}

/// REQUIREMENTS B71: however unequal the nodes, however many in a rack, and whatever else runs there.
#[test]
fn six_tasks_on_three_racks_are_two_on_each() {
    let sizes = [(4, 4), (2, 3), (8, 16), (3, 2), (16, 64), (1, 1)];
    // Which rack each node is in; every rack has a node.
    for arrangement in 0..3u64.pow(6) {
        let racks: Vec<u64> = (0..6).map(|i| arrangement / 3u64.pow(i) % 3).collect();
        if (0..3).any(|rack| !racks.contains(&rack)) {
            continue;
        }
        let names: Vec<String> = (1..=6).map(|i| format!("n{i}")).collect();
        let nodes: Vec<_> = sizes.iter().zip(&names).map(|((c, g), name)| (name.as_str(), *c, *g)).collect();
        let mut world = World::new(&nodes);
        for (id, rack) in (1..).zip(&racks) {
            world.label(id, "rack", &format!("r{rack}"));
        }
        if arrangement % 2 == 0 {
            // Others were here first, where they liked it.
            world.submit("you", "one", json!({"count": 3, "spread": ["node"], "task.cpu": "100m"}));
            world.submit("you", "two", json!({"count": 2, "require": ["node=n5"], "task.memory": "8GiB"}));
            world.settle();
        }
        let spread = [json!([]), json!(["rack"]), json!(["node", "rack"])][arrangement as usize % 3].clone();
        world.submit("me", "web", json!({"count": 6, "spread": spread, "task.memory": "64MiB"})).settle();
        let spread: Vec<usize> = world.spread("me", "web", "rack").into_values().collect();
        assert_eq!(spread, [2, 2, 2], "racks {racks:?}, tasks at {:?}", world.at("me", "web"));
        // The loss of a rack costs two; those that are left take them, evenly again.
        for (id, _) in (1..).zip(&racks).filter(|(_, rack)| **rack == 0) {
            world.node(id).standing = Standing::Gone;
        }
        let plan = world.plan();
        let mine = plan.offers.iter().filter(|o| o.spec.job.owner == "me");
        let mut to: Vec<u64> = mine.map(|o| racks[o.node.0 as usize - 1]).collect();
        to.sort_unstable();
        assert_eq!(to, [1, 2]);
    }
}

#[test]
fn a_rack_without_room_keeps_nobody_waiting() {
    let mut world = three();
    for (node, rack) in [(1, "r1"), (2, "r2"), (3, "r3")] {
        world.label(node, "rack", rack);
    }
    world.submit("you", "big", json!({"require": ["rack=r3"], "task.cpu": 4})).settle();
    world.submit("me", "web", json!({"count": 6})).settle();
    assert_eq!(world.spread("me", "web", "rack"), [("r1".to_string(), 3), ("r2".to_string(), 3)].into());
}

#[test]
fn nodes_without_a_rack_are_together_one_domain() {
    let mut world = World::new(&[("n1", 4, 4), ("n2", 4, 4), ("n3", 4, 4), ("n4", 4, 4)]);
    world.label(1, "rack", "r1");
    world.label(2, "rack", "r2");
    world.submit("me", "web", json!({"count": 6})).settle();
    assert_eq!(world.spread("me", "web", "rack").into_values().collect::<Vec<_>>(), [2, 2, 2]);
}

#[test]
fn what_operators_say_outweighs_what_the_agent_detects() {
    let mut world = three();
    world.label(1, "disk", "ssd");
    world.operator_label(1, "disk", Some("hdd"));
    world.operator_label(2, "disk", Some("ssd"));
    world.submit("me", "db", json!({"require": ["disk=ssd"]})).settle();
    assert_eq!(world.at("me", "db"), [(0, 2)]);
    assert_eq!(world.view.nodes[&NodeId(1)].all_labels()["disk"], "hdd");
    // Taken away, the agent's counts again.
    world.operator_label(1, "disk", None);
    world.submit("me", "db2", json!({"require": ["disk=ssd"], "spread": ["disk"]}));
    world.node(2).standing = Standing::Gone;
    assert_eq!(world.plan().offers[0].node.0, 1);
}

#[test]
fn a_draining_node_loses_its_tasks_one_at_a_time_and_gets_none() {
    let mut world = three();
    world.submit("me", "web", json!({"count": 6})).settle();
    assert_eq!(world.at("me", "web").iter().filter(|(_, node)| *node == 3).count(), 2);
    world.node(3).draining = true;
    let plan = world.plan();
    assert_eq!(plan.stops.len(), 1);
    assert!(plan.stops[0].reason.contains("n3 is being drained"), "{}", plan.stops[0].reason);
    world.settle();
    let on: Vec<u64> = world.at("me", "web").iter().map(|(_, node)| *node).collect();
    assert_eq!((on.len(), on.contains(&3)), (6, false));
    assert!(world.plan().is_empty());
    // Nowhere else to go: what runs goes on, and says why.
    world.node(1).standing = Standing::Gone;
    world.node(2).draining = true;
    let plan = world.plan();
    assert!(plan.offers.is_empty() && plan.stops.is_empty(), "{plan:?}");
}

/// REQUIREMENTS B13.
#[test]
fn without_its_label_a_node_keeps_what_runs_and_gets_nothing_new() {
    let mut world = three();
    world.operator_label(3, "disk", Some("ssd"));
    world.submit("me", "db", json!({"count": 2, "require": ["disk=ssd"]})).settle();
    assert_eq!(world.at("me", "db"), [(0, 3), (1, 3)]);
    world.operator_label(3, "disk", None);
    assert!(world.plan().is_empty());
    world.entry(Command::Scale { job: job("me", "db"), count: 3, expect: Expect::Any });
    let plan = world.plan();
    assert!(plan.is_empty());
    let key = world.key("me", "db", 2);
    assert_eq!(pending(&plan, key), ["no node has disk=ssd"]);
    // A new version waits too: what runs is not given up for it.
    world.submit("me", "db", json!({"count": 2, "require": ["disk=ssd"], "task.env": {"A": "b"}}));
    let plan = world.plan();
    assert!(plan.is_empty());
    let stuck: Vec<String> = plan.stuck.values().flat_map(|o| o.iter().map(|o| o.text())).collect();
    assert_eq!(stuck, ["no node has disk=ssd", "no node has disk=ssd"]);
    world.operator_label(3, "disk", Some("ssd"));
    world.settle();
    assert_eq!(world.at("me", "db"), [(0, 3), (1, 3)]);
}

/// REQUIREMENTS B14.
#[test]
fn what_it_prefers_is_taken_while_there_is_room_and_not_missed_without() {
    let mut world = three();
    world.operator_label(1, "disk", Some("ssd"));
    world.submit("you", "full", json!({"require": ["node=n1"], "task.memory": "4GiB"})).settle();
    world.submit("me", "soft", json!({"count": 4, "prefer": ["disk=ssd"]}));
    world.submit("me", "hard", json!({"count": 1, "require": ["disk=ssd"]}));
    world.settle();
    assert_eq!(world.at("me", "soft").iter().filter(|(_, node)| *node == 1).count(), 0);
    let text = "memory: wants 128 MiB, 0 of 4 GiB are free on n1";
    assert!(pending(&world.plan(), world.key("me", "hard", 0)).contains(&text.to_string()));
    world.entry(Command::Stop { job: job("you", "full"), index: None });
    world.settle();
    world.entry(Command::Scale { job: job("me", "soft"), count: 24, expect: Expect::Any });
    world.settle();
    assert_eq!(world.at("me", "soft").iter().filter(|(_, node)| *node == 1).count(), 20, "all new ones");
    assert_eq!(world.at("me", "hard"), [(0, 1)]);
}

/// REQUIREMENTS BX07.
#[test]
fn with_equal_fit_the_node_that_holds_the_image_comes_first() {
    // Machines of one kind differ by a little.
    let mut world = World::new(&[("n1", 4, 4), ("n2", 4, 4), ("n3", 4, 4)]);
    for (id, less) in [(1, 0), (2, 5 << 20), (3, 3 << 20)] {
        let info = world.node(id).info.as_mut().unwrap();
        info.capacity.sub(&Resources::new(0, less));
    }
    for id in 1..=3 {
        let mut world = world.clone();
        world.node(id).info.as_mut().unwrap().images.insert(DIGEST.into());
        world.submit("me", "web", json!({})).settle();
        assert_eq!(world.at("me", "web"), [(0, id)]);
        // Spread comes before it, and so does a fit that is much better.
        world.submit("me", "web", json!({"count": 3})).settle();
        assert_eq!(world.spread("me", "web", "node").len(), 3);
    }
    world.node(1).info.as_mut().unwrap().images.insert(DIGEST.into());
    world
        .submit("you", "big", json!({"require": ["node=n2"], "task.cpu": 2, "task.memory": "2GiB"}))
        .settle();
    world.submit("me", "web", json!({})).settle();
    assert_eq!(world.at("me", "web"), [(0, 2)]);
}

#[test]
fn what_it_prefers_comes_before_spread_and_fit() {
    let mut world = three();
    world.label(2, "disk", "ssd");
    world.submit("me", "db", json!({"count": 2, "prefer": ["disk=ssd"]})).settle();
    assert_eq!(world.at("me", "db"), [(0, 2), (1, 2)]);
}

#[test]
fn fills_the_fuller_node_first() {
    let mut world = three();
    world.submit("me", "big", json!({"task.cpu": 2, "task.memory": "2GiB"})).settle();
    world.submit("me", "web", json!({})).settle();
    assert_eq!(world.at("me", "web"), world.at("me", "big"));
}

#[test]
fn higher_priority_first_then_owners_in_turn() {
    let mut world = World::new(&[("n1", 4, 4)]);
    world.submit("a", "many", json!({"count": 100, "task.memory": "1GiB"}));
    world.submit("b", "few", json!({"count": 5, "task.memory": "1GiB"}));
    world.submit("c", "prod", json!({"band": "production", "count": 2, "task.memory": "1GiB"}));
    let plan = world.plan();
    let order: Vec<String> = plan.offers.iter().map(|o| format!("{}/{}", o.spec.job, o.key.index)).collect();
    assert_eq!(order, ["c/prod/0", "c/prod/1", "a/many/0", "b/few/0"]);
    assert_eq!(plan.pending.len(), 103);
}

#[test]
fn every_no_says_what_is_short_and_where() {
    let mut world = three();
    world.label(1, "disk", "hdd");
    world.label(2, "disk", "ssd");
    world.node(3).standing = Standing::Gone;
    world.submit("me", "web", json!({"task.memory": "9GiB", "task.cpu": 8, "require": ["disk=ssd"]}));
    let plan = world.plan();
    assert_eq!(
        pending(&plan, world.key("me", "web", 0)),
        [
            "cpu: wants 8 cores, 4 of 4 cores are free on n2",
            "memory: wants 9 GiB, 4 of 4 GiB are free on n2",
            "it requires disk=ssd, and disk is hdd on n1",
            "n3 is gone",
        ]
    );
}

#[test]
fn a_cell_without_nodes_says_so() {
    let mut world = World::new(&[]);
    world.submit("me", "web", json!({}));
    assert_eq!(pending(&world.plan(), world.key("me", "web", 0)), ["the cell has no node"]);
}

#[test]
fn a_refusal_counts_for_its_time_and_its_version() {
    let mut world = World::new(&[("n1", 4, 4)]);
    world.submit("me", "web", json!({}));
    let key = world.key("me", "web", 0);
    let version = world.ledger.jobs[&job("me", "web")].version;
    let why = "it could not write the task down: no space".to_string();
    let refusal = Refusal { why, version, restart_at: 0, until_ms: 2_000, times: 1, for_room: false };
    world.node(1).refusals.insert(key, refusal);
    assert_eq!(pending(&world.plan(), key), ["n1: it could not write the task down: no space"]);

    let mut later = world.clone();
    later.view.now_ms = 2_000;
    assert_eq!(indexes(later.plan().offers.iter().map(|o| o.key)), [0]);
    world.submit("me", "web", json!({"task.cpu": "50m"}));
    assert_eq!(indexes(world.plan().offers.iter().map(|o| o.key)), [0]);
}

#[test]
fn an_old_name_waits_for_every_member_and_a_new_one_does_not() {
    let mut world = three();
    world.submit("me", "old", json!({})).submit("me", "new", json!({}));
    world.view.old_names.insert(job("me", "old"));
    world.node(3).standing = Standing::Unheard;
    let plan = world.plan();
    assert_eq!(plan.offers.iter().map(|o| o.spec.job.name.as_str()).collect::<Vec<_>>(), ["new"]);
    let waits = &plan.pending[&world.key("me", "old", 0)];
    assert!(waits.unknown);
    let text = "it may run on n3, which has not reported to the new placer yet";
    assert_eq!(waits.obstacles[0].text(), text);
    world.node(3).standing = Standing::Gone;
    assert_eq!(world.plan().offers.len(), 2);
}

#[test]
fn nothing_is_offered_while_an_older_job_of_that_name_is_there() {
    // PROTOCOL 2.
    let mut world = three();
    world.submit("me", "web", json!({}));
    world.run(2, "me", "web", 0);
    let old = world.key("me", "web", 0);
    world.entry(Command::Stop { job: job("me", "web"), index: None });
    world.submit("me", "web", json!({}));
    let plan = world.plan();
    assert_eq!((plan.offers.len(), plan.stops[0].key), (0, old));
    let new = world.key("me", "web", 0);
    assert_eq!(pending(&plan, new), ["an older job of this name has not ended on n2 yet"]);
    world.settle();
    assert_eq!(world.view.nodes.values().flat_map(|n| n.tasks.keys()).collect::<Vec<_>>(), [&new]);
}

#[test]
fn an_unanswered_offer_holds_its_index() {
    // PROTOCOL 15.
    let mut world = three();
    world.submit("me", "web", json!({}));
    world.offer(2, "me", "web", 0);
    let plan = world.plan();
    assert!(plan.is_empty(), "{plan:?}");
    let text = "it was offered to n2, which has not answered yet";
    assert_eq!(pending(&plan, world.key("me", "web", 0)), [text]);
    world.node(2).standing = Standing::Away;
    assert!(world.plan().is_empty());
}

#[test]
fn a_superseded_copy_is_stopped_and_the_newest_stays() {
    let mut world = three();
    world.submit("me", "web", json!({}));
    world.run(1, "me", "web", 0);
    world.run(3, "me", "web", 0);
    let plan = world.plan();
    assert_eq!(plan.stops.len(), 1);
    assert_eq!((plan.stops[0].node.0, plan.stops[0].generation.seq), (1, 1));
    assert_eq!(plan.stops[0].reason, "generation 1.5.2 has taken its place");
}

#[test]
fn a_stop_under_way_is_never_taken_back() {
    // PROTOCOL 16: wanted again meanwhile.
    let mut world = three();
    world.submit("me", "web", json!({}));
    world.run(1, "me", "web", 0);
    let (key, generation) = (world.key("me", "web", 0), world.generation(1));
    world.node(1).stops.insert(key, generation);
    let plan = world.plan();
    assert!(plan.is_empty());
    assert_eq!(pending(&plan, key), ["its copy 1.5.1 on n1 has to end first"]);
}

#[test]
fn scaling_down_stops_the_highest_indexes() {
    let mut world = three();
    world.submit("me", "web", json!({"count": 5})).settle();
    world.submit("me", "web", json!({"count": 2}));
    let mut stopped = indexes(world.plan().stops.iter().map(|s| s.key));
    stopped.sort_unstable();
    assert_eq!(stopped, [2, 3, 4]);
}

#[test]
fn a_new_version_replaces_one_index_at_a_time() {
    let mut world = three();
    world.submit("me", "web", json!({"count": 3})).settle();
    world.submit("me", "web", json!({"count": 3, "task.env": {"A": "b"}}));
    for index in 0..3 {
        let plan = world.plan();
        assert_eq!(indexes(plan.stops.iter().map(|s| s.key)), [index]);
        assert_eq!(plan.stuck.len(), 2 - index as usize, "the rest says that it waits");
        world.obey(&plan);
        let plan = world.plan();
        assert_eq!(indexes(plan.offers.iter().map(|s| s.key)), [index]);
        assert!(plan.stops.is_empty());
        world.obey(&plan);
    }
    assert!(world.plan().is_empty());
}

#[test]
fn a_new_version_halts_where_it_does_not_get_well() {
    let health = json!({"http": "/healthz", "port": "http"});
    let keys =
        |a: &str| json!({"count": 2, "task.env": {"A": a}, "task.ports": ["http"], "task.health": health});
    let mut world = three();
    world.submit("me", "web", keys("b")).settle();
    world.submit("me", "web", keys("c"));
    let plan = world.plan();
    world.obey(&plan);
    let plan = world.plan();
    world.obey(&plan);
    let first = world.key("me", "web", 0);
    for node in world.view.nodes.values_mut() {
        node.tasks.get_mut(&first).into_iter().for_each(|t| t.healthy = None);
    }
    let plan = world.plan();
    assert!(plan.is_empty());
    let text = plan.stuck[&world.key("me", "web", 1)][0].text();
    assert_eq!(text, "its copy on n2 is replaced once index 0 runs well: one at a time");
}

#[test]
fn nothing_is_stopped_for_a_version_that_fits_nowhere() {
    let mut world = World::new(&[("n1", 4, 4)]);
    world.submit("me", "web", json!({"count": 2, "task.memory": "1GiB"})).settle();
    world.submit("me", "web", json!({"count": 2, "task.memory": "9GiB"}));
    let plan = world.plan();
    assert!(plan.is_empty());
    let text = plan.stuck[&world.key("me", "web", 0)][0].text();
    assert_eq!(text, "memory: wants 9 GiB, 3 of 4 GiB are free on n1");
    // It fits where the old copy is, once that has ended.
    world.submit("me", "web", json!({"count": 2, "task.memory": "2GiB"}));
    world.settle();
    assert_eq!(world.at("me", "web").len(), 2);
}

#[test]
fn what_runs_the_same_is_left_alone() {
    let mut world = three();
    world.submit("me", "web", json!({"count": 2})).settle();
    world.submit("me", "web", json!({"count": 2, "prefer": ["disk=ssd"]}));
    assert!(world.plan().is_empty());
    world.submit("me", "web", json!({"count": 2, "override": [{"index": [1], "env": {"A": "b"}}]}));
    assert_eq!(indexes(world.plan().stops.iter().map(|s| s.key)), [1]);
}

#[test]
fn a_version_that_the_ledger_lost_is_not_rolled_back() {
    // PROTOCOL 29.
    let mut world = three();
    world.submit("me", "web", json!({}));
    world.run(1, "me", "web", 0);
    let key = world.key("me", "web", 0);
    world.node(1).tasks.get_mut(&key).unwrap().version.number = 7;
    assert!(world.plan().is_empty());
}

#[test]
fn restarts_go_one_at_a_time_in_place() {
    let mut world = three();
    world.submit("me", "web", json!({"count": 2})).settle();
    world.entry(Command::Restart { job: job("me", "web"), index: None });
    let plan = world.plan();
    assert_eq!(indexes(plan.restarts.iter().map(|r| r.key)), [0]);
    assert_eq!(plan.restarts[0].at, world.ledger.applied);
    assert_eq!(world.settle(), 2);
}

#[test]
fn what_the_ledger_cannot_know_is_left_alone() {
    let mut world = three();
    let stranger = |world: &World, cell, index| {
        let key = placement::ids::TaskKey { uid: Uid { cell, index }, index: 0 };
        report(world, key, &job("me", "web"), 1, State::Running)
    };
    // PROTOCOL 18 and 28: of a later entry, of a cell before recovery; and one that is deleted.
    for (node, cell, index) in [(1, 1, 1_000), (2, 0, 3), (3, 1, 2)] {
        let report = stranger(&world, cell, index);
        world.put(node, report);
    }
    let plan = world.plan();
    assert_eq!(plan.stops.iter().map(|s| s.node.0).collect::<Vec<_>>(), [3]);
    assert_eq!(plan.stops[0].reason, "its job is no more");
    // Their name is taken.
    world.submit("me", "web", json!({}));
    assert!(world.plan().offers.is_empty());
}

fn etl(world: &mut World, node: u64, state: State, code: i32) -> placement::ids::TaskKey {
    world.submit("me", "etl", json!({"kind": "batch"}));
    world.run(node, "me", "etl", 0);
    let key = world.key("me", "etl", 0);
    let copy = world.node(node).tasks.get_mut(&key).unwrap();
    (copy.state, copy.exit) = (state, ended(code));
    key
}

#[test]
fn a_success_is_committed_and_then_forgotten() {
    let mut world = three();
    let key = etl(&mut world, 1, State::Succeeded, 0);
    let plan = world.plan();
    assert!(plan.complete[0].success && plan.forgets.is_empty() && plan.pending.is_empty());
    world.view.completing.insert(key);
    assert!(world.plan().is_empty(), "proposed once");
    world.entry(Command::Complete { done: plan.complete });
    assert_eq!(world.plan().forgets, [(NodeId(1), key)]);
    world.settle();
    assert!(world.at("me", "etl").is_empty());
}

#[test]
fn a_success_waits_for_members_and_other_copies() {
    // PROTOCOL 26.
    let mut world = three();
    etl(&mut world, 1, State::Succeeded, 0);
    let mut unheard = world.clone();
    unheard.node(3).standing = Standing::Unheard;
    assert!(unheard.plan().is_empty());
    world.run(2, "me", "etl", 0);
    let plan = world.plan();
    assert_eq!((plan.complete.len(), plan.stops[0].node.0), (0, 2));
    world.obey(&plan);
    assert_eq!(world.plan().complete.len(), 1);
}

#[test]
fn a_failure_for_good_is_recorded_unless_people_asked_for_more() {
    let mut world = three();
    let key = etl(&mut world, 1, State::Failed, 3);
    assert!(!world.plan().complete[0].success);
    let mut again = world.clone();
    again.entry(Command::Restart { job: job("me", "etl"), index: None });
    let plan = again.plan();
    assert_eq!((plan.complete.len(), plan.forgets.len()), (0, 1));
    again.obey(&plan);
    assert_eq!(again.plan().offers.len(), 1);
    world.submit("me", "etl", json!({"kind": "batch", "task.cpu": "200m"}));
    assert_eq!(world.plan().forgets, [(NodeId(1), key)]);
}

#[test]
fn a_batch_copy_is_kept_once_it_is_known_to_be_the_only_one() {
    // PROTOCOL 23.
    let mut world = three();
    world.submit("me", "etl", json!({"kind": "batch"}));
    world.run(1, "me", "etl", 0);
    assert_eq!(world.plan().keeps.len(), 1);
    world.node(2).standing = Standing::Unheard;
    assert!(world.plan().keeps.is_empty());
    world.node(2).standing = Standing::Live;
    world.run(3, "me", "etl", 0);
    assert!(world.plan().keeps.is_empty());
}

#[test]
fn a_job_that_cannot_be_read_keeps_what_runs_and_says_why() {
    let mut world = three();
    world.submit("me", "web", json!({}));
    world.run(1, "me", "web", 0);
    let record = world.ledger.jobs.get_mut(&job("me", "web")).unwrap();
    std::sync::Arc::make_mut(record).document["tsk"] = json!(1);
    let plan = world.plan();
    assert!(plan.is_empty());
    let texts = pending(&plan, world.key("me", "web", 0));
    assert!(texts[0].starts_with("its document cannot be read: "), "{texts:?}");
}

/// A thousand tasks on a hundred nodes: how long is for `make bench`, here only that it does not explode.
#[test]
fn a_thousand_tasks_on_a_hundred_nodes() {
    let names: Vec<String> = (0..100).map(|i| format!("n{i}")).collect();
    let nodes: Vec<(&str, u64, u64)> = names.iter().map(|n| (n.as_str(), 16, 64)).collect();
    let mut world = World::new(&nodes);
    for i in 0..10 {
        let memory = format!("{}MiB", 500 + 100 * i);
        world.submit(
            "me",
            &format!("job{i}"),
            json!({"count": 100, "task.memory": memory, "task.cpu": "900m"}),
        );
    }
    let intent = world.intent();
    let start = std::time::Instant::now();
    let plan = placement::plan::plan(&intent, &world.view);
    println!("planned {} in {:?}", plan.offers.len(), start.elapsed());
    assert_eq!(plan.offers.len(), 1_000);
}
