//! `covey exec`.

use std::{
    env,
    io::{self, Read, Write},
    thread,
    time::Duration,
};

use gossip::wire::{
    Call,
    stream::{Part, Parts},
};
use serde_json::Value;
use tokio::{
    io::AsyncRead,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::timeout,
};

use super::{
    Credit, broken, mouth,
    terminal::{Raw, size},
};
use crate::{args::reach::Exec, failure::Failure, names::TaskName, session::Session};

/// Of standard input at once.
const PIECE: usize = 32 << 10;
/// For the node to end a command that nobody wants any more, and to say so.
const PARTING: Duration = Duration::from_secs(3);

pub(in crate::commands) async fn exec(args: Exec, session: &Session) -> Result<(), Failure> {
    let TaskName { job, index } = args.task;
    let mut env: std::collections::BTreeMap<String, String> =
        args.env.into_iter().map(|variable| (variable.0, variable.1)).collect();
    if args.tty
        && let Ok(term) = env::var("TERM")
    {
        env.entry("TERM".to_owned()).or_insert(term);
    }
    let terminal = args.tty.then(size);
    let call = Call::Exec {
        job,
        index,
        command: args.command,
        env,
        user: args.user,
        workdir: args.workdir,
        terminal,
    };
    let (_, (from, to)) = session.open(call).await?;

    let _raw = if args.tty { Raw::begin() } else { None };
    let (say, sending) = mouth(to);
    let credit = Credit::new();
    let input = (say.clone(), credit.clone());
    thread::spawn(move || pass_input(&input.0, &input.1));
    let mut parts = Parts::new(from);
    let ended = attend(&mut parts, &say, &credit, args.tty).await;
    if ended.is_err() {
        // The thread that reads standard input may hold the way open for ever: it is closed here.
        drop(say);
        sending.abort();
        let _ = sending.await;
        let _ = timeout(PARTING, async { while let Ok(Some(_)) = parts.next().await {} }).await;
    }
    match ended? {
        0 => Ok(()),
        code => Err(Failure::Ended(code)),
    }
}

/// Blocking; ends with the input, or with the process.
fn pass_input(say: &mpsc::Sender<Part>, credit: &Credit) {
    let mut stdin = io::stdin().lock();
    let mut buffer = vec![0; PIECE];
    loop {
        match stdin.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                credit.take(read);
                if say.blocking_send(Part::In(buffer[..read].to_vec())).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // As a closed one: there will be no more.
            Err(_) => break,
        }
    }
    let _ = say.blocking_send(Part::InEnd);
}

/// Until the command has ended. Returns what to exit with.
async fn attend(
    parts: &mut Parts<impl AsyncRead + Unpin>,
    say: &mpsc::Sender<Part>,
    credit: &Credit,
    tty: bool,
) -> Result<u8, Failure> {
    let listen = |kind| signal(kind).map_err(|source| Failure::System { what: "listen to signals", source });
    let mut resized = listen(SignalKind::window_change())?;
    let mut interrupts = listen(SignalKind::interrupt())?;
    let (mut terminate, mut hangup) = (listen(SignalKind::terminate())?, listen(SignalKind::hangup())?);
    let mut interrupted = false;
    loop {
        tokio::select! {
            part = parts.next() => match part {
                Ok(Some(Part::Out(bytes))) => write(&mut io::stdout().lock(), &bytes)?,
                Ok(Some(Part::Err(bytes))) => write(&mut io::stderr().lock(), &bytes)?,
                Ok(Some(Part::Taken(bytes))) => credit.give(bytes),
                Ok(Some(Part::End(status))) => return Ok(exit_code(&status)),
                Ok(Some(Part::Failed(refusal))) => return Err(refusal.into()),
                Ok(Some(_)) => {}
                Ok(None) => return Err(broken("it closed the connection")),
                Err(error) => return Err(broken(&error.to_string())),
            },
            Some(()) = resized.recv(), if tty => drop(say.send(Part::Resize(size())).await),
            Some(()) = interrupts.recv() => {
                if interrupted {
                    return Ok(128 + 2);
                }
                // The command may have something to put away. Whoever insists has its end.
                interrupted = true;
                let _ = say.send(Part::Signal(2)).await;
            }
            Some(()) = terminate.recv() => return Err(Failure::Ended(128 + 15)),
            Some(()) = hangup.recv() => return Err(Failure::Ended(128 + 1)),
        }
    }
}

fn write(to: &mut impl Write, bytes: &[u8]) -> Result<(), Failure> {
    to.write_all(bytes)?;
    Ok(to.flush()?)
}

/// As shells say it.
fn exit_code(status: &Value) -> u8 {
    let number = match (status["code"].as_i64(), status["signal"].as_i64()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 125,
    };
    u8::try_from(number).unwrap_or(255)
}
