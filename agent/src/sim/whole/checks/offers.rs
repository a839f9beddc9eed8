//! No index is on offer twice (PROTOCOL 15).

use std::collections::BTreeSet;

use placement::view::View;

use super::Verdict;

pub(super) fn one_each(view: &View) -> Verdict {
    let mut open = BTreeSet::new();
    match view.nodes.values().flat_map(|node| node.offers.keys()).find(|key| !open.insert(**key)) {
        Some(key) => Err(format!("{key} is on offer twice")),
        None => Ok(()),
    }
}
