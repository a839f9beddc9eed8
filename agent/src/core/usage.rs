//! What tasks use now. Reported when it moved, not each time it was measured.

use std::collections::BTreeMap;

use placement::resources::Resources;

use super::Core;
use crate::event::RunId;

/// A change below this share of the limit is not worth a report.
const WORTH_A_REPORT: u64 = 20;

impl Core {
    pub(crate) fn on_measured(&mut self, usage: BTreeMap<RunId, Resources>) {
        for (id, usage) in usage {
            let Some(task) = self.tasks.get_mut(&id.key).filter(|t| t.record.generation == id.generation)
            else {
                continue;
            };
            if task.run.as_ref().is_some_and(|r| r.number == id.run) {
                if moved(&task.reported_usage, &usage, &task.record.spec.limit) {
                    self.dirty.insert(id.key);
                }
                task.usage = usage;
            }
        }
    }
}

fn moved(from: &Resources, to: &Resources, limit: &Resources) -> bool {
    to.0.iter().any(|(name, now)| now.abs_diff(from.get(name)) > limit.get(name) / WORTH_A_REPORT)
}
