//! What other nodes ask of this one: their clients' requests, passed on, and questions of their own.

use gossip::{
    frame::{self, FrameError},
    transport::Stream,
    wire::{
        Call,
        ask::{Passed, Question, To, Told},
    },
};
use placement::{
    ids::NodeId,
    ledger::{Refusal, RequestStamp},
};

use super::{
    Out, Services, Stopped, admit, advise, change, doctor, end_of_way, events, finish, follow, gone, invalid,
    log, look, reach,
    read::{self, Read},
    volume, watch,
};
use crate::clock;

/// Serves a client's request that the node `from` has passed on. That node vouches for who asks, and nobody passes it on
/// again.
pub(crate) async fn passed(stream: Stream, from: NodeId, services: &Services) -> Result<(), FrameError> {
    let Stream { outgoing, mut incoming } = stream;
    let mut out = Out::new(outgoing);
    let passed = match frame::read::<Passed>(&mut incoming).await {
        Ok(Some(passed)) => passed,
        Ok(None) => return Ok(()),
        Err(FrameError::Broken(error)) => return Err(FrameError::Broken(error)),
        Err(error) => return finish(&mut out, Err(invalid(error.to_string()).into())).await,
    };
    let admitted = member(services, from).and_then(|()| admit(&passed.request));
    let result = match admitted {
        Ok(stamp) if reach::opens(&passed.request.call).is_some() => {
            let result = reach::passed_on(services, passed, &stamp, &mut incoming, &mut out).await;
            return end_of_way(&mut out, result).await;
        }
        Ok(stamp) => tokio::select! {
            result = answer(passed, stamp, services, &mut out) => result,
            () = gone(&mut incoming) => return Ok(()),
        },
        Err(refusal) => Err(refusal.into()),
    };
    finish(&mut out, result).await
}

/// Whoever was removed has a certificate for a while yet.
fn member(services: &Services, from: NodeId) -> Result<(), Refusal> {
    if !services.ledger.state().removed.contains(&from) {
        return Ok(());
    }
    Err(Refusal {
        code: "denied".into(),
        message: format!("node {from} was removed from this cell"),
        hint: Some("it joins again with an empty data directory and a new token: covey token".into()),
    })
}

async fn answer(
    passed: Passed,
    stamp: RequestStamp,
    services: &Services,
    out: &mut Out,
) -> Result<(), Stopped> {
    match passed.to {
        To::Placer => as_placer(passed, stamp, services, out).await,
        To::Node => as_node(passed, stamp, services, out).await,
    }
}

async fn as_placer(
    passed: Passed,
    stamp: RequestStamp,
    services: &Services,
    out: &mut Out,
) -> Result<(), Stopped> {
    let call = &passed.request.call;
    if let Some(read) = Read::of(call, &stamp) {
        return out.item(look::as_placer(services, &read).await?).await;
    }
    if let Call::Watch { job } = call {
        let mut watching = watch::Watching::new(services, &change::key(&stamp, job));
        loop {
            let document = watching.next(services).await?;
            let settled = watch::settled(&document);
            out.item(document).await?;
            if settled {
                return Ok(());
            }
        }
    }
    out.item(change::decide(services, &stamp, call, passed.images.as_ref()).await?).await
}

async fn as_node(
    passed: Passed,
    stamp: RequestStamp,
    services: &Services,
    out: &mut Out,
) -> Result<(), Stopped> {
    match passed.request.call {
        Call::Events { job, node, since_ms, follow } => {
            let filter = events::EventFilter::of(&stamp, events::EventFilter { job, node, since_ms });
            events::here(services, filter, follow, out).await
        }
        Call::Logs { job, index, follow, previous, tail, from, since_ms } => {
            let job = change::key(&stamp, &job);
            let task = match passed.task {
                Some(task) => task,
                None => read::task_key(&services.ledger.state(), &job, index)?,
            };
            let run = passed.run.and_then(|run| run.parse().ok());
            let wanted = log::Wanted { follow, previous, tail, from, since_ms, run };
            log::here(services, task, &wanted, &mut None, out).await.map(drop)
        }
        _ => Err(invalid("this is not asked of a node itself".to_string()).into()),
    }
}

/// Answers what other nodes ask about this one; none: that is not one of these questions.
pub(crate) async fn told(question: &Question, services: &Services) -> Option<Told> {
    match question {
        Question::Own => Some(match look::own(services).await {
            Ok(part) => Told::Own(Box::new(part)),
            Err(refusal) => Told::Refused(refusal),
        }),
        Question::Runs { task, job } => Some(follow::runs(services, *task, job.clone()).await),
        Question::Volumes { of, remove } => Some(volume::told(services, of, *remove).await),
        Question::History { job } => Some(advise::told(services, job.clone()).await),
        Question::Ping => Some(Told::Pong { wall_ms: clock::now().wall_ms }),
        Question::Examine => Some(Told::Examined(Box::new(doctor::examine(services).await))),
        _ => None,
    }
}
