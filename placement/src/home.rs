//! Where a task's volumes are: an index whose data is on a node starts there, or waits for it.
//!
//! As long as the node is in the roster and not gone. After that the index starts anew elsewhere, with the newest data
//! that is left, or none, and with a remark that says so.

use alloc::{
    format,
    string::{String, ToString},
};

use crate::{
    feasible::Place,
    ids::JobKey,
    job::{Template, container::Source},
    node::Held,
    obstacle::No,
    view::Standing,
};

/// What the nodes have of an index's volumes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Home {
    /// The only place where it may start now.
    pub at: Option<usize>,
    /// One of the volumes there.
    volume: String,
    /// Newer data is on a node that is gone: a sentence.
    pub lost: Option<String>,
}

impl Home {
    pub fn of(places: &[Place<'_>], job: &JobKey, index: u32, task: &Template) -> Home {
        if !task.container.volumes.iter().any(|v| matches!(v.source, Source::Name(_))) {
            return Home::default();
        }
        let job = job.to_string();
        let held = |at: usize| -> Option<(&Held, &str)> {
            let held = places[at].node.info.as_ref()?.volumes.get(&job)?.get(&index)?;
            let mut names = task.container.volumes.iter().filter_map(|v| match &v.source {
                Source::Name(name) if held.names.contains(name) => Some(name.as_str()),
                _ => None,
            });
            names.next().map(|name| (held, name))
        };
        let holders =
            (0..places.len()).filter_map(|at| held(at).map(|(held, name)| (held.generation, at, name)));
        let gone = |at: usize| places[at].node.standing == Standing::Gone;
        let newest = |is_gone: bool| holders.clone().filter(|(_, at, _)| gone(*at) == is_gone).max();
        let (here, left) = (newest(false), newest(true));
        let lost = left.filter(|left| here.is_none_or(|here| here.0 < left.0)).map(|(_, at, name)| {
            let node = &places[at].node.name;
            match here {
                Some((_, at, _)) => {
                    format!(
                        "the newest data of its volume {name} is on {node}, which is gone; {} has older",
                        places[at].node.name
                    )
                }
                None => format!("its volume {name} starts empty: the data is on {node}, which is gone"),
            }
        });
        let volume = here.map_or_else(String::new, |(_, _, name)| name.to_string());
        Home { at: here.map(|(_, at, _)| at), volume, lost }
    }

    /// Whether it may start at this place.
    pub fn allows(&self, at: usize) -> bool {
        self.at.is_none_or(|home| home == at)
    }

    /// Why it waits for one place alone.
    pub fn no(&self) -> No {
        No::Volume { volume: self.volume.clone() }
    }
}
