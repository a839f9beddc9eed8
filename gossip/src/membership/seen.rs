//! What one member tells another of a third.

use foca::{Member, State};
use serde::{Deserialize, Serialize};

use crate::peer::Peer;

/// A member as another one sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub peer: Peer,
    /// How often it has contradicted those who thought it dead.
    pub incarnation: u16,
    pub health: Health,
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    Alive,
    Suspect,
    Dead,
}

impl From<&Member<Peer>> for Seen {
    fn from(member: &Member<Peer>) -> Seen {
        let health = match member.state() {
            State::Alive => Health::Alive,
            State::Suspect => Health::Suspect,
            State::Down => Health::Dead,
        };
        Seen { peer: *member.id(), incarnation: member.incarnation(), health }
    }
}

impl From<Seen> for Member<Peer> {
    fn from(seen: Seen) -> Member<Peer> {
        let state = match seen.health {
            Health::Alive => State::Alive,
            Health::Suspect => State::Suspect,
            Health::Dead => State::Down,
        };
        Member::new(seen.peer, seen.incarnation, state)
    }
}
