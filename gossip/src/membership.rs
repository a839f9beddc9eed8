//! Who is here: SWIM (foca) and what a cell needs around it. Pure: time comes in, what to do goes out.
//!
//! Around foca: greetings each second until somebody answers, members of earlier lives among the greeted; everything
//! known exchanged with one member every ten seconds, since rumours alone leave views incomplete for minutes after
//! many have joined; settings that follow the cell's size; and a node that stood still does not blame the others.

mod seen;
mod timing;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use foca::{
    Foca, Header, Member, Message, NoCustomBroadcast, OwnedNotification, PostcardCodec, State, Timer,
};
use placement::ids::NodeId;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

pub use seen::{Health, Seen};

use crate::peer::Peer;

/// Times are since any fixed moment, on a clock that never goes back.
pub type Now = Duration;

/// What a membership is told.
#[derive(Debug, Clone)]
pub enum Input {
    /// It is `wake_at()`, or later.
    Wake,
    /// Came from the node whose certificate says `from`.
    Datagram { from: NodeId, bytes: Vec<u8> },
    /// Addresses where members are, or once were. They are greeted until somebody answers; what was said before is forgotten.
    Greet(Vec<SocketAddr>),
    /// What another member's `state()` said.
    State(Vec<Seen>),
    /// Nobody is where this later sighting of this node's own id was: from now on its life is later still.
    Outlive(Peer),
    /// This node leaves for good: the others are told, and nothing more is done.
    Leave,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// May be lost. If `to.known()` is none, whoever listens there is meant.
    Datagram { to: Peer, bytes: Vec<u8> },
    /// Here now, or here with another address or life than before.
    Up(Peer),
    /// Dead, or gone.
    Down(Peer),
    /// Over a stream: compare `digest()`s, and if they differ give each the other's `state()`.
    Exchange { with: Peer },
    /// Will be probed next: a connection opened now saves the handshake then.
    Warm(Peer),
    /// At least one other member is there.
    Active,
    /// This node is alone, or has just been declared dead and begins anew.
    Idle,
    /// The others know this node's id by a later life: of a copy of its data directory that was started elsewhere, or of
    /// this very directory before it was put back from a copy. Said once of each.
    Twin(Peer),
    /// A datagram or state that makes no sense was dropped.
    Garbled(Garbled),
}

/// Why something received was dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Garbled {
    #[error("a membership message of {0} bytes from {1} is not one: {2}")]
    Datagram(usize, NodeId, String),
    #[error("a membership message from {from} claims to be from {claimed}")]
    Forged { from: NodeId, claimed: NodeId },
    #[error("a list of {0} members cannot be taken up: {1}")]
    State(usize, String),
}

/// What happens later.
enum Due {
    Foca(Timer<Peer>),
    Tick,
}

/// One node's view of who is here.
pub struct Membership {
    foca: Foca<Peer, PostcardCodec, ChaCha8Rng, NoCustomBroadcast>,
    rng: ChaCha8Rng,
    /// By time, then by order of asking.
    due: BTreeMap<(Duration, u64), Due>,
    asked: u64,
    ticks: u64,
    /// How long this node stood still, so far: its own time does not count it.
    stood_still: Duration,
    greeted: Vec<SocketAddr>,
    alive: BTreeMap<NodeId, Peer>,
    active: bool,
    left: bool,
    /// The last `Twin` told of.
    twin: Option<Peer>,
    exchange_at: Duration,
    configured_for: usize,
}

impl Membership {
    /// `me` as others are to see it; `seed` for the random choices.
    pub fn new(me: Peer, seed: u64, now: Now) -> Membership {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let foca = Foca::new(me, timing::config(1), ChaCha8Rng::seed_from_u64(rng.next_u64()), PostcardCodec);
        let mut new = Membership {
            foca,
            rng,
            due: BTreeMap::new(),
            asked: 0,
            ticks: 0,
            stood_still: Duration::ZERO,
            greeted: Vec::new(),
            alive: BTreeMap::new(),
            active: false,
            left: false,
            twin: None,
            exchange_at: now,
            configured_for: 1,
        };
        // Nodes that start together do not tick together.
        let phase = timing::TICK.mul_f64(new.below(1000) as f64 / 1000.0);
        new.at(now + phase, Due::Tick);
        new
    }

    /// This node, with its newest renewal.
    pub fn me(&self) -> Peer {
        *self.foca.identity()
    }

    /// All others that are here, by id. To be kept by the caller and greeted at the next start.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Peer> {
        self.alive.values()
    }

    /// The same on two members if both see the same ones here.
    pub fn digest(&self) -> u64 {
        let me = self.me();
        let mut all = self.alive.clone();
        all.insert(me.id, me);
        // FNV-1a of 64 bits: nobody gains by a collision, and the next exchange has another partner.
        let mix = |hash: u64, n: u64| {
            n.to_be_bytes().iter().fold(hash, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
        };
        all.values().fold(0xcbf2_9ce4_8422_2325, |hash, peer| {
            mix(mix(mix(hash, peer.id.0), peer.life), u64::from(peer.renewal))
        })
    }

    /// Everything known, the dead too, for another member's `Input::State`.
    pub fn state(&self) -> Vec<Seen> {
        let me = Seen { peer: self.me(), incarnation: 0, health: Health::Alive };
        self.foca.iter_membership_state().map(Seen::from).chain([me]).collect()
    }

    /// When `Input::Wake` is wanted next.
    pub fn wake_at(&self) -> Option<Now> {
        self.due.first_key_value().map(|((at, _), _)| *at + self.stood_still)
    }

    /// All that changes a membership. Call it with whatever has arrived before `Wake` when both are there.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Output> {
        let mut out = Vec::new();
        if self.left {
            return out;
        }
        let now = self.own_time(now);
        match input {
            Input::Wake => {}
            Input::Datagram { from, bytes } => self.datagram(from, &bytes, now, &mut out),
            Input::Greet(addrs) => {
                self.greeted = addrs;
                self.greet(now, &mut out);
            }
            Input::State(seen) => self.apply_state(seen, now, &mut out),
            Input::Outlive(later) if later.order() > self.me().order() && later.id == self.me().id => {
                let me = Peer { life: later.life.saturating_add(1), renewal: 0, ..self.me() };
                let _ = self.tell(now, &mut out, |foca, effects| foca.change_identity(me, effects));
                // It greets whoever it knew: they have to hear of the new life before they listen to it.
                self.active = false;
                self.greet(now, &mut out);
            }
            Input::Outlive(_) => {}
            Input::Leave => {
                let done = |foca: &mut MyFoca, e: &mut Effects| foca.leave_cluster(e);
                let _ = self.tell(now, &mut out, done);
                self.left = true;
                self.due.clear();
                return out;
            }
        }
        while let Some(first) = self.due.first_entry()
            && first.key().0 <= now
        {
            match first.remove() {
                Due::Tick => self.tick(now, &mut out),
                Due::Foca(timer) => self.timer(timer, now, &mut out),
            }
        }
        out
    }

    /// Time as far as this node could act on it. Without this, a machine that paused would find all its probes
    /// unanswered, its suspects silent, and declare the cell dead. (Lifeguard's local health, the simplest part of it.)
    fn own_time(&mut self, now: Now) -> Duration {
        let own = now.saturating_sub(self.stood_still);
        let Some(((next, _), _)) = self.due.first_key_value() else { return own };
        let late = own.saturating_sub(*next);
        if late <= timing::STALL {
            return own;
        }
        // Some time more, in which what has arrived meanwhile can be heard.
        self.stood_still += late + timing::STALL;
        now.saturating_sub(self.stood_still)
    }

    fn datagram(&mut self, from: NodeId, bytes: &[u8], now: Duration, out: &mut Vec<Output>) {
        let garbled = |why: String| Output::Garbled(Garbled::Datagram(bytes.len(), from, why));
        let (header, rest) = match postcard::take_from_bytes::<Header<Peer>>(bytes) {
            Ok(parsed) => parsed,
            Err(error) => return out.push(garbled(error.to_string())),
        };
        if header.src.id != from {
            return out.push(Output::Garbled(Garbled::Forged { from, claimed: header.src.id }));
        }
        if from == self.me().id {
            return self.met(header.src, out);
        }
        let result = if header.dst.known().is_none() && header.message == Message::Announce {
            // It knew only the address, and that is ours. An announcement is nothing but its header.
            if !rest.is_empty() {
                return out.push(garbled("bytes after a greeting".to_string()));
            }
            let header = Header { dst: self.me(), ..header };
            let bytes = postcard::to_allocvec(&header).unwrap_or_default();
            self.tell(now, out, |foca, effects| foca.handle_data(&bytes, effects))
        } else {
            self.tell(now, out, |foca, effects| foca.handle_data(bytes, effects))
        };
        if let Err(error) = result {
            out.push(garbled(error.to_string()));
        }
        self.look_for_twin(out);
    }

    /// foca keeps the latest life of every id, ours too: as a dead one, whatever the others say.
    fn look_for_twin(&mut self, out: &mut Vec<Output>) {
        let me = self.me();
        let own = self.foca.iter_membership_state().map(|member| *member.id()).find(|peer| peer.id == me.id);
        if let Some(later) = own.filter(|peer| peer.order() > me.order()) {
            self.met(later, out);
        }
    }

    fn met(&mut self, twin: Peer, out: &mut Vec<Output>) {
        if self.twin.replace(twin) != Some(twin) {
            out.push(Output::Twin(twin));
        }
    }

    fn apply_state(&mut self, seen: Vec<Seen>, now: Duration, out: &mut Vec<Output>) {
        let many = seen.len();
        let members = seen.into_iter().filter(|one| one.peer.known().is_some()).map(Member::from);
        let before = self.digest();
        // Not passed on as rumours: thousands at once would drown the news. Others exchange, too.
        let result = self.tell(now, out, |foca, e| foca.apply_many(members, false, e));
        if let Err(error) = result {
            out.push(Output::Garbled(Garbled::State(many, error.to_string())));
        }
        self.look_for_twin(out);
        if self.digest() != before {
            self.expect_more(now);
        }
    }

    fn timer(&mut self, timer: Timer<Peer>, now: Duration, out: &mut Vec<Output>) {
        let probes = matches!(timer, Timer::ProbeRandomMember(_));
        let sent = out.len();
        // Its errors say that a timer is no longer wanted, or that a probe was cut short: it has begun the next one.
        let _ = self.tell(now, out, |foca, effects| foca.handle_timer(timer, effects));
        if probes
            && let Some(Output::Datagram { to, .. }) = out.get(sent..).unwrap_or_default().last()
            && let Some(next) = self.probed_after(to.id)
        {
            out.push(Output::Warm(next));
        }
    }

    /// foca goes through its list in order and shuffles it at the end; who comes after the end is not known yet.
    fn probed_after(&self, probed: NodeId) -> Option<Peer> {
        let mut list = self.foca.iter_membership_state().skip_while(|m| m.id().id != probed).skip(1);
        list.find(|member| member.state() != State::Down).map(|member| *member.id())
    }

    fn tick(&mut self, now: Duration, out: &mut Vec<Output>) {
        self.at(now + timing::TICK, Due::Tick);
        self.ticks += 1;
        if !self.active {
            self.greet(now, out);
        } else {
            if self.ticks.is_multiple_of(timing::ISLAND_TICKS) {
                self.greet_an_island(now, out);
            }
            if self.exchange_at <= now {
                self.exchange(now, out);
            }
        }
    }

    /// Says hello to a few of all that might be there.
    fn greet(&mut self, now: Duration, out: &mut Vec<Output>) {
        let mut who: Vec<Peer> = self.foca.iter_membership_state().map(|m| *m.id()).collect();
        who.extend(self.greeted.iter().map(|addr| Peer::anyone_at(*addr)));
        let me = self.me();
        who.retain(|peer| peer.addr != me.addr && peer.id != me.id);
        for _ in 0..timing::GREETED {
            if who.is_empty() {
                break;
            }
            let to = who.swap_remove(self.below(who.len()));
            let _ = self.tell(now, out, |foca, effects| foca.announce(to, effects));
        }
    }

    /// After all were off, some may have found each other and not the rest.
    fn greet_an_island(&mut self, now: Duration, out: &mut Vec<Output>) {
        let taken = |addr| addr == self.me().addr || self.alive.values().any(|peer| peer.addr == addr);
        let free: Vec<SocketAddr> = self.greeted.iter().copied().filter(|addr| !taken(*addr)).collect();
        if !free.is_empty() {
            let to = Peer::anyone_at(free[self.below(free.len())]);
            let _ = self.tell(now, out, |foca, effects| foca.announce(to, effects));
        }
    }

    fn exchange(&mut self, now: Duration, out: &mut Vec<Output>) {
        if self.alive.is_empty() {
            return;
        }
        let nth = self.below(self.alive.len());
        out.extend(self.alive.values().nth(nth).map(|with| Output::Exchange { with: *with }));
        self.exchange_at = now + timing::EXCHANGE;
    }

    /// Calls foca, and takes up what it wants done.
    fn tell(
        &mut self,
        now: Duration,
        out: &mut Vec<Output>,
        call: impl FnOnce(&mut MyFoca, &mut Effects) -> Result<(), foca::Error>,
    ) -> Result<(), foca::Error> {
        let mut effects = Effects::default();
        let result = call(&mut self.foca, &mut effects);
        for (timer, after) in effects.timers {
            self.at(now + after, Due::Foca(timer));
        }
        // foca remembers our earlier lives among the dead, and would knock at our own door.
        let me = self.me().id;
        let others = effects.sent.into_iter().filter(|(to, _)| to.id != me);
        out.extend(others.map(|(to, bytes)| Output::Datagram { to, bytes }));
        for event in effects.events {
            self.event(event, now, out);
        }
        if self.alive.len() + 1 != self.configured_for {
            self.configured_for = self.alive.len() + 1;
            let _ = self.foca.set_config(timing::config(self.configured_for));
        }
        result
    }

    fn event(&mut self, event: OwnedNotification<Peer>, now: Duration, out: &mut Vec<Output>) {
        match event {
            OwnedNotification::MemberUp(peer) => {
                if self.alive.insert(peer.id, peer) != Some(peer) {
                    out.push(Output::Up(peer));
                    self.expect_more(now);
                }
            }
            OwnedNotification::Rename(_, peer) => {
                if let Some(known) = self.alive.get_mut(&peer.id) {
                    *known = peer;
                    out.push(Output::Up(peer));
                }
            }
            OwnedNotification::MemberDown(peer) => {
                if let Some(known) = self.alive.remove(&peer.id) {
                    out.push(Output::Down(known));
                }
            }
            OwnedNotification::Active => {
                self.active = true;
                out.push(Output::Active);
                self.exchange(now, out);
            }
            OwnedNotification::Idle | OwnedNotification::Rejoin(_) | OwnedNotification::Defunct => {
                self.active = false;
                out.push(Output::Idle);
            }
        }
    }

    /// Where one comes others do, and rumours miss some.
    fn expect_more(&mut self, now: Duration) {
        let soon = now + timing::EXCHANGE_AGAIN.mul_f64(1.0 + self.below(1000) as f64 / 1000.0);
        self.exchange_at = self.exchange_at.min(soon);
    }

    fn at(&mut self, at: Duration, due: Due) {
        self.asked += 1;
        self.due.insert((at, self.asked), due);
    }

    /// A random number below `n`, which is not 0.
    fn below(&mut self, n: usize) -> usize {
        (self.rng.next_u64() % n.max(1) as u64) as usize
    }
}

type MyFoca = Foca<Peer, PostcardCodec, ChaCha8Rng, NoCustomBroadcast>;

/// What foca wants done, in order of asking.
#[derive(Default)]
struct Effects {
    sent: Vec<(Peer, Vec<u8>)>,
    timers: Vec<(Timer<Peer>, Duration)>,
    events: Vec<OwnedNotification<Peer>>,
}

impl foca::Runtime<Peer> for Effects {
    fn notify(&mut self, notification: foca::Notification<'_, Peer>) {
        self.events.push(notification.to_owned());
    }

    fn send_to(&mut self, to: Peer, data: &[u8]) {
        self.sent.push((to, data.to_vec()));
    }

    fn submit_after(&mut self, event: Timer<Peer>, after: Duration) {
        self.timers.push((event, after));
    }
}
