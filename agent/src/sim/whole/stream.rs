//! Streams between a placer and an agent: in order within one, in any order between two; late, and later where messages
//! are lost, since they are sent again as long as the stream is there.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use gossip::wire::{FromAgent, Hello, ToAgent, Welcome};
use placement::ids::NodeId;

use super::world::{NOBODY, World};
use crate::sim::{
    net::Net,
    runtime::{draw_from, happens},
};

pub(super) type StreamId = u64;

/// One wire message.
#[derive(Debug, Clone)]
pub(super) enum Frame {
    Hello(Hello),
    Welcome(Welcome),
    Order(Box<ToAgent>),
    News(Box<FromAgent>),
    /// Nothing follows.
    End,
}

/// From the placer to the agent, or back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    Down,
    Up,
}

struct Stream {
    placer: NodeId,
    agent: NodeId,
    /// Which starts of the two: none of the agent if it did not run.
    placer_life: u64,
    agent_life: Option<u64>,
    under_way: BTreeMap<Way, VecDeque<Frame>>,
}

#[derive(Default)]
pub(super) struct Streams(BTreeMap<StreamId, Stream>);

impl World {
    pub(super) fn open(&mut self, placer: NodeId, agent: NodeId, hello: Hello) -> StreamId {
        let id = self.number();
        let life = |node| self.agents.get(&node).map(|agent| agent.life);
        let stream = Stream {
            placer,
            agent,
            placer_life: life(placer).unwrap_or(0),
            agent_life: life(agent),
            under_way: BTreeMap::new(),
        };
        self.streams.0.insert(id, stream);
        self.put(id, Way::Down, Frame::Hello(hello));
        id
    }

    pub(super) fn put(&mut self, id: StreamId, way: Way, frame: Frame) {
        let Some(stream) = self.streams.0.get_mut(&id) else { return };
        let queue = stream.under_way.entry(way).or_default();
        queue.push_back(frame);
        if queue.len() == 1 {
            self.carry(id, way, Duration::ZERO);
        }
    }

    /// The placer's end lets go: what is under way to the agent is dropped, as by a reset of the stream.
    pub(super) fn reset(&mut self, id: StreamId) {
        let Some(stream) = self.streams.0.get_mut(&id) else { return };
        if let Some(queue) = stream.under_way.get_mut(&Way::Down) {
            // The first is being carried: the end takes its place.
            let carried = !queue.is_empty();
            queue.clear();
            if carried {
                return queue.push_back(Frame::End);
            }
        }
        self.put(id, Way::Down, Frame::End);
    }

    fn carry(&mut self, id: StreamId, way: Way, more: Duration) {
        let Some(stream) = self.streams.0.get(&id) else { return };
        let delay = if stream.placer == stream.agent {
            Duration::from_micros(draw_from(5..50))
        } else {
            Net::delay() + more
        };
        self.later(NOBODY, delay, move |w| w.arrives(id, way));
    }

    fn arrives(&mut self, id: StreamId, way: Way) {
        let Some(stream) = self.streams.0.get_mut(&id) else { return };
        let (from, to, life) = match way {
            Way::Down => (stream.placer, stream.agent, stream.agent_life),
            Way::Up => (stream.agent, stream.placer, Some(stream.placer_life)),
        };
        let listens = self.agents.get(&to).map(|agent| agent.life);
        if listens.is_none() || listens != life {
            // Nobody will ever take it. Who sent it finds out when the other's next agent starts, if at all.
            return;
        }
        if from != to && !self.net.passes(from, to) {
            if self.sender_lives(id, way) {
                self.carry(id, way, Duration::from_millis(draw_from(20..300)));
            }
            return;
        }
        let stream = self.streams.0.get_mut(&id).unwrap();
        let queue = stream.under_way.get_mut(&way).unwrap();
        let Some(frame) = queue.pop_front() else { return };
        let ended = matches!(frame, Frame::End);
        if !queue.is_empty() {
            self.carry(id, way, Duration::ZERO);
        }
        match way {
            Way::Down => self.agent_hears(to, id, frame),
            Way::Up => self.placer_hears(to, from, id, frame),
        }
        if ended && way == Way::Up {
            self.streams.0.remove(&id);
        }
    }

    /// Nothing is sent again for the dead.
    fn sender_lives(&self, id: StreamId, way: Way) -> bool {
        self.streams.0.get(&id).is_some_and(|stream| {
            let (from, life) = match way {
                Way::Down => (stream.placer, Some(stream.placer_life)),
                Way::Up => (stream.agent, stream.agent_life),
            };
            self.agents.get(&from).map(|agent| agent.life) == life
        })
    }

    /// An agent starts: those who still have a stream to the one before it find out, sooner or later.
    pub(super) fn streams_end_of_earlier(&mut self, node: NodeId) {
        let life = self.agents.get(&node).map(|agent| agent.life);
        let old = |s: &Stream| {
            (s.agent == node && s.agent_life != life) || (s.placer == node && Some(s.placer_life) != life)
        };
        let ended: Vec<StreamId> = self.streams.0.iter().filter(|(_, s)| old(s)).map(|(id, _)| *id).collect();
        for id in ended {
            let after = Duration::from_millis(draw_from(1..if happens(100) { 3_000 } else { 300 }));
            self.later(NOBODY, after, move |w| w.breaks(id));
        }
    }

    /// Both ends that live hear of its end; what was under way is lost.
    fn breaks(&mut self, id: StreamId) {
        let Some(stream) = self.streams.0.remove(&id) else { return };
        let lives =
            |w: &World, node, life| w.agents.get(&node).map(|agent: &super::agent::Agent| agent.life) == life;
        if lives(self, stream.agent, stream.agent_life) && stream.agent_life.is_some() {
            self.agent_hears(stream.agent, id, Frame::End);
        }
        if lives(self, stream.placer, Some(stream.placer_life)) {
            self.placer_hears(stream.placer, stream.agent, id, Frame::End);
        }
    }

    /// A node takes another for dead, and closes the connection between them; the other may hear of it or not, for now.
    pub(super) fn forgets(&mut self, id: NodeId, other: NodeId) {
        let between = |s: &Stream| (s.placer, s.agent) == (id, other) || (s.placer, s.agent) == (other, id);
        let all: Vec<(StreamId, NodeId)> = self
            .streams
            .0
            .iter()
            .filter(|(_, s)| between(s))
            .map(|(stream, s)| (*stream, s.placer))
            .collect();
        for (stream, placer) in all {
            if placer == id {
                self.reset(stream);
                self.placer_hears(id, other, stream, Frame::End);
            } else {
                if let Some(queue) =
                    self.streams.0.get_mut(&stream).and_then(|s| s.under_way.get_mut(&Way::Up))
                {
                    // What is carried just now may still get there.
                    queue.truncate(1);
                }
                self.agent_hears(id, stream, Frame::End);
            }
        }
    }

    /// A connection breaks for no reason.
    pub(super) fn break_one(&mut self) {
        let ids: Vec<StreamId> = self.streams.0.keys().copied().collect();
        if !ids.is_empty() {
            self.breaks(ids[draw_from(0..ids.len() as u64) as usize]);
        }
    }
}
