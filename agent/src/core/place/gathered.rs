//! What the nodes say by themselves while no placer answers: the newest ledger that one of them has, and what runs on
//! each. To be read only: it decides nothing.

use std::sync::Arc;

use gossip::wire::ask::OwnPart;
use placement::{ids::Activation, ledger::Ledger, plan::Plan, plan::plan, view::Standing};

use super::{Active, PlaceConfig, PlaceCore};
use crate::{core::Core, event::Now};

/// What a node can say of itself.
pub fn own(core: &Core, applied: u64, voter: bool) -> OwnPart {
    OwnPart {
        node: core.info().clone(),
        books: core.books(),
        usage: core.usage(),
        tasks: core.reports(),
        promise: core.promise(),
        applied,
        voter,
        ended: core.endings(),
        strain: core.strain().clone(),
    }
}

impl PlaceCore {
    /// As if a placer had heard of these nodes, and of no other. What is wanted and nobody reports is `unknown` if a
    /// member is missing, and else `pending`.
    pub fn gathered(ledger: Arc<Ledger>, parts: Vec<OwnPart>, now: Now) -> PlaceCore {
        let mut active = Active::new(PlaceConfig::default(), Activation::default(), ledger, now);
        // Nobody is new to a placer that never was.
        active.view.nodes.values_mut().for_each(|node| node.standing = Standing::Unheard);
        for part in parts {
            // Also one that this ledger does not know yet: what runs there, runs.
            let node = active.view.nodes.entry(part.node.id).or_default();
            node.standing = Standing::Live;
            node.name.clone_from(&part.node.name);
            node.books = part.books;
            node.usage = part.usage;
            node.tasks = part.tasks.into_iter().map(|report| (report.key, report)).collect();
            node.info = Some(part.node);
        }
        active.view.now_ms = now.mono_ms;
        let planned = plan(&active.intent, &active.view);
        // Nobody carries it out: only what it says of those that wait is of interest.
        active.plan = Plan { pending: planned.pending, stuck: planned.stuck, ..Plan::default() };
        PlaceCore { config: PlaceConfig::default(), active: Some(active) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use placement::{
        ids::{CellId, Generation, JobKey, NodeId, TaskKey},
        job::Band,
        ledger::{Command, Entry, Expect},
        node::Books,
        task::{Report, State},
    };
    use serde_json::json;

    use super::*;
    use crate::shares::tests;

    /// A cell of nodes 1 to 3 that wants four copies of a job.
    fn ledger() -> Arc<Ledger> {
        let mut ledger = Ledger::default();
        let mut commands =
            vec![Command::Found { cell: CellId("ab".repeat(32)), name: "home".into(), generation: 1 }];
        for id in 1..=3 {
            commands.push(Command::Admit { node: NodeId(id), name: format!("n{id}") });
        }
        commands.push(Command::Submit {
            job: job(),
            document: json!({"name": "web", "count": 4, "task": {"image": "hello:1"}}),
            images: BTreeMap::from([("hello:1".into(), format!("sha256:{}", "0".repeat(64)))]),
            expect: Expect::Any,
        });
        for (index, command) in (1..).zip(commands) {
            ledger.apply(index, &Entry { request: None, at_ms: 0, command });
        }
        Arc::new(ledger)
    }

    fn job() -> JobKey {
        JobKey { owner: "ann".into(), name: "web".into() }
    }

    /// Node `id`, with copies of these indexes: (index, activation of its generation).
    fn part(ledger: &Ledger, id: u64, copies: &[(u32, u64)]) -> OwnPart {
        let record = &ledger.jobs[&job()];
        let report = |(index, activation): &(u32, u64)| Report {
            key: TaskKey { uid: record.uid, index: *index },
            generation: Generation { cell: 1, activation: *activation, seq: 0 },
            version: record.version,
            ..tests::report("web", *index, Band::Batch, State::Running, [100, 100, 0])
        };
        let tasks: Vec<Report> = copies.iter().map(report).collect();
        let mut books = Books::default();
        tasks.iter().for_each(|task| books.add(task.band, &task.limit, &task.reservation));
        OwnPart { books, applied: ledger.applied, ..tests::part(id, tasks, Vec::new()) }
    }

    fn rows(core: &PlaceCore) -> Vec<(u32, State, Option<u64>)> {
        core.tasks_of(&job()).into_iter().map(|t| (t.key.index, t.state, t.node.map(|n| n.0))).collect()
    }

    const NOW: Now = Now { mono_ms: 0, wall_ms: 0 };

    #[test]
    fn what_nobody_reports_may_run_on_a_node_that_is_missing() {
        let ledger = ledger();
        let parts = vec![part(&ledger, 1, &[(0, 3)]), part(&ledger, 2, &[(1, 3)])];
        let core = PlaceCore::gathered(ledger, parts, NOW);
        let (running, unknown) = (State::Running, State::Unknown);
        assert_eq!(
            rows(&core),
            [(0, running, Some(1)), (1, running, Some(2)), (2, unknown, None), (3, unknown, None)]
        );
        let reason = core.tasks_of(&job()).pop().unwrap().reason.unwrap();
        assert!(reason.contains("n3"), "{reason}");
        let job = core.job(&job()).unwrap();
        assert_eq!((job.running, job.pending), (2, 2));
        let nodes: Vec<_> = core.nodes().into_iter().map(|n| (n.name, n.standing, n.tasks)).collect();
        let row = |name: &str, standing, tasks| (name.to_string(), standing, tasks);
        let (live, unheard) = (Standing::Live, Standing::Unheard);
        assert_eq!(nodes, [row("n1", live, 1), row("n2", live, 1), row("n3", unheard, 0)]);
    }

    #[test]
    fn with_all_heard_the_newest_copy_counts_and_what_is_nowhere_is_pending() {
        let ledger = ledger();
        let parts = vec![
            part(&ledger, 1, &[(0, 3), (1, 3)]),
            part(&ledger, 2, &[(1, 7), (2, 3)]),
            part(&ledger, 3, &[]),
        ];
        let core = PlaceCore::gathered(ledger, parts, NOW);
        let running = State::Running;
        assert_eq!(
            rows(&core),
            [(0, running, Some(1)), (1, running, Some(2)), (2, running, Some(2)), (3, State::Pending, None)]
        );
    }

    #[test]
    fn what_this_ledger_does_not_know_yet_is_shown_where_it_runs() {
        let newer = ledger();
        let parts = vec![part(&newer, 1, &[(2, 3)])];
        let core = PlaceCore::gathered(Arc::default(), parts, NOW);
        assert_eq!(rows(&core), [(2, State::Running, Some(1))]);
        assert_eq!((core.nodes().len(), core.nodes()[0].name.as_str()), (1, "n1"));
    }
}
