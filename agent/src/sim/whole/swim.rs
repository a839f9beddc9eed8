//! Membership, as `gossip::driver` runs it.

use std::{collections::BTreeSet, time::Duration};

use gossip::{
    membership::{Input, Membership, Output},
    peer::Peer,
};
use placement::ids::NodeId;

use super::{
    machine::{address, at},
    world::{NOBODY, World, ms},
};
use crate::sim::{
    net::Net,
    runtime::{draw, happens, now},
};

pub(super) struct Swim {
    membership: Membership,
    /// The time for which it waits, and the number of that.
    wake: Option<(Duration, u64)>,
}

impl Swim {
    pub(super) fn new(id: NodeId, life: u64) -> Swim {
        Swim { membership: Membership::new(Peer::new(id, address(id), life), draw(), time()), wake: None }
    }

    /// Who is here, oneself included.
    pub(super) fn alive(&self) -> BTreeSet<NodeId> {
        self.membership.members().map(|peer| peer.id).chain([self.membership.me().id]).collect()
    }
}

fn time() -> Duration {
    Duration::from_nanos(now())
}

impl World {
    /// As after a start: with the addresses of all that it ever saw.
    pub(super) fn greet(&mut self, id: NodeId) {
        let others = self.ids().into_iter().filter(|other| *other != id).map(address).collect();
        self.swim(id, Input::Greet(others));
    }

    fn swim(&mut self, id: NodeId, input: Input) {
        let Some(agent) = self.agents.get_mut(&id) else { return };
        let group = agent.group;
        let outputs = agent.swim.membership.handle(input, time());
        let wake = agent.swim.membership.wake_at();
        if let Some(wake) = wake
            && agent.swim.wake.is_none_or(|(known, _)| wake < known)
        {
            let number = self.number();
            self.agents.get_mut(&id).unwrap().swim.wake = Some((wake, number));
            self.later(group, wake.saturating_sub(time()), move |w| {
                let Some(agent) = w.agents.get_mut(&id) else { return };
                if agent.swim.wake.take_if(|(_, last)| *last == number).is_some() {
                    w.swim(id, Input::Wake);
                }
            });
        }
        for output in outputs {
            self.told_by_swim(id, output);
        }
    }

    fn told_by_swim(&mut self, id: NodeId, output: Output) {
        match output {
            Output::Datagram { to, bytes } => {
                let Some(there) = at(to.addr).filter(|there| to.known().is_none_or(|id| id == *there)) else {
                    return;
                };
                let copies = 1 + u64::from(happens(10));
                for _ in 0..copies {
                    let bytes = bytes.clone();
                    self.later(NOBODY, Net::delay(), move |w| {
                        if w.net.passes(id, there) {
                            w.swim(there, Input::Datagram { from: id, bytes });
                        }
                    });
                }
            }
            Output::Exchange { with } => {
                let Some(there) = at(with.addr) else { return };
                self.later(NOBODY, Net::delay() * 2, move |w| w.exchange(id, there));
            }
            Output::Up(peer) => self.say(|_| format!("n{} sees n{}", id.0, peer.id.0)),
            Output::Down(peer) => {
                self.reached("dead");
                self.say(|_| format!("n{} sees n{} no more", id.0, peer.id.0));
                self.forgets(id, peer.id);
            }
            Output::Warm(_) | Output::Active | Output::Idle => {}
            Output::Twin(_) | Output::Garbled(_) => {
                self.checks.fail("membership", format!("n{} at {}: {output:?}", id.0, ms()));
            }
        }
    }

    /// Over a stream, which needs both directions.
    fn exchange(&mut self, one: NodeId, other: NodeId) {
        if self.net.apart(one, other) {
            return;
        }
        let (Some(a), Some(b)) = (self.agents.get(&one), self.agents.get(&other)) else { return };
        let (a, b) = (&a.swim.membership, &b.swim.membership);
        if a.digest() != b.digest() {
            let (mine, theirs) = (a.state(), b.state());
            self.swim(one, Input::State(theirs));
            self.swim(other, Input::State(mine));
        }
    }
}
