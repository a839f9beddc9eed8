//! A member as SWIM names it: who, where, and which of its lives.

use std::{fmt, net::SocketAddr};

use placement::ids::NodeId;
use serde::{Deserialize, Serialize};

/// A member of the cell. Rides several times in each packet: at most 64 bytes of postcard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Peer {
    #[serde(with = "eight_bytes")]
    pub id: NodeId,
    /// Counts the starts of its agent, and is kept on its disk: a later life replaces an earlier one, whatever the address.
    pub life: u64,
    /// Counts the times it was declared dead in this life, and was not.
    pub renewal: u32,
    /// Where it listens.
    pub addr: SocketAddr,
}

/// Stands for whoever listens on an address. No node has it: ids are hashes.
const ANYONE: NodeId = NodeId(0);

impl Peer {
    /// A node in its `life`th life.
    pub fn new(id: NodeId, addr: SocketAddr, life: u64) -> Peer {
        Peer { id, life, renewal: 0, addr }
    }

    /// Whoever listens on `addr`: to be greeted, never a member.
    pub fn anyone_at(addr: SocketAddr) -> Peer {
        Peer::new(ANYONE, addr, 0)
    }

    /// Its id, unless this is `anyone_at` an address.
    pub fn known(&self) -> Option<NodeId> {
        (self.id != ANYONE).then_some(self.id)
    }

    /// Which of two sightings of one node is the later. The address only breaks the tie of a node that runs twice.
    pub(crate) fn order(&self) -> (u64, u32, SocketAddr) {
        (self.life, self.renewal, self.addr)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.known() {
            Some(id) => write!(f, "{id} at {}", self.addr),
            None => write!(f, "whoever is at {}", self.addr),
        }
    }
}

impl foca::Identity for Peer {
    type Addr = NodeId;

    fn renew(&self) -> Option<Peer> {
        Some(Peer { renewal: self.renewal.checked_add(1)?, ..*self })
    }

    fn addr(&self) -> NodeId {
        self.id
    }

    fn win_addr_conflict(&self, adversary: &Peer) -> bool {
        self.order() > adversary.order()
    }
}

/// An id is random: as a varint it would take ten bytes, and as the text of JSON seventeen.
mod eight_bytes {
    use super::NodeId;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(id: &NodeId, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { id.serialize(to) } else { id.0.to_be_bytes().serialize(to) }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<NodeId, D::Error> {
        if from.is_human_readable() {
            return NodeId::deserialize(from);
        }
        <[u8; 8]>::deserialize(from).map(|bytes| NodeId(u64::from_be_bytes(bytes)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use foca::Identity;

    #[test]
    fn small_on_the_wire() {
        let v4 = Peer::new(NodeId(u64::MAX), "10.0.0.1:7946".parse().unwrap(), 300);
        assert_eq!(postcard::to_allocvec(&v4).unwrap().len(), 18);
        let addr = "[2001:db8::1]:65535".parse().unwrap();
        let longest = Peer { id: NodeId(u64::MAX), life: u64::MAX, renewal: u32::MAX, addr };
        let bytes = postcard::to_allocvec(&longest).unwrap();
        assert!(bytes.len() <= 64, "{} bytes", bytes.len());
        assert_eq!(postcard::from_bytes::<Peer>(&bytes).unwrap(), longest);
    }

    #[test]
    fn a_later_life_wins_wherever_it_is() {
        let old = Peer::new(NodeId(1), "10.0.0.9:1".parse().unwrap(), 1);
        let renewed = old.renew().unwrap();
        let restarted = Peer::new(NodeId(1), "10.0.0.1:1".parse().unwrap(), 2);
        assert!(renewed.win_addr_conflict(&old) && !old.win_addr_conflict(&renewed));
        assert!(restarted.win_addr_conflict(&renewed) && !renewed.win_addr_conflict(&restarted));
        // A copied data directory: one of the two wins, and the same one everywhere.
        let copy = Peer { addr: "10.0.0.2:1".parse().unwrap(), ..old };
        assert_ne!(copy.win_addr_conflict(&old), old.win_addr_conflict(&copy));
        assert_eq!(old.addr(), restarted.addr());
    }
}
