//! `covey top`: what the cell does, again and again.

mod screen;

use gossip::wire::Call;
use serde_json::Value;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep_until},
};

use self::screen::{Screen, keys};
use crate::{
    args::usage::Top,
    failure::Failure,
    output::{self, AMPLE, Line, Out, Sort},
    session::Session,
};

pub(super) async fn top(args: &Top, session: &Session, out: &mut Out) -> Result<(), Failure> {
    // Asked before anything is drawn: who cannot be answered keeps his screen.
    let first = session.ask(Call::Top).await?;
    let screen = if out.json() { None } else { Screen::begin()? };
    match screen {
        Some(screen) => live(args, first, session, &screen).await,
        None => plain(args, first, session, out).await,
    }
}

/// A document a line, or a page after the other, without an end if no count was given.
async fn plain(args: &Top, first: Value, session: &Session, out: &mut Out) -> Result<(), Failure> {
    let mut document = first;
    let mut left = args.count;
    let mut next = Instant::now();
    loop {
        let sort = args.sort.0;
        out.either(&document, |document| page(&output::top(document, sort, AMPLE)))?;
        left = left.map(|left| left.saturating_sub(1));
        if left == Some(0) {
            return Ok(());
        }
        next += args.interval.0;
        sleep_until(next).await;
        // Who was slow does not hurry to make up for it.
        next = next.max(Instant::now() - args.interval.0);
        document = session.ask(Call::Top).await?;
    }
}

fn page(lines: &[Line]) -> String {
    let text: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    text.join("\n") + "\n\n"
}

/// Until somebody has seen enough.
async fn live(args: &Top, first: Value, session: &Session, screen: &Screen) -> Result<(), Failure> {
    let system = |source| Failure::System { what: "listen for signals", source };
    let mut resized = signal(SignalKind::window_change()).map_err(system)?;
    let mut told = signal(SignalKind::terminate()).map_err(system)?;
    let mut keys = keys();
    let (mut document, mut sort, mut left) = (first, args.sort.0, args.count);
    loop {
        screen.draw(&output::top(&document, sort, screen.space()))?;
        left = left.map(|left| left.saturating_sub(1));
        if left == Some(0) {
            return Ok(());
        }
        let next = async {
            sleep_until(Instant::now() + args.interval.0).await;
            session.ask(Call::Top).await
        };
        tokio::pin!(next);
        loop {
            tokio::select! {
                answer = &mut next => {
                    document = answer?;
                    break;
                }
                key = keys.recv() => match key {
                    Some(b'c') => sort = Sort::Cpu,
                    Some(b'm') => sort = Sort::Memory,
                    Some(b'n') => sort = Sort::Name,
                    // `q`, Ctrl-C, or nobody is there any more.
                    Some(b'q' | b'Q' | 3) | None => return Ok(()),
                    Some(_) => {}
                },
                _ = resized.recv() => {}
                _ = told.recv() => return Ok(()),
            }
            screen.draw(&output::top(&document, sort, screen.space()))?;
        }
    }
}
