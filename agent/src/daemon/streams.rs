//! What other nodes and strangers bring to this node: each stream to the part that answers it.

use std::sync::{Arc, Mutex, PoisonError};

use gossip::{
    transport::{Event, Lane, Refused, Stream},
    wire::ask::{Question, Told},
};
use placement::ids::NodeId;
use tokio::sync::mpsc;

use super::{company, copy, line::Line, ways};
use crate::{
    cell::Acting,
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
                    let (cell, held) = (&services.cell, &services.identity);
                    if let Err(error) = join::knocked(cell, held, stream, binding).await {
                        tracing::debug!("{from} wanted to join: {error}");
                    }
                });
            }
            Event::Refused { from, why: Refused::Twin } => {
                company::copied(&services.cell, &services.journal, from)
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
        Question::Image(question) => images::answer(question, stream, &services.images).await,
        question => {
            let told = match join::asked(&services.cell, &services.identity, from, &question).await {
                Some(told) => Some(told),
                None => server::told(&question, services).await,
            };
            match told {
                Some(told) => tell(stream, told).await,
                // Dropped: the other side hears that nobody answers.
                None => tracing::debug!("node {from} asks what nobody answers"),
            }
        }
    }
}

/// The whole answer.
async fn tell(mut stream: Stream, told: Told) {
    match stream.write(&told).await {
        Ok(()) => stream.finish().await,
        Err(error) => tracing::debug!("an answer to another node: {error}"),
    }
}
