//! Labels that would make a node fit.

use alloc::{format, string::String, vec::Vec};

use super::{Asked, Fix};
use crate::{
    feasible::{Place, met, places},
    job::{Constraint, Op},
    node::DETECTED,
    plan::plan,
};

/// Nodes that are tried.
const TRIED: usize = 8;

impl Asked<'_> {
    /// For what operators say of their machines, not for what an agent sees by itself: a node without a word on it comes
    /// before one of which something else was said.
    pub(super) fn label(&self, index: u32) -> Option<Fix> {
        let job = self.wanted.job.as_ref().ok()?;
        let here = places(self.view);
        let open = here.iter().filter(|p| p.closed(job.band).is_none());
        let mut candidates: Vec<_> = open.filter_map(|p| Some((missing(p, &job.require)?, p))).collect();
        let changed = |place: &Place<'_>, labels: &[(&str, &str)]| {
            labels.iter().filter(|(label, _)| place.label(label).is_some()).count()
        };
        candidates.sort_by_key(|(labels, place)| (changed(place, labels), labels.len(), place.id));
        let (labels, place) = candidates
            .into_iter()
            .take(TRIED)
            .find(|(labels, place)| self.runs_with(labels, place, index))?;
        let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}={value}")).collect();
        Some(Fix {
            command: format!("covey label {} {}", place.node.name, labels.join(" ")),
            text: format!("if that is true of {}", place.node.name),
            cost: 4 + labels.len() as u32,
        })
    }

    fn runs_with(&self, labels: &[(&str, &str)], place: &Place<'_>, index: u32) -> bool {
        let mut view = self.view.clone();
        let Some(node) = view.nodes.get_mut(&place.id) else { return false };
        node.labels.extend(labels.iter().map(|(label, value)| ((*label).into(), (*value).into())));
        let plan = plan(self.intent, &view);
        self.places(&plan, index) || plan.stops.iter().any(|s| s.key == self.wanted.task(index))
    }
}

/// What a node would have to be labelled with. None if that is nothing, or not for an operator to say.
fn missing<'a>(place: &Place<'_>, require: &'a [Constraint]) -> Option<Vec<(&'a str, &'a str)>> {
    let mut labels = Vec::new();
    for unmet in require.iter().filter(|c| !met(c, place.label(&c.label))) {
        if !matches!(unmet.op, Op::Eq | Op::In) || DETECTED.contains(&unmet.label.as_str()) {
            return None;
        }
        labels.push((unmet.label.as_str(), unmet.values.first()?.as_str()));
    }
    (!labels.is_empty()).then_some(labels)
}
