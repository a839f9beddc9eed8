//! The placer's sessions: opened to everybody in the roster, and again when one has ended.

use gossip::wire::{FromAgent, Hello, News, PROTOCOL, SessionId, Welcome};
use placement::{ids::NodeId, node::Books, resources::Resources};

use super::{
    placer::AGAIN_MS,
    stream::{Frame, StreamId, Way},
    world::{World, ms},
};
use crate::{core::place::PlaceEvent, sim::runtime::draw_from};

/// A session that is not open by then is tried anew.
const DIAL_MS: u64 = 3_000;

/// The way to one member's agent.
pub(super) struct Link {
    pub(super) stream: Option<StreamId>,
    pub(super) open: Option<SessionId>,
    /// Tried, or to be tried again.
    at_ms: u64,
}

impl Link {
    /// To be tried again in a while. Returns the stream that it was on.
    pub(super) fn lost(&mut self) -> Option<StreamId> {
        self.open = None;
        self.at_ms = ms() + AGAIN_MS;
        self.stream.take()
    }
}

impl World {
    /// Opens a session to each member that has none.
    pub(super) fn reach(&mut self, id: NodeId) {
        let Some(activation) = self.agents.get(&id).and_then(|agent| agent.placer.reign.acts()) else {
            return;
        };
        let roster: Vec<NodeId> = self.agents[&id].placer.view.ledger().roster.keys().copied().collect();
        for node in roster {
            let links = &mut self.agents.get_mut(&id).unwrap().placer.links;
            let link = links.entry(node).or_insert(Link { stream: None, open: None, at_ms: 0 });
            let due = match (link.stream, link.open) {
                (Some(_), Some(_)) => false,
                (Some(_), None) => ms() >= link.at_ms + DIAL_MS,
                (None, _) => ms() >= link.at_ms,
            };
            if due {
                let before = link.stream.take();
                let fresh = draw_from(0..u64::MAX);
                let hello = Hello { protocol: PROTOCOL.into(), placer: id, activation, fresh };
                // What was tried before may still get there.
                before.into_iter().for_each(|stream| self.put(stream, Way::Down, Frame::End));
                let stream = self.open(id, node, hello);
                let link = Link { stream: Some(stream), open: None, at_ms: ms() };
                self.agents.get_mut(&id).unwrap().placer.links.insert(node, link);
            }
        }
    }

    /// A frame for the placer's end of a stream.
    pub(super) fn placer_hears(&mut self, id: NodeId, from: NodeId, stream: StreamId, frame: Frame) {
        let links = &mut self.agents.get_mut(&id).unwrap().placer.links;
        // Of a session that this placer has given up, or an earlier one had.
        let Some(link) = links.get_mut(&from).filter(|link| link.stream == Some(stream)) else { return };
        match frame {
            Frame::Welcome(Welcome::Open { session, .. }) => {
                link.open = Some(session);
                self.place(id, PlaceEvent::SessionOpened { node: from, session });
            }
            Frame::Welcome(Welcome::Promised(_)) => drop(link.lost()),
            Frame::News(news) => self.place(id, PlaceEvent::News { node: from, from: news }),
            Frame::End => {
                let session = link.open;
                link.lost();
                if let Some(session) = session {
                    self.place(id, PlaceEvent::SessionClosed { node: from, session });
                }
            }
            Frame::Hello(_) | Frame::Order(_) => unreachable!("only placers say that"),
        }
    }

    /// As if everybody had reported that there is nothing.
    pub(super) fn skip_fence(&mut self, id: NodeId) {
        let roster: Vec<NodeId> = self.agents[&id].placer.view.ledger().roster.keys().copied().collect();
        for node in roster {
            let session = SessionId { placer: 0, agent: 0 };
            let (info, books) = (self.machines[&node].info.clone(), Books::default());
            let news = News::Full { node: info, books, usage: Resources::default(), tasks: Vec::new() };
            let from = Box::new(FromAgent { session, number: 0, news, lessons: Vec::new() });
            self.tell(id, PlaceEvent::SessionOpened { node, session });
            self.tell(id, PlaceEvent::News { node, from });
            self.tell(id, PlaceEvent::SessionClosed { node, session });
        }
    }
}
