//! `covey cp`: files of a task, as archives.

use std::{path::PathBuf, time::Duration};

use gossip::wire::stream::Part;
use oci::{
    copy::{self, Into, Told},
    exec::{End, Ends, Running, Signals},
};
use placement::ledger::Refusal;
use serde_json::json;
use tokio::{
    io::AsyncReadExt as _,
    net::unix::pipe,
    task::{JoinSet, spawn_blocking},
    time::timeout,
};

use super::{
    Here, Incoming,
    carry::{self, As, drain, feed},
    exec::{broke_off, connect},
};
use crate::server::{Out, Services, Stopped, invalid};

/// Of what the process inside says of its work, in bytes.
const REPORT: u64 = 64 << 10;
/// For it to be read once that process has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Out of a task.
pub(super) async fn out(
    services: &Services,
    here: &Here,
    by: &str,
    path: String,
    read: Incoming<'_>,
    out: &mut Out,
) -> Result<(), Stopped> {
    let from = absolute(&path)?;
    here.note(
        services,
        "cp",
        format!("{by} copies {path} out of {}", if here.over { "what it has left" } else { "it" }),
    );
    let (exe, bundle, over) = (here.exe.clone(), here.bundle.clone(), here.over);
    let running = spawn_blocking(move || match over {
        true => copy::send_left(&exe, &bundle, &from),
        false => copy::send(&exe, &bundle, &from),
    })
    .await;
    carry(here, running.map_err(|_| broke_off())?, As::Bytes, read, out).await
}

/// Into a task.
pub(super) async fn inside(
    services: &Services,
    here: &Here,
    by: &str,
    path: String,
    all: bool,
    read: Incoming<'_>,
    out: &mut Out,
) -> Result<(), Stopped> {
    let to = absolute(&path)?;
    here.note(services, "cp", format!("{by} copies files to {path} in it"));
    let to = if all { Into::Directory(to) } else { Into::Place(to) };
    let (exe, bundle) = (here.exe.clone(), here.bundle.clone());
    let running = spawn_blocking(move || copy::receive(&exe, &bundle, to)).await;
    carry(here, running.map_err(|_| broke_off())?, As::Chunks, read, out).await
}

fn absolute(path: &str) -> Result<PathBuf, Refusal> {
    match path.starts_with('/') && !path.contains('\0') {
        true => Ok(path.into()),
        false => Err(invalid(format!("`{path}` is no path in a container: it begins with /"))),
    }
}

async fn carry(
    here: &Here,
    running: Result<Running, oci::exec::Error>,
    how: As,
    read: Incoming<'_>,
    out: &mut Out,
) -> Result<(), Stopped> {
    let Running { ends, end, .. } = running.map_err(|error| here.refusal("copy files", error))?;
    out.item(json!({"node": here.node, "generation": here.run.generation, "over": here.over})).await?;
    let failed = |message: String| Refusal { code: "failed".into(), message, hint: None };
    let pipes = match ends {
        Ends::Pipes { stdin, stdout, stderr } => connect([stdin, stdout, stderr]),
        Ends::Terminal(_) => Err(std::io::ErrorKind::Unsupported.into()),
    };
    let last = match pipes.and_then(|pipes| Ok((pipes, end.signals()?))) {
        Ok((pipes, signals)) => {
            work(here, pipes, end, signals, how, read, out).await;
            return Ok(());
        }
        Err(error) => failed(format!("the copy's streams cannot be read: {error}")),
    };
    let _ = out.part(&Part::Failed(last)).await;
    Ok(())
}

async fn work(
    here: &Here,
    (stdin, stdout, mut stderr): (pipe::Sender, pipe::Receiver, pipe::Receiver),
    end: End,
    signals: Signals,
    how: As,
    read: Incoming<'_>,
    out: &mut Out,
) {
    let (say, said) = carry::saying();
    let (inlet, input) = carry::input();
    let (mut feeding, mut draining) = (JoinSet::new(), JoinSet::new());
    feeding.spawn(feed(input, stdin, how, say.clone()));
    draining.spawn(drain(stdout, Part::Out, say.clone()));
    let ending = async {
        let mut report = Vec::new();
        let reading = async {
            let _ = (&mut stderr).take(REPORT).read_to_end(&mut report).await;
        };
        let (status, ()) = tokio::join!(spawn_blocking(move || end.wait()), reading);
        let _ = timeout(LAST_WORDS, async { while draining.join_next().await.is_some() {} }).await;
        let last = match (serde_json::from_slice::<Told>(&report), status) {
            (Ok(Told::Done(copied)), _) => Part::End(json!(copied)),
            (Ok(Told::Failed(failure)), _) => {
                let hint = Some(failure.hint.clone()).filter(|hint| !hint.is_empty());
                let code = if failure.why.contains("No such file") { "not_found" } else { "failed" };
                let message = format!("{}/{}: {failure}", here.about.job, here.about.index);
                Part::Failed(Refusal { code: code.into(), message, hint })
            }
            // Killed, with its task or by it.
            (Err(_), status) => {
                let why = match status {
                    Ok(Ok(status)) => format!("it ended with code {}", status.shell_code()),
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => "nobody waited for it".to_string(),
                };
                let message = format!("the process that copies broke off: {why}");
                Part::Failed(Refusal {
                    code: "failed".into(),
                    message,
                    hint: Some("does the task still run?".into()),
                })
            }
        };
        let _ = say.send(last).await;
    };
    let gone = tokio::select! {
        _ = async { tokio::join!(ending, carry::speak(said, out)) } => false,
        () = inlet.hear(read, |_| {}) => true,
    };
    if gone {
        // Its input breaks off first, so that it puts away what it has begun.
        feeding.shutdown().await;
        signals.hang_up();
    }
}
