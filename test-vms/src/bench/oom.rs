//! Whom the kernel has killed for memory, by what it says in its log.

use std::collections::BTreeSet;
use std::process::Command;

use test_vms::node::Node;
use test_vms::{Error, Result};

use crate::band;

/// Kills below a node's cgroup that are known already.
pub(crate) struct Kills {
    node: String,
    seen: BTreeSet<String>,
    /// Those for the limit of a task.
    pub(crate) own: usize,
    /// The lines of all others.
    pub(crate) beyond: Vec<String>,
}

impl Kills {
    /// From now on.
    pub(crate) fn of(node: &Node) -> Result<Self> {
        let name = node.scratch().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut kills = Self { node: name, seen: BTreeSet::new(), own: 0, beyond: Vec::new() };
        kills.look()?;
        Ok(kills)
    }

    /// The log holds only so much, so it is to be looked at often.
    pub(crate) fn look(&mut self) -> Result<()> {
        let said = Command::new("dmesg").output();
        let said = said.map_err(|why| Error::Missing(format!("the kernel's log cannot be read: {why}")))?;
        for line in String::from_utf8_lossy(&said.stdout).lines().filter(|line| line.contains("oom-kill:")) {
            let field = |key| line.split(',').find_map(|field: &str| field.strip_prefix(key));
            let (Some(limit), Some(victim)) = (field("oom_memcg="), field("task_memcg=")) else { continue };
            if !victim.contains(&self.node) || !self.seen.insert(line.to_owned()) {
                continue;
            }
            if is_a_run(limit) {
                self.own += 1;
            } else {
                self.beyond.push(line.to_owned());
            }
        }
        Ok(())
    }
}

/// `…/BAND/RUN`.
fn is_a_run(cgroup: &str) -> bool {
    let above = cgroup.rsplit('/').nth(1);
    above.is_some_and(|name| band::ALL.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_has_a_cgroup_below_its_band() {
        assert!(is_a_run("/covey-node-x/covey-1/spare/free/1.5.0-1.3.0-0"));
        assert!(
            !is_a_run("/covey-node-x/covey-1/spare/free") && !is_a_run("/covey-node-x") && !is_a_run("/")
        );
    }
}
