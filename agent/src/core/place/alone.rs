//! What a node can say by itself while no placer acts here: the ledger as it knows it, and what runs on it.

use std::sync::Arc;

use placement::{ids::Activation, ledger::Ledger, node::NodeInfo, task::Report, view::Standing};

use super::{Active, PlaceConfig, PlaceCore};
use crate::{core::Core, event::Now};

/// A node's own view of itself.
#[derive(Debug, Clone)]
pub struct Own {
    info: NodeInfo,
    reports: Vec<Report>,
}

impl Own {
    pub fn of(core: &Core) -> Own {
        Own { info: core.info().clone(), reports: core.reports() }
    }
}

impl PlaceCore {
    /// To be read only: it decides nothing, and knows of no other node.
    pub fn alone(ledger: Arc<Ledger>, own: Own, now: Now) -> PlaceCore {
        let mut active = Active::new(PlaceConfig::default(), Activation::default(), ledger, now);
        let node = active.view.nodes.entry(own.info.id).or_default();
        node.standing = Standing::Live;
        for report in &own.reports {
            if report.state.holds_resources() {
                node.books.add(report.band, &report.limit, &report.reservation);
            }
            node.usage.add(&report.usage);
        }
        node.tasks = own.reports.into_iter().map(|report| (report.key, report)).collect();
        node.info = Some(own.info);
        PlaceCore { config: PlaceConfig::default(), active: Some(active) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use placement::{
        ids::{Generation, JobKey, NodeId, TaskKey, Uid, Version},
        job::{Band, Kind},
        resources::Resources,
        task::State,
    };

    use super::*;

    #[test]
    fn what_runs_on_this_node_is_seen_without_a_placer() {
        let info = NodeInfo {
            id: NodeId(1),
            name: "n1".into(),
            addr: String::new(),
            version: String::new(),
            labels: BTreeMap::new(),
            capacity: Resources::new(1000, 1 << 30),
            images: Default::default(),
        };
        let report = Report {
            key: TaskKey { uid: Uid { cell: 1, index: 7 }, index: 2 },
            job: JobKey { owner: "ann".into(), name: "web".into() },
            kind: Kind::Service,
            band: Band::Batch,
            priority: 150,
            generation: Generation { cell: 1, activation: 3, seq: 1 },
            version: Version { cell: 1, number: 1 },
            state: State::Running,
            image: "hello:1".into(),
            digest: String::new(),
            pid: Some(42),
            ports: BTreeMap::new(),
            restarts: 0,
            restart_at: 0,
            healthy: None,
            since_ms: 0,
            reason: None,
            exit: None,
            limit: Resources::new(100, 1 << 20),
            reservation: Resources::new(100, 1 << 20),
            usage: Resources::default(),
        };
        let own = Own { info, reports: vec![report] };
        let core = PlaceCore::alone(Arc::default(), own, Now { mono_ms: 0, wall_ms: 0 });
        let seen: Vec<_> = core.tasks().into_iter().map(|t| (t.key.index, t.state, t.node)).collect();
        assert_eq!(seen, [(2, State::Running, Some(NodeId(1)))]);
        let nodes = core.nodes();
        assert_eq!((nodes.len(), nodes[0].tasks), (1, 1));
        assert_eq!(nodes[0].limits, Resources::new(100, 1 << 20));
    }
}
