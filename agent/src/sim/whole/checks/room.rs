//! No node runs more than it has room for (PROTOCOL 20).

use placement::{ids::NodeId, resources::Resources};

use super::{super::machine::Machine, Verdict};

pub(super) fn enough(id: NodeId, machine: &Machine) -> Verdict {
    let mut used = Resources::default();
    machine.living().for_each(|(_, run)| used.add(&run.limit));
    match machine.info.capacity.short_of(&used) {
        Some(short) => Err(format!("n{} is over its capacity: {short:?}", id.0)),
        None => Ok(()),
    }
}
