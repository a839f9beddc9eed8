//! What holds of every plan, whatever the world.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use std::collections::BTreeSet;

use placement::{
    ids::{NodeId, TaskKey, Uid},
    intent::Verdict,
    job::Band,
    ledger::Command,
    node::Predicted,
    plan::Plan,
    resources::{CPU, MEMORY, Resources},
    task::State,
    view::{NodeView, Standing},
};
use proptest::prelude::*;
use serde_json::json;
use world::{World, ended, job, report};

/// A world by numbers: shrinks well, and reads back as a test.
#[derive(Debug, Clone)]
struct Sketch {
    /// Cores, GiB, zone, standing, and what is predicted: thousandths of its tasks' limits.
    nodes: Vec<(u64, u64, u8, u8, Option<u64>)>,
    jobs: Vec<JobSketch>,
    /// Job, index, node, state, sequence, whether of an older version, whether a stop is under way.
    copies: Vec<(u8, u32, u8, u8, u64, bool, bool)>,
    /// Job, index, node.
    offers: Vec<(u8, u32, u8)>,
    old_names: bool,
}

#[derive(Debug, Clone)]
struct JobSketch {
    owner: u8,
    count: u32,
    memory: u64,
    cpu: u64,
    priority: u32,
    batch: bool,
    zone: Option<u8>,
    /// Changed once, and how: 0 not at all, 1 metadata, 2 spec, 3 stopped, 4 stopped and created again.
    changed: u8,
}

fn sketch() -> impl Strategy<Value = Sketch> {
    let standing = prop_oneof![4 => Just(0u8), 1 => 1..4u8];
    let node = (1..5u64, 1..5u64, 0..3u8, standing, prop::option::of(0..1000u64));
    let job = (
        (0..2u8, 0..5u32, 128..2048u64, 100..1500u64),
        (prop_oneof![100..103u32, 200..202u32], any::<bool>(), prop::option::weighted(0.3, 0..3u8), 0..5u8),
    )
        .prop_map(|((owner, count, memory, cpu), (priority, batch, zone, changed))| JobSketch {
            owner,
            count,
            memory,
            cpu,
            priority,
            batch,
            zone,
            changed,
        });
    let copy = (0..6u8, 0..6u32, 0..5u8, 0..5u8, 1..9u64, any::<bool>(), prop::bool::weighted(0.2));
    (
        prop::collection::vec(node, 0..5),
        prop::collection::vec(job, 0..5),
        prop::collection::vec(copy, 0..8),
        prop::collection::vec((0..5u8, 0..6u32, 0..5u8), 0..3),
        any::<bool>(),
    )
        .prop_map(|(nodes, jobs, copies, offers, old_names)| Sketch {
            nodes,
            jobs,
            copies,
            offers,
            old_names,
        })
}

fn keys(job: &JobSketch, cpu: u64) -> serde_json::Value {
    let mut keys = json!({
        "count": job.count, "kind": if job.batch { "batch" } else { "service" }, "priority": job.priority,
        "band": if job.priority < 200 { "batch" } else { "production" },
        "task.memory": format!("{}MiB", job.memory), "task.cpu": format!("{cpu}m"),
    });
    if let Some(zone) = job.zone {
        keys["require"] = json!([format!("zone=z{zone}")]);
    }
    keys
}

/// Builds it. What has two copies of a key on one node is left out: nodes do not report that.
fn build(sketch: &Sketch) -> World {
    let names: Vec<String> = (1..=sketch.nodes.len()).map(|i| format!("n{i}")).collect();
    let nodes: Vec<(&str, u64, u64)> =
        sketch.nodes.iter().zip(&names).map(|(n, name)| (name.as_str(), n.0, n.1)).collect();
    let mut world = World::new(&nodes);
    if nodes.is_empty() {
        return world;
    }
    let mut names = Vec::new();
    for (at, sketch) in sketch.jobs.iter().enumerate() {
        let (owner, name) = (["a", "b"][usize::from(sketch.owner)], format!("j{at}"));
        world.submit(owner, &name, keys(sketch, sketch.cpu));
        names.push((owner, name));
    }
    let uids: Vec<Uid> = names.iter().map(|(owner, name)| world.ledger.jobs[&job(owner, name)].uid).collect();
    let first = world.clone();
    for (sketch, (owner, name)) in sketch.jobs.iter().zip(&names) {
        match sketch.changed {
            1 => drop(world.submit(
                owner,
                name,
                keys(&JobSketch { priority: sketch.priority / 100 * 100 + 50, ..sketch.clone() }, sketch.cpu),
            )),
            2 => drop(world.submit(owner, name, keys(sketch, sketch.cpu + 50))),
            3 | 4 => world.entry(Command::Stop { job: job(owner, name), index: None }),
            _ => {}
        }
        if sketch.changed == 4 {
            world.submit(owner, name, keys(sketch, sketch.cpu));
        }
    }
    let node = |at: u8| u64::from(at) % sketch.nodes.len() as u64 + 1;
    for (which, index, at, state, seq, old, stop) in &sketch.copies {
        let Some(uid) = uids.get(usize::from(*which)) else { continue };
        let (owner, name) = &names[usize::from(*which)];
        let key = TaskKey { uid: *uid, index: *index };
        let state = [State::Running, State::Starting, State::Stopping, State::Succeeded, State::Failed]
            [usize::from(*state)];
        let sketch = &sketch.jobs[usize::from(*which)];
        let state = if state == State::Succeeded && !sketch.batch { State::Running } else { state };
        let of = if *old { &first } else { &world };
        let mut copy = report(of, key, &job(owner, name), *seq, state);
        copy.exit = state.is_final().then(|| ended(i32::from(state == State::Failed))).flatten();
        let id = node(*at);
        let fits = world.node(id).room().short_of(copy.band, &copy.limit).is_none();
        if !fits || world.node(id).tasks.contains_key(&key) {
            continue;
        }
        let generation = copy.generation;
        world.put(id, copy);
        if *stop && !state.is_final() {
            world.node(id).stops.insert(key, generation);
        }
    }
    world.seq = 20;
    for (which, index, at) in &sketch.offers {
        let Some((owner, name)) = names.get(usize::from(*which)) else { continue };
        let wanted = world.intent().jobs[&job(owner, name)].indexes().any(|i| i == *index);
        let key = world.key(owner, name, *index);
        let nowhere =
            world.view.nodes.values().all(|n| !n.tasks.contains_key(&key) && !n.offers.contains_key(&key));
        if wanted && nowhere {
            world.offer(node(*at), owner, name, *index);
        }
    }
    if sketch.old_names {
        world.view.old_names = world.ledger.jobs.keys().cloned().collect();
    }
    for (at, (_, _, zone, standing, predicted)) in sketch.nodes.iter().enumerate() {
        let id = at as u64 + 1;
        let books = &mut world.node(id).books;
        let peak = books.limits().0.into_iter().zip(predicted.iter().cycle());
        let peak = peak.map(|((name, limit), permille)| (name, limit * permille / 1000)).collect();
        books.predicted = predicted.map(|_| Predicted { peak: Resources(peak), ..Default::default() });
        world.label(id, "zone", &format!("z{zone}"));
        let standings = [Standing::Live, Standing::Unheard, Standing::Away, Standing::Gone];
        world.node(id).standing = standings[usize::from(*standing)];
        if *standing == 1 {
            let name = world.node(id).name.clone();
            *world.node(id) = NodeView { name, ..Default::default() };
        }
    }
    world
}

/// What runs or may run: copies that have not ended and open offers, on nodes that are not gone.
fn present(world: &World) -> Vec<(TaskKey, String, bool)> {
    let nodes = world.view.nodes.values().filter(|n| n.standing != Standing::Gone);
    nodes
        .flat_map(|n| {
            let copies = n
                .tasks
                .iter()
                .map(|(key, t)| (*key, format!("{}/{}", t.job, key.index), !t.state.is_final()));
            let offers = n.offers.iter().map(|(key, o)| (*key, format!("{}/{}", o.job, key.index), true));
            copies.chain(offers).collect::<Vec<_>>()
        })
        .collect()
}

/// Prod fits by limits, whatever the others have; and each of the others, when it was its turn, beside all that was
/// predicted and promised.
fn enough(node: &NodeView, asked: Vec<(Band, &Resources)>) -> Result<(), TestCaseError> {
    let Some(info) = &node.info else { return Ok(()) };
    for resource in [CPU, MEMORY] {
        let limit = |prod: bool| -> u64 {
            let bands = node.books.bands.iter().filter(|(band, _)| band.is_prod() == prod);
            let amended = node.amended.values().filter(|a| a.band.is_prod() == prod).map(|a| &a.more);
            let open = node.offers.values().filter(|o| o.band.is_prod() == prod).map(|o| &o.limit);
            bands.map(|(_, book)| &book.limit).chain(amended).chain(open).map(|of| of.get(resource)).sum()
        };
        let (mut prod, limits) = (limit(true), limit(true) + limit(false));
        let open = limits - node.books.limits().get(resource);
        let mut all = node.books.predicted.as_ref().map_or(limits, |p| p.peak.get(resource) + open);
        for (band, amounts) in &asked {
            let amount = amounts.get(resource);
            all += amount;
            prod += if band.is_prod() { amount } else { 0 };
            let held = if band.is_prod() { prod } else { all };
            let fits = amount == 0 || held <= info.capacity.get(resource);
            prop_assert!(fits, "{} gets too much {resource}", node.name);
        }
    }
    Ok(())
}

fn check(world: &World, plan: &Plan) -> Result<(), TestCaseError> {
    for (id, node) in &world.view.nodes {
        let amends = plan.amends.iter().filter(|a| a.node == *id).map(|a| (a.spec.band, &a.more));
        let offers = plan.offers.iter().filter(|o| o.node == *id).map(|o| (o.spec.band, &o.spec.limit));
        let asked = amends.chain(offers).collect();
        enough(node, asked)?;
    }
    let mut offered = BTreeSet::new();
    let present = present(world);
    for offer in &plan.offers {
        let node = &world.view.nodes[&offer.node];
        prop_assert!(offered.insert(offer.key), "{} is offered twice", offer.key);
        prop_assert_eq!(node.standing, Standing::Live);
        // PROTOCOL 2, 15, 16: nothing of that name is left anywhere.
        let name = format!("{}/{}", offer.spec.job, offer.key.index);
        prop_assert!(present.iter().all(|(_, other, _)| *other != name), "{} is still somewhere", name);
        // PROTOCOL 11.
        prop_assert!(world.view.complete() || !world.view.old_names.contains(&offer.spec.job));
    }
    // Every wanted index runs, is offered, is being recorded as ended, or says why not.
    let intent = world.intent();
    for wanted in intent.jobs.values() {
        for index in wanted.indexes() {
            let key = wanted.task(index);
            let runs = present.iter().any(|(k, _, holds)| *k == key && *holds);
            let finished = world.view.nodes.values().filter(|n| n.standing != Standing::Gone).any(|n| {
                n.tasks.get(&key).is_some_and(|t| t.state.is_final() && t.kind == placement::job::Kind::Batch)
            });
            let pending = plan.pending.get(&key).map(|p| p.obstacles.len());
            prop_assert!(pending != Some(0), "{key} waits without a reason");
            prop_assert!(
                runs || finished || offered.contains(&key) || pending.is_some(),
                "{key} is in no bucket"
            );
        }
    }
    // Orders go to live nodes and name what they have; nothing that is wanted is forgotten as a success.
    for amend in &plan.amends {
        // What is changed is there, on a live node, is not stopped by the same plan, and keeps its generation.
        let node = &world.view.nodes[&amend.node];
        prop_assert_eq!(node.standing, Standing::Live);
        prop_assert_eq!(node.tasks[&amend.key].generation, amend.generation);
        prop_assert!(!node.stopping(amend.key, amend.generation), "it is being stopped");
        prop_assert!(plan.stops.iter().all(|s| (s.node, s.key) != (amend.node, amend.key)), "stopped too");
        prop_assert!(world.view.complete() || !world.view.old_names.contains(&amend.spec.job));
    }
    for stop in &plan.stops {
        let node = &world.view.nodes[&stop.node];
        prop_assert_eq!(node.standing, Standing::Live);
        prop_assert!(!node.stopping(stop.key, stop.generation), "stopped twice");
        prop_assert!(node.tasks.contains_key(&stop.key) || node.offers.contains_key(&stop.key));
    }
    for (id, key) in &plan.forgets {
        let copy = &world.view.nodes[id].tasks[key];
        let wanted = intent.verdict(*key) == Verdict::Wanted;
        prop_assert!(
            copy.state.is_final()
                && !(wanted && copy.state == State::Succeeded && copy.kind == placement::job::Kind::Batch)
        );
    }
    for done in &plan.complete {
        // PROTOCOL 26.
        let key = TaskKey { uid: done.uid, index: done.index };
        prop_assert!(world.view.complete());
        prop_assert!(present.iter().all(|(k, _, holds)| *k != key || !holds), "{key} may still run");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn plans_keep_the_rules(sketch in sketch()) {
        let world = build(&sketch);
        check(&world, &world.plan())?;
    }

    #[test]
    fn the_order_in_which_the_world_was_gathered_does_not_matter(sketch in sketch()) {
        let world = build(&sketch);
        let mut other = world.clone();
        other.view.nodes = world.view.nodes.clone().into_iter().rev().map(|(id, mut node)| {
            node.tasks = node.tasks.into_iter().rev().collect();
            node.offers = node.offers.into_iter().rev().collect();
            (id, node)
        }).collect();
        other.ledger.jobs = other.ledger.jobs.clone().into_iter().rev().collect();
        prop_assert_eq!(world.plan(), other.plan());
        // Reading the ledger again, with what was read before, reads the same.
        let intent = world.intent();
        prop_assert_eq!(&placement::intent::Intent::read(&world.ledger, &intent), &intent);
    }

    #[test]
    fn a_world_that_obeys_settles_and_then_nothing_is_left_to_do(sketch in sketch()) {
        let mut world = build(&sketch);
        // All members report, and whatever was on its way arrives.
        for node in world.view.nodes.values_mut().filter(|n| n.standing == Standing::Away) {
            node.standing = Standing::Live;
        }
        let ids: Vec<NodeId> = world.view.nodes.keys().copied().collect();
        for id in ids {
            world.node(id.0).offers.clear();
            let stops: Vec<TaskKey> = std::mem::take(&mut world.node(id.0).stops).into_keys().collect();
            for key in stops {
                world.end(id, key);
            }
        }
        for _ in 0..100 {
            let plan = world.plan();
            check(&world, &plan)?;
            if plan.is_empty() {
                break;
            }
            world.obey(&plan);
        }
        let plan = world.plan();
        prop_assert!(plan.is_empty(), "{:?}", plan);
        prop_assert_eq!(world.plan(), plan);
    }
}
