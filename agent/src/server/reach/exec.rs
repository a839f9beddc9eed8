//! `covey exec`: a command in a task.

use std::{collections::BTreeMap, time::Duration};

use gossip::wire::stream::{Part, TerminalSize};
use oci::exec::{self, Ends, Exec, Running, Size};
use placement::ledger::Refusal;
use serde_json::json;
use tokio::{
    net::unix::pipe,
    task::{JoinSet, spawn_blocking},
    time::timeout,
};

use super::{
    Here, Incoming,
    carry::{self, As, Terminal, drain, feed},
};
use crate::server::{Out, Services, Stopped};

/// For output that is on its way when the command has ended. All its writers are dead by then.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Of a command in an event, in characters.
const SHOWN: usize = 500;

/// What is wanted.
pub(super) struct Wish {
    pub(super) command: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) user: Option<String>,
    pub(super) workdir: Option<String>,
    pub(super) terminal: Option<TerminalSize>,
}

pub(super) async fn exec(
    services: &Services,
    here: &Here,
    by: &str,
    wish: Wish,
    read: Incoming<'_>,
    out: &mut Out,
) -> Result<(), Stopped> {
    let shown = shown(&wish.command);
    let whom = wish.user.as_ref().map(|user| format!(" as {user}")).unwrap_or_default();
    here.note(services, "exec", format!("{by} executes{whom}: {shown}"));
    let exec = Exec {
        args: wish.command,
        env: wish.env.into_iter().map(|(name, value)| format!("{name}={value}")).collect(),
        cwd: wish.workdir.map(Into::into),
        user: wish.user,
        terminal: wish.terminal.map(size),
    };
    let (exe, bundle) = (here.exe.clone(), here.bundle.clone());
    let running = spawn_blocking(move || exec::spawn(&exe, &bundle, &exec)).await;
    let running =
        running.map_err(|_| broke_off())?.map_err(|error| here.refusal("execute a command", error))?;
    out.item(json!({"node": here.node, "pid": running.pid, "generation": here.run.generation})).await?;
    attend(running, read, out).await;
    Ok(())
}

fn size(size: TerminalSize) -> Size {
    Size { rows: size.rows, columns: size.columns }
}

pub(super) fn broke_off() -> Refusal {
    Refusal { code: "failed".into(), message: "the start of the command broke off".into(), hint: None }
}

/// Until it has ended, or the client has gone: then it is ended.
async fn attend(running: Running, read: Incoming<'_>, out: &mut Out) {
    let Running { ends, end, .. } = running;
    let (say, said) = carry::saying();
    let (inlet, input) = carry::input();
    // Both end with this function.
    let (mut feeding, mut draining) = (JoinSet::new(), JoinSet::new());
    let connected = match ends {
        Ends::Pipes { stdin, stdout, stderr } => {
            connect([stdin, stdout, stderr]).map(|(stdin, stdout, stderr)| {
                feeding.spawn(feed(input, stdin, As::Bytes, say.clone()));
                draining.spawn(drain(stdout, Part::Out, say.clone()));
                draining.spawn(drain(stderr, Part::Err, say.clone()));
                None
            })
        }
        Ends::Terminal(master) => Terminal::new(master).map(|terminal| {
            feeding.spawn(feed(input, terminal.clone(), As::Keys, say.clone()));
            draining.spawn(drain(terminal.clone(), Part::Out, say.clone()));
            Some(terminal)
        }),
    };
    let (terminal, signals) = match (connected, end.signals()) {
        (Ok(terminal), Ok(signals)) => (terminal, signals),
        (Err(error), _) | (_, Err(error)) => {
            let message = format!("the command's streams cannot be read: {error}");
            let _ = out.part(&Part::Failed(Refusal { code: "failed".into(), message, hint: None })).await;
            return;
        }
    };
    let ending = async {
        let status = spawn_blocking(move || end.wait()).await;
        let _ = timeout(LAST_WORDS, async { while draining.join_next().await.is_some() {} }).await;
        let last = match status {
            Ok(Ok(status)) => Part::End(json!({"code": status.code, "signal": status.signal})),
            Ok(Err(error)) => {
                Part::Failed(Refusal { code: "failed".into(), message: error.to_string(), hint: None })
            }
            Err(_) => Part::Failed(broke_off()),
        };
        let _ = say.send(last).await;
    };
    let other = |part: Part| match (part, &terminal) {
        (Part::Resize(to), Some(terminal)) => terminal.resize(size(to)),
        (Part::Signal(number), _) => signals.send(number.into()),
        _ => {}
    };
    tokio::select! {
        _ = async { tokio::join!(ending, carry::speak(said, out)) } => {}
        () = inlet.hear(read, other) => signals.hang_up(),
    }
}

type Pipes = (pipe::Sender, pipe::Receiver, pipe::Receiver);

pub(super) fn connect([stdin, stdout, stderr]: [std::os::fd::OwnedFd; 3]) -> std::io::Result<Pipes> {
    Ok((
        pipe::Sender::from_owned_fd(stdin)?,
        pipe::Receiver::from_owned_fd(stdout)?,
        pipe::Receiver::from_owned_fd(stderr)?,
    ))
}

/// A command as one would type it, as far as an event has room for it.
fn shown(command: &[String]) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=@,+%".contains(c);
    let word = |word: &String| match !word.is_empty() && word.chars().all(plain) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    let whole: Vec<String> = command.iter().map(word).collect();
    let whole = whole.join(" ");
    match whole.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &whole[..at]),
        None => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_shows_a_command_as_one_would_type_it() {
        let words = |words: &[&str]| shown(&words.iter().map(|w| w.to_string()).collect::<Vec<_>>());
        assert_eq!(words(&["ls", "-la", "/a b", "", "it's"]), r"ls -la '/a b' '' 'it'\''s'");
        assert_eq!(words(&["ä".repeat(600).as_str()]).chars().count(), SHOWN + 1);
    }
}
