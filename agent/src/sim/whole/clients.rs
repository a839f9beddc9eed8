//! People and their clients: each asks some node for something, and again through another until it is answered.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use placement::{
    ids::{JobKey, NodeId, Principal, RequestId},
    ledger::{Answer, Command, Entry, Expect, RequestStamp},
};
use serde_json::json;

use super::world::{NOBODY, Shared, World};
use crate::sim::{
    cell::propose,
    runtime::{draw_from, happens, sleep, spawn_in},
};

const NAMES: [(&str, &str); 5] =
    [("api", "service"), ("web", "service"), (WITH_VOLUMES, "service"), ("etl", "batch"), ("sum", "batch")];
const WITH_VOLUMES: &str = "db";
/// A client gives up after so many tries.
const TRIES: u64 = 12;

/// What somebody may ask for.
fn wish(submits: bool, nodes: &[NodeId]) -> Command {
    let (name, kind) = NAMES[draw_from(0..NAMES.len() as u64) as usize];
    let job = JobKey { owner: "me".into(), name: name.into() };
    let index = happens(600).then(|| draw_from(0..3) as u32);
    let count = draw_from(0..4) as u32;
    match draw_from(0..10) {
        _ if submits => submit(job, kind, count.max(1)),
        0..5 => submit(job, kind, count),
        5..7 => Command::Scale { job, count, expect: Expect::Any },
        7 => Command::Restart { job, index },
        8 if happens(500) => {
            let node = nodes[draw_from(0..nodes.len() as u64) as usize];
            Command::Drain { node, on: happens(500) }
        }
        _ => Command::Stop { job, index },
    }
}

fn submit(job: JobKey, kind: &str, count: u32) -> Command {
    let cpu = [200, 300, 400][draw_from(0..3) as usize];
    let band = if happens(300) { "production" } else { "batch" };
    let volumes: &[_] =
        if job.name == WITH_VOLUMES { &[json!({"name": "data", "path": "/data"})] } else { &[] };
    let document = json!({
        "name": job.name, "kind": kind, "count": count, "band": band,
        "task": {
            "image": "hello:1", "cpu": format!("{cpu}m"), "grace": "400ms", "volumes": volumes,
            // Other limits are given in place, other variables need a new run.
            "env": {"LEVEL": if happens(300) { "debug" } else { "info" }},
        },
    });
    let images = BTreeMap::from([("hello:1".to_string(), "sha256:00".to_string())]);
    Command::Submit { job, document, images, expect: if happens(200) { Expect::Absent } else { Expect::Any } }
}

/// The node to ask next, and the way on from there: to whom it takes for the leader.
fn way(world: &World, nodes: &[NodeId]) -> Option<(NodeId, NodeId)> {
    let at = nodes[draw_from(0..nodes.len() as u64) as usize];
    let agent = world.agents.get(&at)?;
    let leader = agent.placer.leader().or(agent.placer_is)?;
    Some((at, leader))
}

/// Somebody asks for something, from now on until it is answered.
pub(super) fn ask(shared: &Shared, submits: bool) {
    let (command, nodes, number) = {
        let mut world = shared.lock().unwrap();
        let number = world.number();
        let nodes = world.ids();
        (wish(submits, &nodes), nodes, number)
    };
    if let Command::Drain { on: true, .. } = command {
        shared.lock().unwrap().reached("drain");
    }
    let stamp =
        RequestStamp { principal: Principal(format!("p{}", number % 3)), id: RequestId(number.to_string()) };
    let entry = Entry { request: Some(stamp.clone()), at_ms: number, command };
    shared.lock().unwrap().say(|_| format!("request {number}: {:?}", entry.command));
    shared.lock().unwrap().asking += 1;
    let shared = Arc::downgrade(shared);
    spawn_in(NOBODY, async move {
        for _ in 0..TRIES {
            let Some(world) = shared.upgrade() else { return };
            let (way, net) = {
                let world = world.lock().unwrap();
                (way(&world, &nodes), world.net.clone())
            };
            if let Some((at, leader)) = way
                && (at == leader || net.carry(at, leader).await)
            {
                let raft = world.lock().unwrap().agents.get(&leader).map(|agent| agent.placer.raft.clone());
                if let Some(raft) = raft
                    && let Some(answer) = propose(&raft, &entry).await
                    && (at == leader || net.carry(leader, at).await)
                    && world.lock().unwrap().answered(&stamp, at, answer)
                {
                    break;
                }
            }
            sleep(Duration::from_millis(draw_from(1..400))).await;
        }
        if let Some(world) = shared.upgrade() {
            world.lock().unwrap().asking -= 1;
        }
    });
}

impl World {
    /// Whether the node that was asked is still there to pass it on.
    fn answered(&mut self, stamp: &RequestStamp, at: NodeId, answer: Answer) -> bool {
        if !self.agents.contains_key(&at) {
            return false;
        }
        self.say(|_| format!("request {} through n{}: {answer:?}", stamp.id.0, at.0));
        self.reached("answer");
        self.checks.acked.acknowledged(stamp.clone(), answer);
        true
    }
}
