//! No node runs more than it has room for (PROTOCOL 20): prod by its limits, the others by theirs. (Prod that comes later may
//! take the others' place; nothing is measured here, so nobody counts for less than its limit.)

use placement::{ids::NodeId, resources::Resources};

use super::{super::machine::Machine, Verdict};

pub(super) fn enough(id: NodeId, machine: &Machine) -> Verdict {
    for prod in [true, false] {
        let mut used = Resources::default();
        let side = machine.living().filter(|(_, run)| run.band.is_prod() == prod);
        side.for_each(|(_, run)| used.add(&run.limit));
        if let Some(short) = machine.info.capacity.short_of(&used) {
            return Err(format!("n{} is over its capacity (prod: {prod}): {short:?}", id.0));
        }
    }
    Ok(())
}
