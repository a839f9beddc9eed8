//! `covey doctor`: each node examines itself and reaches for the others; the one that was asked puts it together.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use gossip::wire::{
    ask::{Question, Told},
    examine::{Disk, Examined, Reach, Warned},
};
use nix::sys::statvfs::statvfs;
use placement::{ids::NodeId, view::Standing};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};

use super::Services;
use crate::{
    clock,
    dir::read_json,
    doctor::{Facts, Weight, diagnose},
    guard::disk::is_weighed,
    identity::Identity,
    ledger::Role,
    peers::Peers,
};

/// For one other to answer.
const REACH: Duration = Duration::from_secs(2);
/// For one that membership does not see: it hardly will.
const REACH_DEAD: Duration = Duration::from_millis(700);
/// For a node's findings: it waits for others meanwhile.
const EXAMINE: Duration = Duration::from_secs(4);
/// How many others each node reaches for: in a larger cell those that come next in order, so that each is reached for
/// by as many.
const OTHERS: usize = 32;

/// The document: `{as_of, stale, missing, healthy, items, nodes, pairs}`, items being the findings.
pub(super) async fn doctor(services: &Services) -> Value {
    let cell = &services.cell;
    let ledger = cell.state();
    let mut asked = JoinSet::new();
    for node in ledger.roster.keys().copied().filter(|node| *node != cell.me()) {
        let peers = cell.peers.clone();
        asked.spawn(async move {
            let patience = if peers.is_alive(node) { EXAMINE } else { REACH_DEAD };
            (node, peers.ask_within(node, &Question::Examine, patience).await)
        });
    }
    let mut facts = Facts {
        me: cell.me(),
        roster: ledger.roster.iter().map(|(id, member)| (*id, member.name.clone())).collect(),
        voters: cell.ledger.voters(),
        ..Facts::default()
    };
    facts.examined.insert(cell.me(), examine(services).await);
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok((node, Ok(Told::Examined(examined)))) => drop(facts.examined.insert(node, *examined)),
            Ok((node, Ok(_))) => drop(facts.mute.insert(node, "it answered something else".to_owned())),
            Ok((node, Err(error))) => drop(facts.mute.insert(node, error.of_it())),
            Err(error) => tracing::warn!("a part of the examination broke off: {error}"),
        }
    }
    facts.alive = cell.peers.alive();
    facts.now_ms = clock::now().wall_ms;
    document(&facts)
}

/// What this node finds out about itself and its ways to the others.
pub(crate) async fn examine(services: &Services) -> Examined {
    let cell = &services.cell;
    let me = cell.me();
    let ledger = cell.state();
    // Those after this one, then those before it.
    let next = ledger.roster.range(me..).skip(1).chain(ledger.roster.range(..me));
    let mut reaching = JoinSet::new();
    for node in next.map(|(id, _)| *id).filter(|id| *id != me).take(OTHERS) {
        reaching.spawn(reach(cell.peers.clone(), node));
    }
    let alive = cell.peers.alive();
    let silent = services.placer.read(move |core| {
        let quiet = |(id, node): (&NodeId, &placement::view::NodeView)| {
            (node.standing != Standing::Live && alive.contains(id)).then_some(*id)
        };
        core.view().map(|(_, view)| view.nodes.iter().filter_map(quiet).collect::<Vec<_>>())
    });
    let silent = silent.await.flatten();
    let mut reaches: Vec<Reach> = Vec::new();
    while let Some(reached) = reaching.join_next().await {
        reaches.extend(reached.ok());
    }
    reaches.sort_by_key(|reach| reach.node);
    Examined {
        node: me,
        name: cell.name(me),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        applied: ledger.applied,
        voter: cell.ledger.voters().contains(&me),
        places: silent.is_some(),
        broken: *cell.ledger.role().borrow() == Role::Broken,
        twin: cell.has_twin(),
        disk: disk(services),
        certificate_ends_ms: services.bundles.parent().and_then(certificate_ends),
        silent: silent.unwrap_or_default(),
        warnings: services.journal.warnings(),
        reaches,
    }
}

/// There and back, and what the other's clock says.
async fn reach(peers: Peers, node: NodeId) -> Reach {
    let patience = if peers.is_alive(node) { REACH } else { REACH_DEAD };
    let (sent, before) = (clock::now().wall_ms, Instant::now());
    let answer = peers.ask_within(node, &Question::Ping, patience).await;
    let took = before.elapsed();
    let unreached = |why: String| Reach { node, rtt_us: None, ahead_ms: None, why: Some(why) };
    match answer {
        Ok(Told::Pong { wall_ms }) => {
            let half = u64::try_from(took.as_millis() / 2).unwrap_or(0);
            let ahead = i128::from(wall_ms) - i128::from(sent.saturating_add(half));
            Reach {
                node,
                rtt_us: u64::try_from(took.as_micros()).ok(),
                ahead_ms: i64::try_from(ahead).ok(),
                why: None,
            }
        }
        Ok(_) => unreached("it answered something else".to_owned()),
        Err(error) => unreached(error.of_it()),
    }
}

fn disk(services: &Services) -> Option<Disk> {
    let path = &services.bundles;
    let stat = statvfs(path).ok()?;
    let unit = stat.fragment_size();
    Some(Disk {
        free_bytes: stat.blocks_available() * unit,
        size_bytes: stat.blocks() * unit,
        weighed: is_weighed(&services.tree, path),
    })
}

/// Of the certificate on disk, which is the newest.
fn certificate_ends(data: &Path) -> Option<u64> {
    let identity: Identity = read_json(&data.join("identity.json"), "an identity").ok()??;
    let (_, until) = identity.credentials().ok()?.validity().ok()?;
    millis(until)
}

fn millis(time: SystemTime) -> Option<u64> {
    u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

fn document(facts: &Facts) -> Value {
    let findings = diagnose(facts);
    let name = |node: &NodeId| facts.roster.get(node).cloned().unwrap_or_else(|| node.to_string());
    let (newest, voting, clocks) = (facts.newest(), facts.voting(), facts.clocks());
    let nodes: Vec<Value> = facts
        .roster
        .iter()
        .map(|(id, name)| {
            let node = facts.examined.get(id);
            json!({
                "id": id,
                "name": name,
                "answers": node.is_some(),
                "alive": facts.alive.contains(id),
                "voter": voting.contains(id),
                "placer": node.is_some_and(|node| node.places),
                "version": node.map(|node| &node.version),
                "applied": node.map(|node| node.applied),
                "behind": node.map(|node| newest.saturating_sub(node.applied)),
                "clock_ahead_ms": clocks.get(id),
                "disk": node.and_then(|node| node.disk),
                "warnings": node.map(|node| {
                    let one = |warned: &Warned| json!({"text": warned.text, "time": clock::rfc3339(warned.at_ms)});
                    node.warnings.iter().map(one).collect::<Vec<_>>()
                }),
                "certificate_ends":
                    node.and_then(|node| node.certificate_ends_ms).map(clock::rfc3339),
            })
        })
        .collect();
    let pair = |from: &Examined, reach: &Reach| json!({"from": from.name, "to": name(&reach.node), "rtt_us": reach.rtt_us, "why": reach.why});
    let pairs: Vec<Value> = facts
        .examined
        .values()
        .flat_map(|from| from.reaches.iter().map(move |reach| pair(from, reach)))
        .collect();
    let missing: Vec<String> = facts.mute.keys().map(name).collect();
    json!({
        "as_of": clock::rfc3339(facts.now_ms),
        "stale": !facts.examined.values().any(|node| node.places),
        "missing": missing,
        "healthy": !findings.iter().any(|finding| finding.weight == Weight::Wrong),
        "items": findings,
        "nodes": nodes,
        "pairs": pairs,
    })
}
