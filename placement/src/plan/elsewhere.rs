//! A task that failed on its node again and again is tried on another. The node remembers that for a while and says so in its
//! reports; while it does, other nodes come first for the job.

use alloc::{format, string::String};

use super::copies::Copy;
use crate::{change::Change, intent::Wanted, node::Bad, obstacle::No, view::NodeView};

/// What the node remembers of what the job is now.
pub fn failed_on<'a>(node: &'a NodeView, wanted: &Wanted) -> Option<&'a Bad> {
    let bad = node.info.as_ref().map(|info| info.bad.as_slice()).unwrap_or_default();
    bad.iter().find(|bad| {
        let index = bad.key.index;
        bad.key.uid == wanted.uid()
            // With other limits it may do well.
            && wanted.change(bad.version, index) < Change::Live
            && bad.restart_at >= wanted.restart_at(index)
    })
}

/// Whether this very copy failed there so often that another node is to try.
pub(super) fn asks(copy: &Copy<'_>) -> bool {
    why(copy).is_some()
}

fn why<'a>(copy: &Copy<'a>) -> Option<&'a Bad> {
    let info = copy.node.info.as_ref()?;
    info.bad.iter().find(|b| b.key == copy.report.key && b.generation == copy.report.generation)
}

/// Why it is stopped there.
pub(super) fn reason(copy: &Copy<'_>) -> String {
    match why(copy) {
        Some(bad) => {
            let (node, until) = (&copy.node.name, bad.until());
            if bad.reclaimed {
                return format!("its room was taken back on {node}: it goes on elsewhere");
            }
            format!("it failed {} times in a row on {node}: it is tried elsewhere until {until}", bad.times)
        }
        None => String::new(),
    }
}

/// Why a node that has room is not tried now.
pub(super) fn no(bad: &Bad) -> No {
    if bad.reclaimed {
        return No::Refused(format!("its room was taken back there: {}", bad.why));
    }
    No::Refused(format!("it failed {} times in a row there: {}", bad.times, bad.why))
}
