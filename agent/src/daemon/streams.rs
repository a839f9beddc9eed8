//! What other nodes and strangers bring to this node: each stream to the part that answers it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use gossip::{
    transport::{Event, Lane, Stream},
    wire::{
        ask::{Question, Told},
        join::{Wanted, Whom},
    },
};
use placement::{ids::NodeId, ledger::Refusal};
use tokio::sync::mpsc;

use super::{copy, line::Line, ways};
use crate::{
    cell::{Acting, Cell},
    images, join,
    server::{self, Services},
    session::{self, AgentEnd},
};

/// Serves for ever, or until the transport is gone.
pub(super) async fn serve(mut arrived: mpsc::Receiver<Event>, services: Arc<Services>) {
    while let Some(event) = arrived.recv().await {
        let services = services.clone();
        match event {
            Event::Stream { from, lane, stream } => drop(tokio::spawn(answer(from, lane, stream, services))),
            Event::Request { from, stream } => {
                tokio::spawn(async move {
                    let name = from.0.clone();
                    if let Err(error) = server::remote(stream, from, &services).await {
                        // The client went away: nobody is left to tell.
                        tracing::debug!("a request of {name}: {error}");
                    }
                });
            }
            Event::Joining { from, stream, binding } => {
                tokio::spawn(async move {
                    let decide = |wanted| join::decide(&services.cell, &services.identity, wanted);
                    if let Err(error) = gossip::join::answer(stream, binding, decide).await {
                        tracing::debug!("{from} wanted to join: {error}");
                    }
                });
            }
            Event::Refused { from, why } => tracing::debug!("{from} was turned away: {why}"),
            // The driver's own.
            Event::Datagram { .. } => {}
        }
    }
}

async fn answer(from: NodeId, lane: Lane, stream: Stream, services: Arc<Services>) {
    let cell = &services.cell;
    match lane {
        Lane::Raft => ways::answer(stream, &cell.ledger).await,
        Lane::Session => placed(from, stream, &services).await,
        Lane::Ask => asked(from, stream, &services).await,
        Lane::Request => {
            if let Err(error) = server::passed(stream, from, &services).await {
                // The node that passed it on went away, or its client did.
                tracing::debug!("a request that node {from} passed on: {error}");
            }
        }
        // The driver's own, and strangers'.
        Lane::Exchange | Lane::Join => {}
    }
}

/// Another node acts as placer, and opens its session.
async fn placed(from: NodeId, stream: Stream, services: &Services) {
    let acting: Mutex<Option<Acting>> = Mutex::default();
    let tell = |end| match end {
        AgentEnd::Hello { hello, .. } if hello.placer != from => {
            tracing::warn!("node {from} calls itself the placer {}: its session is refused", hello.placer);
        }
        AgentEnd::Hello { hello, fresh, out } => {
            let shown = Acting { node: hello.placer, activation: hello.activation };
            *acting.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
            services.node.session(AgentEnd::Hello { hello, fresh, out });
        }
        AgentEnd::Opened(_) => {
            if let Some(acting) = *acting.lock().unwrap_or_else(PoisonError::into_inner) {
                services.cell.heard(acting);
            }
        }
        other => services.node.session(other),
    };
    if let Err(error) = session::agent_end(Line::new(stream), tell).await {
        tracing::debug!("the session of the placer {from} ended: {error}");
    }
}

async fn asked(from: NodeId, mut stream: Stream, services: &Services) {
    let question = match stream.read::<Question>().await {
        Ok(Some(question)) => question,
        Ok(None) => return,
        Err(error) => return tracing::debug!("a question of node {from}: {error}"),
    };
    match question {
        Question::Pull { after, wait_ms } => copy::answer(stream, &services.cell, after, wait_ms).await,
        Question::Authority(key) => {
            let told = match services.identity.keep_authority(&key) {
                Ok(()) => Told::Done,
                Err(error) => denied(format!("the authority is not kept here: {error}")),
            };
            tell(stream, told).await;
        }
        // It was passed on once; whoever passed it asks the right one when he knows who that is.
        Question::Join(wanted) if !matters(&services.cell, &wanted) => {
            let text = "this node is not the placer".to_string();
            tell(stream, Told::Refused(Refusal { code: join::NO_QUORUM.into(), message: text, hint: None }))
                .await;
        }
        Question::Join(wanted) => {
            let joined = join::decide(&services.cell, &services.identity, *wanted).await;
            tell(stream, Told::Joined(Box::new(joined))).await;
        }
        Question::Renew { public_key } if public_key.node() != from => {
            tell(stream, denied(format!("node {from} asks for another's certificate"))).await;
        }
        Question::Renew { public_key } => {
            let told = match services.identity.authority() {
                None => denied("this node does not vote, so it makes no certificates".into()),
                Some(authority) => {
                    match join::renew(&services.cell.state(), &authority, &public_key, SystemTime::now()) {
                        Ok(certificate) => Told::Renewed { certificate },
                        Err(refusal) => Told::Refused(refusal),
                    }
                }
            };
            tell(stream, told).await;
        }
        Question::Image(question) => images::answer(question, stream, &services.images).await,
        question => match server::told(&question, services).await {
            Some(told) => tell(stream, told).await,
            // Dropped: the other side hears that nobody answers.
            None => tracing::debug!("node {from} asks what nobody answers"),
        },
    }
}

/// Whether this node can decide about it: the placer can; a voter, if a member only wants its certificate anew.
fn matters(cell: &Cell, wanted: &Wanted) -> bool {
    cell.ledger.role().borrow().is_leader() || wanted.whom == Whom::Returning
}

fn denied(message: String) -> Told {
    Told::Refused(Refusal { code: "denied".into(), message, hint: None })
}

/// The whole answer.
async fn tell(mut stream: Stream, told: Told) {
    match stream.write(&told).await {
        Ok(()) => stream.finish().await,
        Err(error) => tracing::debug!("an answer to another node: {error}"),
    }
}
