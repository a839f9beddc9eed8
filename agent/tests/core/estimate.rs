//! What tasks need as the core comes to know it: reservations, the predicted peak, and who is told when.

use agent::{
    core::{Core, Estimates},
    estimate::{Learned, Preset, Settings},
    event::{Action, Event, Now, RunEvent, RunId},
};
use gossip::wire::{
    FromAgent, Hello, News, Offer, Order, PROTOCOL, RefusedOffer, SessionId, ToAgent, Welcome,
};
use placement::{
    ids::{Activation, Generation, NodeId, TaskKey, Uid, Version},
    job::{Band, Kind},
    node::Books,
    resources::{CPU, MEMORY, Resources},
};

use crate::script::{config, spec};

const MIB: u64 = 1 << 20;
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
/// Of each task here; the node has 1000 milli-CPU and 1 GiB.
const LIMIT: [u64; 2] = [200, 200 * MIB];

struct Node {
    core: Core,
    now: Now,
    session: SessionId,
    seq: u64,
    runs: Vec<RunId>,
    /// The newest books that the placer has, and how many messages it got.
    books: Books,
    heard: usize,
    refused: Vec<RefusedOffer>,
}

fn estimates(learned: Option<Learned>) -> Option<Estimates> {
    Some(Estimates { settings: Settings::of(Preset::Normal, 24 * HOUR), learned })
}

impl Node {
    fn new(learned: Option<Learned>, mono_ms: u64) -> Node {
        let mut config = agent::core::Config { estimate: estimates(learned), ..config() };
        // Five limits, and what is kept free for prod.
        config.node.capacity = Resources::new(1000, 5 * LIMIT[1] + 64 * MIB);
        let session = SessionId { placer: 1, agent: 1 };
        let mut node = Node {
            core: Core::new(config),
            now: Now { mono_ms, wall_ms: 1 },
            session,
            seq: 0,
            runs: Vec::new(),
            books: Books::default(),
            heard: 0,
            refused: Vec::new(),
        };
        let hello = Hello {
            protocol: PROTOCOL.into(),
            placer: NodeId(1),
            activation: Activation { cell: 1, index: 3 },
            fresh: 1,
        };
        node.tell(Event::Hello { hello, fresh: 1 });
        node
    }

    fn tell(&mut self, event: Event) {
        for action in self.core.handle(event, self.now) {
            match action {
                Action::Store { ticket, .. } => self.tell(Event::Stored { ticket, result: Ok(()) }),
                Action::Welcome(Welcome::Open { session, .. }) => self.session = session,
                Action::Start(start) => {
                    self.runs.push(start.run);
                    self.tell(Event::Run { run: start.run, what: RunEvent::Started { pid: 7 } });
                }
                Action::Send(from) => self.hear(*from),
                _ => {}
            }
        }
    }

    fn hear(&mut self, from: FromAgent) {
        self.heard += 1;
        self.books = match from.news {
            News::Full { books, .. } => books,
            News::Delta(delta) | News::Accepted { delta, .. } | News::NotAmended { delta, .. } => delta.books,
            News::Refused { refused, delta, .. } => {
                self.refused.push(refused);
                delta.books
            }
        };
    }

    fn offer(&mut self, job: &str, index: u32, band: Band, estimate: bool) {
        self.seq += 1;
        let mut spec = spec(job, Kind::Service);
        (spec.band, spec.estimate) = (band, estimate);
        spec.limit = Resources::new(LIMIT[0], LIMIT[1]);
        let uid = Uid { cell: 1, index: 10 + u64::from(job.as_bytes()[0]) };
        let offer = Offer {
            key: TaskKey { uid, index },
            generation: Generation { cell: 1, activation: 3, seq: self.seq },
            version: Version { cell: 1, number: 1 },
            spec,
            remark: None,
            lesson: None,
        };
        self.tell(Event::Order(ToAgent::new(self.session, Order::Offer(Box::new(offer)))));
    }

    /// Measures all that run each two seconds, for so long.
    fn run(&mut self, for_ms: u64, usage: impl Fn(usize, u64) -> Resources) {
        let end = self.now.mono_ms + for_ms;
        while self.now.mono_ms < end {
            self.now.mono_ms += 2_000;
            let usage = self.runs.iter().enumerate().map(|(at, run)| (*run, usage(at, self.now.mono_ms)));
            let measured = Event::Measured(usage.collect());
            self.tell(measured);
        }
    }

    fn reservation(&self, at: usize) -> [u64; 2] {
        let report = self.core.report(self.runs[at].key).unwrap();
        [report.reservation.get(CPU), report.reservation.get(MEMORY)]
    }

    fn peak(&self) -> [u64; 2] {
        let peak = &self.books.predicted.as_ref().unwrap().peak;
        [peak.get(CPU), peak.get(MEMORY)]
    }
}

fn steady(_: usize, _: u64) -> Resources {
    Resources::new(20, 40 * MIB)
}

#[test]
fn what_a_task_needs_is_its_limit_at_first_then_less_and_more_at_once() {
    let mut node = Node::new(None, 5_000);
    node.offer("web", 0, Band::Production, true);
    node.run(5 * MINUTE, steady);
    assert_eq!((node.reservation(0), node.peak()), (LIMIT, LIMIT), "held while tasks start");
    node.run(12 * HOUR, steady);
    let [cpu, memory] = node.reservation(0);
    assert!((20..40).contains(&cpu) && (40 * MIB..60 * MIB).contains(&memory), "{cpu} {memory}");
    let band = node.books.bands[&Band::Production].clone();
    assert_eq!([band.limit.get(CPU), band.reservation.get(CPU)], [LIMIT[0], cpu], "the placer knows");
    let confidence = node.books.predicted.as_ref().unwrap().confidence_permille.get(CPU);
    assert!((500..=1000).contains(&confidence), "{confidence}");
    // One look is enough.
    node.run(2_000, |_, _| Resources::new(150, 190 * MIB));
    let [cpu, memory] = node.reservation(0);
    assert!(cpu >= 150 && memory >= 190 * MIB, "{cpu} {memory}");
    assert!(node.peak()[1] >= 190 * MIB, "{:?}", node.peak());
}

#[test]
fn a_quiet_node_says_next_to_nothing() {
    let mut node = Node::new(None, 0);
    for index in 0..4 {
        node.offer("web", index, Band::Production, true);
    }
    // It flickers, and bursts now and then.
    let usage = |at: usize, now: u64| {
        let dice = (now / 2_000 + 7 * at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56;
        Resources::new(20 + dice % 7, 40 * MIB + dice * 4096)
    };
    node.run(12 * HOUR, usage);
    let before = node.heard;
    node.run(HOUR, usage);
    assert!(
        node.heard - before <= 30,
        "{} messages in an hour of {} looks",
        node.heard - before,
        HOUR / 2_000
    );
}

/// The node has room for five limits. Four of prod that use little leave room for more than one of batch.
#[test]
fn the_others_may_have_what_is_predicted_to_be_left_and_prod_counts_limits() {
    let mut node = Node::new(None, 0);
    for index in 0..4 {
        node.offer("web", index, Band::Production, true);
    }
    node.offer("batch", 0, Band::Batch, true);
    node.offer("batch", 1, Band::Batch, true);
    assert!(matches!(&node.refused[..], [RefusedOffer::Short { .. }]), "{:?}", node.refused);
    node.run(12 * HOUR, steady);
    for index in 2..5 {
        node.offer("batch", index, Band::Batch, true);
    }
    assert_eq!((node.refused.len(), node.runs.len()), (1, 8), "{:?}", node.refused);
    // Prod never counts on what others do not use: there is room for one limit more.
    node.offer("db", 0, Band::Production, true);
    node.offer("web", 4, Band::Production, true);
    assert_eq!((node.refused.len(), node.runs.len()), (2, 9), "{:?}", node.refused);
    // Who came last counts at its limit; one more of what is known begins with that.
    node.run(2 * MINUTE, steady);
    assert_eq!(node.reservation(8), LIMIT);
    assert!(node.reservation(7)[0] < LIMIT[0] / 4, "{:?}", node.reservation(7));
}

#[test]
fn without_estimation_a_task_counts_with_its_limit() {
    let mut node = Node::new(None, 0);
    node.offer("web", 0, Band::Production, false);
    node.offer("api", 0, Band::Production, true);
    node.run(12 * HOUR, steady);
    assert_eq!(node.reservation(0), LIMIT);
    assert!(node.reservation(1)[0] < LIMIT[0] / 4);
    assert!(node.peak()[0] >= LIMIT[0] + 20 && node.peak()[0] < 2 * LIMIT[0], "{:?}", node.peak());
}

#[test]
fn what_cannot_be_measured_counts_as_the_limit_and_nothing_is_lost_by_odd_figures() {
    let mut node = Node::new(None, 0);
    node.offer("web", 0, Band::Production, true);
    node.run(12 * HOUR, steady);
    // For a moment nobody can tell.
    node.run(2_000, |_, _| Resources::default());
    node.run(MINUTE, |_, _| Resources::from_iter([(CPU, 20)]));
    assert_eq!(node.reservation(0)[1], LIMIT[1]);
    for odd in [0, u64::MAX, 1 << 53] {
        node.run(MINUTE, |_, _| Resources::new(odd, odd));
        let need = node.reservation(0);
        assert!(need[0] <= LIMIT[0] && need[1] <= LIMIT[1], "{odd}: {need:?}");
        assert!(node.peak()[0] <= LIMIT[0] && node.peak()[1] <= LIMIT[1], "{odd}: {:?}", node.peak());
    }
    // A node on which nothing is ever used is not measured.
    let mut idle = Node::new(None, 0);
    idle.offer("web", 0, Band::Production, true);
    idle.run(12 * HOUR, |_, _| Resources::new(0, 0));
    assert_eq!(idle.peak(), LIMIT);
}

#[test]
fn the_next_agent_goes_on_where_this_one_stopped_though_the_machine_was_started_again() {
    let mut node = Node::new(None, 90 * 24 * HOUR);
    node.offer("web", 0, Band::Production, true);
    node.run(12 * HOUR, steady);
    let text = serde_json::to_vec(&node.core.learned().unwrap()).unwrap();
    println!("{} bytes for one task", text.len());
    let mut next = Node::new(Some(Learned::read(&text).unwrap()), 3_000);
    next.offer("web", 0, Band::Production, true);
    for _ in 0..2 {
        let (before, after) = (node.reservation(0), next.reservation(0));
        assert!((0..2).all(|at| after[at].abs_diff(before[at]) <= LIMIT[at] / 50), "{before:?} {after:?}");
        next.run(10 * MINUTE, steady);
    }
}
