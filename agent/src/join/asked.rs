//! What strangers bring to this node, and what other nodes ask it about certificates.

use std::time::SystemTime;

use gossip::{
    frame::FrameError,
    join::answer,
    tls::Binding,
    transport::Stream,
    wire::ask::{Question, Told},
};
use placement::{ids::NodeId, ledger::Refusal};

use super::{
    admit::{admit, later, members, renew},
    decide,
};
use crate::{cell::Cell, identity::Held};

/// Serves a stranger (`Event::Joining`) to the end.
pub async fn knocked(cell: &Cell, held: &Held, stream: Stream, binding: Binding) -> Result<(), FrameError> {
    answer(stream, binding, |wanted| decide(cell, held, wanted)).await
}

/// The whole answer to what `from` asks; none if it is about something else.
pub async fn asked(cell: &Cell, held: &Held, from: NodeId, question: &Question) -> Option<Told> {
    let now = SystemTime::now();
    let authority = held.authority();
    Some(match question {
        // Passed on once already: whoever does not lead says so.
        Question::Join(wanted) => {
            let joined = admit(&cell.ledger, authority.as_deref(), wanted, members(cell), now).await;
            Told::Joined(Box::new(joined))
        }
        Question::Renew { public_key } if public_key.node() != from => {
            let message = format_args!("the node {from} asks for a certificate of {}", public_key.node());
            Told::Refused(Refusal::new("denied", message, None))
        }
        Question::Renew { public_key } => match authority {
            None => Told::Refused(later(format_args!("{} does not vote", cell.name(cell.me())))),
            Some(authority) => match renew(&cell.state(), &authority, public_key, now) {
                Ok(certificate) => Told::Renewed { certificate },
                Err(refusal) => Told::Refused(refusal),
            },
        },
        Question::Authority(key) => match held.keep_authority(key) {
            Ok(()) => Told::Done,
            Err(error) => Told::Refused(Refusal::new("invalid", error, None)),
        },
        _ => return None,
    })
}
