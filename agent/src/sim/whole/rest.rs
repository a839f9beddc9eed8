//! What must come about when nothing goes wrong any more.

use std::{collections::BTreeSet, sync::Arc};

use placement::{
    ids::{NodeId, TaskKey},
    ledger::Ledger,
    obstacle::No,
};

use super::{agent::Agent, faults::Run, world::World};
use crate::core::place::Settled;

/// Who acts, with the newest ledger.
fn placer(world: &World) -> Option<(NodeId, &Agent, Arc<Ledger>)> {
    let acting = world.agents.iter().filter(|(_, agent)| agent.placer.reign.acts().is_some());
    let (id, agent) = acting.max_by_key(|(_, agent)| agent.placer.reign.acts())?;
    Some((*id, agent, agent.placer.view.ledger()))
}

fn nobody(world: &World) -> String {
    let ledgers: Vec<String> = world.agents.values().map(|agent| agent.placer.shown()).collect();
    format!("nobody acts as the placer: {ledgers:#?}")
}

/// Each wanted index runs among these, or there is no room for it (batch: runs, or has ended).
pub(super) fn runs_again(run: &Run, side: &BTreeSet<NodeId>) -> Result<(), String> {
    // A change of voters that was chosen before anybody noticed the last death may need one who is dead.
    if run.majority().is_none_or(|now| now != *side) {
        return Ok(());
    }
    let world = run.world.lock().unwrap();
    let Some((id, agent, ledger)) = placer(&world) else { return Err(nobody(&world)) };
    if !side.contains(&id) {
        return Err(format!("n{} acts on the wrong side of {side:?}", id.0));
    }
    let running = world.checks.running();
    for (key, job, _) in ledger.wanted() {
        let runs = running.get(&(job.clone(), key.index));
        let here = runs.is_some_and(|runs| runs.iter().any(|(id, run)| run.key == key && side.contains(id)));
        if !here && !no_room(agent, key) {
            return Err(format!("{job}/{} does not run: {:?}", key.index, agent.placer.core.plan()));
        }
    }
    Ok(())
}

fn no_room(agent: &Agent, key: TaskKey) -> bool {
    let Some(plan) = agent.placer.core.plan() else { return false };
    let Some(pending) = plan.pending.get(&key) else { return false };
    let mut short = pending.obstacles.iter().map(|o| &o.no);
    !pending.unknown
        && short.clone().any(|no| matches!(no, No::Short { .. } | No::Draining))
        && short.all(|no| matches!(no, No::Short { .. } | No::Draining | No::Gone | No::Volume { .. }))
}

/// Exactly the wanted copies are there, and the placer has nothing more to say.
pub(super) fn at_rest(run: &Run) -> Result<(), String> {
    let world = run.world.lock().unwrap();
    let Some((_, agent, ledger)) = placer(&world) else { return Err(nobody(&world)) };
    let core = &agent.placer.core;
    let Some(plan) = core.plan().filter(|plan| plan.is_empty()) else {
        return Err("a plan is not carried out".into());
    };
    if world.asking > 0 {
        return Err(format!("{} requests are not answered", world.asking));
    }
    let mut running = world.checks.running();
    for (key, job, _) in ledger.wanted() {
        let runs = running.remove(&(job.clone(), key.index)).unwrap_or_default();
        // What its data holds on a drained node waits out its back-off there, since it cannot be moved.
        let waits = usize::from(no_room(agent, key) || runs.is_empty() && plan.stuck.contains_key(&key));
        let mine = runs.iter().filter(|(_, run)| run.key == key).count();
        if (runs.len(), mine) != (1 - waits, 1 - waits) {
            return Err(format!("{job}/{} runs as {runs:?}: {plan:?}", key.index));
        }
        let drained = |node: &NodeId| ledger.roster.get(node).is_some_and(|member| member.draining);
        if let Some((node, run)) = runs.iter().find(|(node, _)| drained(node))
            && !plan.stuck.contains_key(&key)
        {
            return Err(format!("{run} stays on n{}, which is drained: {plan:?}", node.0));
        }
    }
    if let Some((name, runs)) = running.into_iter().find(|(_, runs)| !runs.is_empty()) {
        return Err(format!("{}/{} runs as {runs:?}, and nobody wants it", name.0, name.1));
    }
    for (name, record) in &ledger.jobs {
        let mut keys = record.wanted().map(|index| TaskKey { uid: record.uid, index });
        // What its data holds on a drained node has no other version either.
        let waits = keys.any(|key| no_room(agent, key) || plan.stuck.contains_key(&key));
        if !record.stopped && !record.is_batch() && !waits && core.settled(name) != Some(Settled::Yes) {
            return Err(format!("{name} is not settled: {:?}", core.settled(name)));
        }
    }
    world.checks.acked.all_in(&ledger)
}
