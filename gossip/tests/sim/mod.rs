//! Many memberships in virtual time over a bad network, all from one seed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use gossip::{
    membership::{Input, Membership, Output, Seen},
    peer::Peer,
};
use placement::ids::NodeId;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// How bad the network is.
#[derive(Clone, Copy)]
pub(crate) struct Net {
    /// In a thousand datagrams.
    pub(crate) lost: u64,
    pub(crate) twice: u64,
    /// One way, at most.
    pub(crate) delay: Duration,
}

pub(crate) const LAN: Net = Net { lost: 0, twice: 0, delay: Duration::from_millis(1) };

enum Event {
    Wake {
        node: usize,
        life: u64,
    },
    Datagram {
        to: SocketAddr,
        id: Option<NodeId>,
        from: NodeId,
        bytes: Vec<u8>,
    },
    /// The asked one compares and answers; the asking one then gives its own.
    Compare {
        asking: usize,
        asked: SocketAddr,
    },
    State {
        to: SocketAddr,
        seen: Vec<Seen>,
    },
}

struct Node {
    membership: Option<Membership>,
    addr: SocketAddr,
    life: u64,
    /// What the outputs said: must be what the membership says.
    told: BTreeMap<NodeId, Peer>,
    wake: Option<Duration>,
    asleep_until: Duration,
    greets: Vec<SocketAddr>,
}

pub(crate) struct Sim {
    pub(crate) now: Duration,
    pub(crate) net: Net,
    /// Of every datagram that was delivered and every output: the same for the same seed.
    pub(crate) hash: u64,
    /// Of membership datagrams, in all.
    pub(crate) bytes: u64,
    /// Who was declared dead by whom, and when.
    pub(crate) downs: Vec<(Duration, usize, NodeId)>,
    nodes: Vec<Node>,
    by_addr: BTreeMap<SocketAddr, usize>,
    /// (from, to): nothing gets through that way.
    cuts: BTreeSet<(usize, usize)>,
    queue: BTreeMap<(Duration, u64), Event>,
    queued: u64,
    next_host: u32,
    rng: ChaCha8Rng,
}

impl Sim {
    pub(crate) fn new(seed: u64, net: Net) -> Sim {
        Sim {
            now: Duration::ZERO,
            net,
            hash: 0xcbf2_9ce4_8422_2325,
            bytes: 0,
            downs: Vec::new(),
            nodes: Vec::new(),
            by_addr: BTreeMap::new(),
            cuts: BTreeSet::new(),
            queue: BTreeMap::new(),
            queued: 0,
            next_host: 0x0a00_0001,
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    pub(crate) fn id(node: usize) -> NodeId {
        NodeId(node as u64 + 1)
    }

    /// `n` nodes that greet the first.
    pub(crate) fn start(seed: u64, net: Net, n: usize) -> Sim {
        let mut sim = Sim::new(seed, net);
        for node in 0..n {
            let addr = sim.fresh_addr();
            let first = sim.nodes.first().map_or(addr, |first| first.addr);
            sim.nodes.push(Node {
                membership: None,
                addr,
                life: 0,
                told: BTreeMap::new(),
                wake: None,
                asleep_until: Duration::ZERO,
                greets: vec![first],
            });
            sim.boot(node);
        }
        sim
    }

    fn fresh_addr(&mut self) -> SocketAddr {
        self.next_host += 1;
        (Ipv4Addr::from(self.next_host), 7946).into()
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.rng.next_u64() % n as u64) as usize
    }

    /// Starts a node that is down, with the members it last knew.
    pub(crate) fn boot(&mut self, node: usize) {
        let seed = self.rng.next_u64();
        let n = &mut self.nodes[node];
        n.life += 1;
        n.told.clear();
        n.wake = None;
        n.membership = Some(Membership::new(Peer::new(Sim::id(node), n.addr, n.life), seed, self.now));
        self.by_addr.insert(n.addr, node);
        let greets = n.greets.clone();
        self.tell(node, Input::Greet(greets));
    }

    pub(crate) fn up(&self, node: usize) -> bool {
        self.nodes[node].membership.is_some()
    }

    pub(crate) fn crash(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        if let Some(membership) = n.membership.take() {
            n.greets.extend(membership.members().map(|peer| peer.addr));
            n.greets.sort();
            n.greets.dedup();
            self.by_addr.remove(&n.addr);
        }
    }

    /// Like `boot`, at an address that nobody has heard of.
    pub(crate) fn boot_elsewhere(&mut self, node: usize) {
        self.nodes[node].addr = self.fresh_addr();
        self.boot(node);
    }

    pub(crate) fn leave(&mut self, node: usize) {
        self.tell(node, Input::Leave);
        self.crash(node);
    }

    /// Stands still for a while: nothing is lost, all is late.
    pub(crate) fn pause(&mut self, node: usize, how_long: Duration) {
        self.nodes[node].asleep_until = self.now + how_long;
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    pub(crate) fn split(&mut self, one_side: &[usize]) {
        let (inside, outside): (Vec<usize>, Vec<usize>) =
            (0..self.nodes.len()).partition(|node| one_side.contains(node));
        for a in &inside {
            for b in &outside {
                self.cuts.extend([(*a, *b), (*b, *a)]);
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
    }

    /// All that are up see exactly all that are up, and say so.
    pub(crate) fn complete(&self) -> bool {
        let up: BTreeMap<NodeId, SocketAddr> =
            (0..self.nodes.len()).filter(|n| self.up(*n)).map(|n| (Sim::id(n), self.nodes[n].addr)).collect();
        let digests: BTreeSet<u64> =
            self.nodes.iter().filter_map(|n| n.membership.as_ref()).map(Membership::digest).collect();
        digests.len() <= 1
            && self.nodes.iter().enumerate().filter(|(_, n)| n.membership.is_some()).all(|(i, n)| {
                n.told.len() + 1 == up.len()
                    && n.told.iter().all(|(id, peer)| *id != Sim::id(i) && up.get(id) == Some(&peer.addr))
            })
    }

    /// What is missing, for people.
    pub(crate) fn views(&self) -> String {
        let view = |(i, n): (usize, &Node)| {
            n.membership.as_ref().map(|_| {
                format!(
                    "  {} at {}: {:?}\n",
                    Sim::id(i),
                    n.addr,
                    n.told.values().map(Peer::to_string).collect::<Vec<_>>()
                )
            })
        };
        self.nodes.iter().enumerate().filter_map(view).collect()
    }

    /// Does everybody who is up think that `node` is dead?
    pub(crate) fn all_know_dead(&self, node: usize) -> bool {
        self.nodes.iter().all(|n| n.membership.is_none() || !n.told.contains_key(&Sim::id(node)))
    }

    /// Runs until `done` or for `at_most`; how long it took, if it was done.
    pub(crate) fn until(&mut self, at_most: Duration, done: impl Fn(&Sim) -> bool) -> Option<Duration> {
        let begun = self.now;
        while self.now < begun + at_most {
            self.run(ms(50));
            if done(self) {
                return Some(self.now - begun);
            }
        }
        None
    }

    pub(crate) fn run(&mut self, how_long: Duration) {
        let end = self.now + how_long;
        while let Some(first) = self.queue.first_entry()
            && first.key().0 <= end
        {
            let (at, _) = *first.key();
            let event = first.remove();
            self.now = at;
            self.deliver(event);
        }
        self.now = end;
    }

    fn push(&mut self, after: Duration, event: Event) {
        self.queued += 1;
        self.queue.insert((self.now + after, self.queued), event);
    }

    fn deliver(&mut self, event: Event) {
        let node = match &event {
            Event::Wake { node, .. } | Event::Compare { asking: node, .. } => Some(*node),
            Event::Datagram { to, .. } | Event::State { to, .. } => self.by_addr.get(to).copied(),
        };
        let Some(node) = node.filter(|n| self.up(*n)) else { return };
        let wakes = self.nodes[node].asleep_until;
        if wakes > self.now {
            return self.push(wakes - self.now, event);
        }
        match event {
            Event::Wake { node, life } => {
                let n = &mut self.nodes[node];
                if n.life == life {
                    n.wake = None;
                    self.tell(node, Input::Wake);
                }
            }
            Event::Datagram { id, from, bytes, .. } => {
                if id.is_none_or(|id| id == Sim::id(node)) {
                    self.mix(&bytes);
                    self.tell(node, Input::Datagram { from, bytes });
                }
            }
            Event::Compare { asking, asked } => {
                let there = self.by_addr.get(&asked).copied().filter(|there| !self.apart(asking, *there));
                if let Some(there) = there
                    && let (Some(a), Some(b)) =
                        (&self.nodes[asking].membership, &self.nodes[there].membership)
                    && a.digest() != b.digest()
                {
                    let (mine, theirs) = (a.state(), b.state());
                    let home = self.nodes[asking].addr;
                    self.push(ms(2), Event::State { to: home, seen: theirs });
                    self.push(ms(3), Event::State { to: asked, seen: mine });
                }
            }
            Event::State { seen, .. } => self.tell(node, Input::State(seen)),
        }
    }

    /// A connection needs both directions.
    fn apart(&self, a: usize, b: usize) -> bool {
        self.cuts.contains(&(a, b)) || self.cuts.contains(&(b, a))
    }

    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn tell(&mut self, node: usize, input: Input) {
        let now = self.now;
        let Some(membership) = &mut self.nodes[node].membership else { return };
        let outputs = membership.handle(input, now);
        let wake = membership.wake_at();
        let n = &mut self.nodes[node];
        if let Some(wake) = wake
            && n.wake.is_none_or(|known| wake < known)
        {
            n.wake = Some(wake);
            let life = n.life;
            self.push(wake.saturating_sub(now), Event::Wake { node, life });
        }
        for output in outputs {
            self.output(node, output);
        }
    }

    fn output(&mut self, node: usize, output: Output) {
        match output {
            Output::Datagram { to, bytes } => self.send(node, to, bytes),
            Output::Up(peer) => {
                assert_ne!(peer.id, Sim::id(node), "a node is told that it is there itself");
                self.mix(&peer.id.0.to_be_bytes());
                let before = self.nodes[node].told.insert(peer.id, peer);
                assert_ne!(before, Some(peer), "told twice that {peer} is up");
            }
            Output::Down(peer) => {
                self.mix(&peer.id.0.to_le_bytes());
                self.downs.push((self.now, node, peer.id));
                let before = self.nodes[node].told.remove(&peer.id);
                assert_eq!(before, Some(peer), "{peer} is down that was not up");
            }
            Output::Exchange { with } => self.push(ms(2), Event::Compare { asking: node, asked: with.addr }),
            Output::Warm(_) | Output::Active | Output::Idle => {}
            Output::Twin(_) => panic!("{} met itself", Sim::id(node)),
            Output::Garbled(why) => panic!("{} made nonsense: {why}", Sim::id(node)),
        }
    }

    fn send(&mut self, node: usize, to: Peer, bytes: Vec<u8>) {
        assert!(bytes.len() <= 1150, "a packet of {} bytes", bytes.len());
        self.bytes += bytes.len() as u64;
        let cut = self.by_addr.get(&to.addr).is_some_and(|there| self.cuts.contains(&(node, *there)));
        let copies = 1 + usize::from(self.below(1000) < self.net.twice as usize);
        for _ in 0..copies {
            if cut || self.below(1000) < self.net.lost as usize {
                continue;
            }
            let delay = self.net.delay.mul_f64(self.below(1000) as f64 / 1000.0) + Duration::from_micros(100);
            let (id, from, bytes) = (to.known(), Sim::id(node), bytes.clone());
            self.push(delay, Event::Datagram { to: to.addr, id, from, bytes });
        }
    }
}
