//! An index with a volume starts where its newest data is, but for data on a node that was given up.

use std::collections::BTreeMap;

use placement::{
    ids::{Generation, JobKey, NodeId},
    node::Held,
};

use super::super::machine::Machine;
use crate::event::RunId;

/// Whether its data is here already; `given_up`: what is on that node and not newer need not be waited for. Nor does a
/// copy know of what a newer one has written since it was placed: it is told to stop.
pub(super) fn starts(
    id: NodeId,
    job: &JobKey,
    run: RunId,
    machines: &BTreeMap<NodeId, Machine>,
    given_up: impl Fn(NodeId, Generation) -> bool,
) -> Result<bool, String> {
    let job = job.to_string();
    let held = |machine: &Machine| -> Option<Generation> {
        let held: &Held = machine.info.volumes.get(&job)?.get(&run.key.index)?;
        Some(held.generation)
    };
    let here = held(&machines[&id]);
    let others = machines.iter().filter(|(other, _)| **other != id);
    let others = others.filter_map(|(other, machine)| Some((held(machine)?, *other)));
    let known =
        others.filter(|(generation, other)| *generation < run.generation && !given_up(*other, *generation));
    match known.max() {
        Some((newest, other)) if here.is_none_or(|here| here < newest) => Err(format!(
            "{job}/{} of {} starts on n{} with data of {here:?}, and n{} has {newest}",
            run.key.index, run.generation, id.0, other.0
        )),
        _ => Ok(here.is_some()),
    }
}
