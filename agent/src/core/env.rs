//! What the runner needs to make a container.

use std::collections::BTreeMap;

use placement::ids::TaskKey;

use super::Core;
use crate::event::{Action, StartRun};

impl Core {
    /// The start of a task's present run.
    pub(crate) fn start_run(&self, key: TaskKey) -> Option<Action> {
        let task = self.tasks.get(&key)?;
        let run = task.run_id(task.run.as_ref()?.number);
        let spec = &task.record.spec;
        Some(Action::Start(Box::new(StartRun {
            run,
            owner: spec.job.owner.clone(),
            name: spec.job.name.clone(),
            image: spec.image.clone(),
            hostname: format!("{}-{}", spec.job.name, key.index),
            digest: spec.digest.clone(),
            command: spec.command.clone(),
            env: self.environment(key),
            grace_ms: spec.grace_ms,
            band: spec.band,
            limit: spec.limit.clone(),
            ports: task.record.ports.clone(),
            container: spec.container.clone(),
        })))
    }

    /// The task's own variables, and covey's over them: a task cannot pass for another.
    fn environment(&self, key: TaskKey) -> BTreeMap<String, String> {
        let Some(task) = self.tasks.get(&key) else { return BTreeMap::new() };
        let spec = &task.record.spec;
        let mut env = spec.env.clone();
        for (name, port) in &task.record.ports {
            env.insert(format!("PORT_{name}"), port.to_string());
        }
        let own = [
            ("COVEY_CELL", self.config.cell.clone()),
            ("COVEY_OWNER", spec.job.owner.clone()),
            ("COVEY_JOB", spec.job.name.clone()),
            ("COVEY_INDEX", key.index.to_string()),
            ("COVEY_GENERATION", task.record.generation.to_string()),
            ("COVEY_NODE", self.config.node.name.clone()),
            ("COVEY_GRACE_MS", spec.grace_ms.to_string()),
        ];
        env.extend(own.map(|(name, value)| (name.to_string(), value)));
        env
    }
}
