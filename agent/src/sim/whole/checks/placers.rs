//! One placer at a time: whoever sends an order is the newest that has begun (PROTOCOL 3, 6).

use placement::ids::{Activation, NodeId};

use super::Verdict;

#[derive(Default)]
pub(in super::super) struct Placers {
    newest: Option<(Activation, NodeId)>,
}

impl Placers {
    pub(super) fn begins(&mut self, id: NodeId, activation: Activation) -> Verdict {
        match self.newest.replace((activation, id)) {
            Some((before, other)) if before >= activation => {
                Err(format!("n{} begins with {activation:?} after n{} did with {before:?}", id.0, other.0))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn sends(&self, id: NodeId, acts: Option<Activation>) -> Verdict {
        match self.newest {
            Some(newest) if acts.map(|acts| (acts, id)) == Some(newest) => Ok(()),
            newest => Err(format!("n{} gives an order as placer {acts:?}; the newest is {newest:?}", id.0)),
        }
    }
}
