//! Who has how much of the cell: limits, reservations and use of tasks, put together by what one asks for. Of what the nodes
//! themselves say.

use std::collections::BTreeMap;

use gossip::wire::{
    ask::OwnPart,
    usage::{Ended, UsageBy},
};
use placement::{
    ids::{JobKey, NodeId},
    job::Band,
    node::Books,
    resources::Resources,
    task::{Report, State, Strain},
};

/// What tasks have in common that are put together. In the order in which they are shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    Band(Band),
    Owner(String),
    Job(JobKey),
    Node(NodeId),
    Task(JobKey, u32, NodeId),
}

/// Sums over tasks that hold resources.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Share {
    pub tasks: u32,
    pub limit: Resources,
    pub reservation: Resources,
    pub usage: Resources,
    /// Of the last one that was added.
    pub band: Option<Band>,
    pub state: Option<State>,
}

impl Share {
    fn add(&mut self, report: &Report) {
        self.tasks += 1;
        self.limit.add(&report.limit);
        self.reservation.add(&report.reservation);
        self.usage.add(&report.usage);
        (self.band, self.state) = (Some(report.band), Some(report.state));
    }

    /// Limit less reservation: what others may use meanwhile.
    pub fn reclaimed(&self) -> Resources {
        let mut reclaimed = self.limit.clone();
        reclaimed.sub(&self.reservation);
        reclaimed
    }
}

/// The tasks of these nodes that hold resources, put together. Every band and every node is there, also without tasks.
pub fn shares(parts: &[OwnPart], by: UsageBy) -> BTreeMap<Group, Share> {
    let mut shares: BTreeMap<Group, Share> = match by {
        UsageBy::Band => Band::ALL.map(|band| (Group::Band(band), Share::default())).into(),
        UsageBy::Node => parts.iter().map(|part| (Group::Node(part.node.id), Share::default())).collect(),
        UsageBy::Owner | UsageBy::Job | UsageBy::Task => BTreeMap::new(),
    };
    for (part, report) in holding(parts) {
        let (job, node) = (&report.job, part.node.id);
        let group = match by {
            UsageBy::Band => Group::Band(report.band),
            UsageBy::Owner => Group::Owner(job.owner.clone()),
            UsageBy::Job => Group::Job(job.clone()),
            UsageBy::Node => Group::Node(node),
            UsageBy::Task => Group::Task(job.clone(), report.key.index, node),
        };
        shares.entry(group).or_default().add(report);
    }
    shares
}

/// Those of some bands, all together.
pub fn of_bands(parts: &[OwnPart], which: impl Fn(Band) -> bool) -> Share {
    let mut share = Share::default();
    holding(parts).filter(|(_, report)| which(report.band)).for_each(|(_, report)| share.add(report));
    share
}

fn holding(parts: &[OwnPart]) -> impl Iterator<Item = (&OwnPart, &Report)> {
    let tasks = parts.iter().flat_map(|part| part.tasks.iter().map(move |report| (part, report)));
    tasks.filter(|(_, report)| report.state.holds_resources())
}

/// What a task of a prod band, and one of another, may still ask for on a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Room {
    pub prod: Resources,
    pub non_prod: Resources,
    /// What nobody but prod may ask for, beside what the tasks there are predicted to need.
    pub kept: Resources,
}

impl Room {
    pub fn of(books: &Books, capacity: &Resources) -> Room {
        let room = books.room(capacity);
        let kept = books.predicted.as_ref().map(|predicted| predicted.kept.clone());
        Room {
            prod: room.all_of(Band::Production),
            non_prod: room.all_of(Band::Batch),
            kept: kept.unwrap_or_default(),
        }
    }

    pub fn add(&mut self, other: &Room) {
        self.prod.add(&other.prod);
        self.non_prod.add(&other.non_prod);
        self.kept.add(&other.kept);
    }
}

/// The endings of all nodes, by band and cause.
pub fn endings(parts: &[OwnPart]) -> Vec<Ended> {
    let mut sums: BTreeMap<_, Ended> = BTreeMap::new();
    for ended in parts.iter().flat_map(|part| &part.ended) {
        let none = Ended { hour: 0, day: 0, told: 0, notified: 0, ..*ended };
        let sum = sums.entry((ended.band, ended.cause)).or_insert(none);
        let more = [
            (&mut sum.hour, ended.hour),
            (&mut sum.day, ended.day),
            (&mut sum.told, ended.told),
            (&mut sum.notified, ended.notified),
        ];
        more.into_iter().for_each(|(sum, more)| *sum = sum.saturating_add(more));
    }
    sums.into_values().collect()
}

/// How a band's tasks fare: what they move, of all nodes together; what share of the time they wait or are held back, of the
/// node where that is most. `None` where no node tells.
pub fn strain(parts: &[OwnPart], band: Band) -> Option<Strain> {
    let sum = |a: Option<u64>, b: Option<u64>| a.map_or(b, |a| Some(a.saturating_add(b.unwrap_or(0))));
    parts.iter().filter_map(|part| part.strain.get(&band)).copied().reduce(|a, b| Strain {
        memory_peak_bytes: sum(a.memory_peak_bytes, b.memory_peak_bytes),
        io_bytes_per_second: sum(a.io_bytes_per_second, b.io_bytes_per_second),
        throttled_permille: a.throttled_permille.max(b.throttled_permille),
        waits_for_cpu_permille: a.waits_for_cpu_permille.max(b.waits_for_cpu_permille),
        waits_for_memory_permille: a.waits_for_memory_permille.max(b.waits_for_memory_permille),
        waits_for_io_permille: a.waits_for_io_permille.max(b.waits_for_io_permille),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use placement::{
        ids::{Activation, Generation, TaskKey, Uid, Version},
        job::Kind,
        node::NodeInfo,
        task::Cause,
    };

    use super::*;

    /// Of Ann's; `of`: limit, reservation and usage, in thousandths of a core and MiB.
    pub(crate) fn report(job: &str, index: u32, band: Band, state: State, of: [u64; 3]) -> Report {
        let [limit, reservation, usage] = of.map(|n| Resources::new(n, n << 20));
        Report {
            key: TaskKey { uid: Uid { cell: 1, index: 7 }, index },
            job: JobKey { owner: "ann".into(), name: job.into() },
            kind: Kind::Service,
            band,
            priority: band.lowest(),
            generation: Generation { cell: 1, activation: 1, seq: 0 },
            version: Version { number: 1, cell: 1 },
            state,
            image: String::new(),
            digest: String::new(),
            pid: None,
            ports: BTreeMap::new(),
            address: None,
            restarts: 0,
            restart_at: 0,
            healthy: None,
            ready: false,
            since_ms: 0,
            reason: None,
            exit: None,
            limit,
            reservation,
            usage,
            strain: None,
        }
    }

    pub(crate) fn part(id: u64, tasks: Vec<Report>, ended: Vec<Ended>) -> OwnPart {
        let node = NodeInfo {
            id: NodeId(id),
            name: format!("n{id}"),
            addr: String::new(),
            version: String::new(),
            labels: BTreeMap::new(),
            capacity: Resources::new(1000, 1 << 30),
            images: BTreeSet::new(),
            volumes: BTreeMap::new(),
            bad: Vec::new(),
        };
        let (books, usage, promise) = (Books::default(), Resources::default(), Activation::default());
        OwnPart {
            node,
            books,
            usage,
            tasks,
            promise,
            applied: 1,
            voter: true,
            ended,
            strain: BTreeMap::new(),
        }
    }

    #[test]
    fn what_is_moved_adds_up_and_who_waits_longest_counts() {
        let of = |id, io, cpu| {
            let strain = Strain { io_bytes_per_second: io, waits_for_cpu_permille: cpu, ..Strain::default() };
            OwnPart { strain: [(Band::Batch, strain)].into(), ..part(id, Vec::new(), Vec::new()) }
        };
        let parts = [of(1, Some(5), None), of(2, None, Some(70)), of(3, Some(6), Some(900))];
        let expected =
            Strain { io_bytes_per_second: Some(11), waits_for_cpu_permille: Some(900), ..Strain::default() };
        assert_eq!(strain(&parts, Band::Batch), Some(expected));
        assert_eq!(strain(&parts, Band::Free), None);
    }

    fn cell() -> Vec<OwnPart> {
        let free = |cause, hour, day| Ended { band: Band::Free, cause, hour, day, told: day, notified: hour };
        let (running, ended) = (State::Running, State::Succeeded);
        vec![
            part(
                1,
                vec![
                    report("web", 0, Band::Production, running, [400, 100, 50]),
                    report("etl", 0, Band::Batch, running, [200, 150, 120]),
                    report("etl", 1, Band::Batch, ended, [200, 0, 0]),
                ],
                vec![free(Cause::Reclaimed, 1, 4)],
            ),
            part(2, vec![report("web", 1, Band::Production, running, [400, 200, 70])], Vec::new()),
            part(3, Vec::new(), vec![free(Cause::Reclaimed, 0, 2), free(Cause::OomLimit, 1, 1)]),
        ]
    }

    /// Tasks and CPU: limit, reservation, usage.
    fn figures(share: &Share) -> (u32, [u64; 3]) {
        let amounts = [&share.limit, &share.reservation, &share.usage];
        (share.tasks, amounts.map(|of| of.get(placement::resources::CPU)))
    }

    #[test]
    fn whatever_they_are_put_together_by_the_sum_is_the_same() {
        let parts = cell();
        let total = figures(&of_bands(&parts, |_| true));
        assert_eq!(total, (3, [1000, 450, 240]));
        for by in UsageBy::ALL {
            let mut sum = (0, [0; 3]);
            for share in shares(&parts, by).values() {
                let (tasks, amounts) = figures(share);
                sum.0 += tasks;
                amounts.iter().zip(&mut sum.1).for_each(|(amount, sum)| *sum += amount);
            }
            assert_eq!(sum, total, "{by:?}");
        }
        let prod = of_bands(&parts, Band::is_prod);
        assert_eq!(figures(&prod), (2, [800, 300, 120]));
        assert_eq!(prod.reclaimed(), Resources::new(500, 500 << 20));
    }

    #[test]
    fn bands_and_nodes_are_there_without_tasks_too() {
        let parts = cell();
        let by_node: Vec<u32> = shares(&parts, UsageBy::Node).values().map(|share| share.tasks).collect();
        assert_eq!(by_node, [2, 1, 0]);
        let by_band: Vec<u32> = shares(&parts, UsageBy::Band).values().map(|share| share.tasks).collect();
        assert_eq!(by_band, [0, 1, 2, 0]);
    }

    #[test]
    fn the_endings_of_all_nodes_are_added_up() {
        let sums: Vec<_> =
            endings(&cell()).into_iter().map(|e| (e.cause, e.hour, e.day, e.told, e.notified)).collect();
        assert_eq!(sums, [(Cause::OomLimit, 1, 1, 1, 1), (Cause::Reclaimed, 1, 6, 6, 1)]);
    }
}
