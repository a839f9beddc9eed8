//! Ways into a task, through any node: commands, files, connections. The node that takes the request passes it on to the
//! task's node in one hop; what goes both ways then is `gossip::wire::stream`.

mod carry;
mod copy;
mod exec;
mod forward;
mod here;
pub(super) mod left;

use gossip::{
    frame,
    transport::{Lane, Stream},
    wire::{
        Call, JobName, Reply,
        ask::{Passed, To},
        stream::{Part, Parts},
    },
};
use placement::{
    ids::{JobKey, NodeId, TaskKey},
    ledger::{Command, Refusal, RequestStamp},
};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, copy as pass_bytes};

use super::{
    Out, Services, Stopped, change, invalid,
    locate::{Located, locate},
    read::task_key,
};
use here::Here;

/// What comes from the client.
pub(super) type Incoming<'a> = &'a mut (dyn AsyncRead + Send + Unpin);

/// The task that a call opens a way into; none: it is not such a call.
pub(super) fn opens(call: &Call) -> Option<(&JobName, u32)> {
    match call {
        Call::Exec { job, index, .. }
        | Call::Forward { job, index, .. }
        | Call::CopyOut { job, index, .. }
        | Call::CopyIn { job, index, .. } => Some((job, *index)),
        _ => None,
    }
}

/// One index of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
struct About {
    job: JobKey,
    index: u32,
}

/// A request of one of this node's clients. Returns when it is over, however it ended.
///
/// # Errors
/// Nothing was begun.
pub(super) async fn client(
    services: &Services,
    mut passed: Passed,
    stamp: &RequestStamp,
    read: Incoming<'_>,
    out: &mut Out,
) -> Result<(), Stopped> {
    let about = admitted(services, &passed.request.call, stamp)?;
    let located = locate(services, &passed, &about.job, about.index).await?;
    let task = located.task;
    let previous = matches!(passed.request.call, Call::CopyOut { previous: true, .. });
    let earlier = previous.then(|| about.job.clone());
    let node = match (&passed.request.call, running(&about, located)) {
        (Call::CopyOut { previous: true, .. }, _) => Err(no_earlier_run(&about)),
        (Call::CopyOut { .. }, Err(why)) => {
            Err(Refusal { message: format!("{}; and no files of it are left", why.message), ..why })
        }
        (_, found) => Ok(found?),
    };
    let node = match node {
        Ok(node) => node,
        Err(nothing) => {
            let (run, node) = left::find(services, task, earlier.as_ref(), nothing).await?;
            passed.run = Some(run.to_string());
            node
        }
    };
    (passed.to, passed.task) = (To::Node, Some(task));
    if node == services.cell.me() {
        let here = find(services, &passed, about, task).await?;
        begin(services, passed.request.call, stamp, here, read, out).await
    } else {
        relay(services, &passed, node, read, out).await
    }
}

/// A request that another node has passed on.
///
/// # Errors
/// Nothing was begun.
pub(super) async fn passed_on(
    services: &Services,
    passed: Passed,
    stamp: &RequestStamp,
    read: Incoming<'_>,
    out: &mut Out,
) -> Result<(), Stopped> {
    let about = admitted(services, &passed.request.call, stamp)?;
    let task = match passed.task {
        Some(task) => task,
        None => task_key(&services.ledger.state(), &about.job, about.index)?,
    };
    let here = find(services, &passed, about, task).await?;
    begin(services, passed.request.call, stamp, here, read, out).await
}

fn copies_out(call: &Call) -> bool {
    matches!(call, Call::CopyOut { .. })
}

/// The task here; for a copy of its files also what its last run has left.
async fn find(services: &Services, passed: &Passed, about: About, task: TaskKey) -> Result<Here, Refusal> {
    let of_files = copies_out(&passed.request.call);
    if let (true, Some(run)) = (of_files, passed.run.as_ref().and_then(|run| run.parse().ok())) {
        return Here::left(services, about, run);
    }
    match Here::find(services, about.clone(), task).await {
        Err(why) if of_files => match left::newest(services, task, None).await {
            Some(run) => Here::left(services, about, run),
            None => Err(why),
        },
        here => here,
    }
}

/// Whoever may start a task again may look into it. Asked where the request comes in, and again where it is done.
fn admitted(services: &Services, call: &Call, stamp: &RequestStamp) -> Result<About, Refusal> {
    let (job, index) = opens(call).ok_or_else(|| invalid("this opens no way into a task".to_string()))?;
    let about = About { job: change::key(stamp, job), index };
    let command = Command::Restart { job: about.job.clone(), index: Some(index) };
    services.ledger.state().may(&stamp.principal, &command).map_err(|refusal| {
        services.journal.node("denied", format!("{}: {refusal}", stamp.principal.0));
        Refusal { message: format!("{}/{index}: {}", about.job, refusal.message), ..refusal }
    })?;
    Ok(about)
}

async fn begin(
    services: &Services,
    call: Call,
    stamp: &RequestStamp,
    here: Here,
    read: Incoming<'_>,
    out: &mut Out,
) -> Result<(), Stopped> {
    let by = &stamp.principal.0;
    match call {
        Call::Exec { command, env, user, workdir, terminal, .. } => {
            let wish = exec::Wish { command, env, user, workdir, terminal };
            exec::exec(services, &here, by, wish, read, out).await
        }
        Call::Forward { port, .. } => forward::forward(services, &here, by, &port, read, out).await,
        Call::CopyOut { path, .. } => copy::out(services, &here, by, path, read, out).await,
        Call::CopyIn { path, all, .. } => copy::inside(services, &here, by, path, all, read, out).await,
        _ => Err(invalid("this opens no way into a task".to_string()).into()),
    }
}

/// Of a run that is over, whether or not another runs.
fn no_earlier_run(About { job, index }: &About) -> Refusal {
    let message = format!("there are no files that an earlier run of {job}/{index} has left");
    Refusal::new("not_found", message, None)
}

/// The node where it runs.
fn running(about: &About, Located { row, node, .. }: Located) -> Result<NodeId, Refusal> {
    let row = row.ok_or_else(|| Refusal {
        code: "not_found".into(),
        message: format!("{} has no task {}", about.job, about.index),
        hint: Some(format!("covey tasks {} shows those that there are", about.job)),
    })?;
    match node {
        Some(node) if !matches!(row["state"].as_str(), Some("succeeded" | "failed" | "lost")) => Ok(node),
        _ => Err(not_running(about, &row)),
    }
}

/// Of a task as `covey task` shows it.
fn not_running(about: &About, row: &Value) -> Refusal {
    let About { job, index } = about;
    let state = row["state"].as_str().unwrap_or("unknown");
    let mut message = format!("{job}/{index} does not run: it is {state}");
    if let Some(since) = row["since"].as_str() {
        message.push_str(&format!(" since {since}"));
    }
    match (row["exit"]["code"].as_i64(), row["exit"]["signal"].as_i64()) {
        (Some(code), _) => message.push_str(&format!(", with exit code {code}")),
        (None, Some(signal)) => message.push_str(&format!(", ended by signal {signal}")),
        (None, None) => {}
    }
    if let Some(reason) = row["reason"].as_str() {
        message.push_str(&format!(" ({reason})"));
    }
    let hint =
        format!("covey logs {job}/{index} shows what it said, covey why {job}/{index} whether it will run");
    Refusal { code: "not_found".into(), message, hint: Some(hint) }
}

/// Passes all of it on, both ways.
async fn relay(
    services: &Services,
    passed: &Passed,
    node: NodeId,
    read: Incoming<'_>,
    out: &mut Out,
) -> Result<(), Stopped> {
    let name = services.cell.name(node);
    let unreachable = |why: String| Refusal {
        code: "unreachable".into(),
        message: format!("the task is on {name}, which cannot be reached: {why}"),
        hint: Some("covey doctor says which nodes reach each other".into()),
    };
    let opened = services.cell.peers.open(node, Lane::Request).await;
    let mut stream = opened.map_err(|error| unreachable(error.of_it()))?;
    stream.write(passed).await.map_err(|error| unreachable(error.to_string()))?;
    let Stream { mut outgoing, mut incoming } = stream;
    match frame::read::<Reply>(&mut incoming).await {
        Ok(Some(Reply::Item(document))) => out.item(document).await?,
        Ok(Some(Reply::Error(refusal))) => return Err(refusal.into()),
        Ok(_) => return Err(unreachable("it closed the stream before it had answered".into()).into()),
        Err(error) => return Err(unreachable(error.to_string()).into()),
    }
    let mut parts = Parts::new(incoming);
    let down = async {
        loop {
            let broken = match parts.next().await {
                Ok(Some(part)) => {
                    let last = matches!(part, Part::End(_) | Part::Failed(_));
                    if out.part(&part).await.is_err() || last {
                        return;
                    }
                    continue;
                }
                Ok(None) => "it closed the stream".to_string(),
                Err(error) => error.to_string(),
            };
            let _ = out.part(&Part::Failed(unreachable(broken))).await;
            return;
        }
    };
    tokio::select! {
        () = down => {}
        // The client has gone: as both streams are dropped, the other node learns it.
        () = up(read, &mut outgoing) => {}
    }
    Ok(())
}

async fn up(read: Incoming<'_>, outgoing: &mut (impl AsyncWrite + Unpin)) {
    if pass_bytes(read, outgoing).await.is_err() {
        // The other node takes no more: what it still sends says why.
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_task_that_does_not_run_is_told_of_with_when_and_how() {
        let about = About { job: JobKey { owner: "root".into(), name: "etl".into() }, index: 2 };
        let said = |row: Value| not_running(&about, &row).message;
        let ended = json!({"state": "failed", "since": "2026-01-01T00:00:00Z", "reason": "it failed 4 times",
                           "exit": {"code": 7, "signal": null, "cause": "exited"}});
        assert_eq!(
            said(ended),
            "root/etl/2 does not run: it is failed since 2026-01-01T00:00:00Z, with exit code 7 (it failed 4 times)"
        );
        let killed = json!({"state": "lost", "exit": {"code": null, "signal": 9}});
        assert_eq!(said(killed), "root/etl/2 does not run: it is lost, ended by signal 9");
        assert_eq!(said(json!({"state": "pending"})), "root/etl/2 does not run: it is pending");
    }
}
