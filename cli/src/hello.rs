//! `hello`: the server in the image `hello:1`. It does what tests and demos need of a program that covey runs: it
//! answers, burns CPU, keeps memory, troubles its neighbours, falls ill on request, writes logs, and ends gracefully. It is this same binary
//! under another name, so nothing is embedded and nothing else is built.
//!
//! Its own start is what `make bench` measures, so there is one thread until a request asks for more.

mod args;
mod routes;
mod unkind;

use std::env;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use args::Args;
use routes::State;

/// How long `/exit` waits for other open requests; SIGTERM waits until the sender loses patience.
const EXIT_PATIENCE: Duration = Duration::from_secs(1);

/// Why the server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// SIGTERM or SIGINT: after the open requests, with exit code 0.
    Signal(&'static str),
    /// `/exit?code=N`.
    Code(u8),
}

/// Runs the server until SIGTERM, SIGINT or `/exit`. Exit code 2: wrong arguments; 1: it could not listen.
pub(crate) fn main() -> ExitCode {
    if env::args().nth(1).as_deref() == Some(unkind::FORKS) {
        unkind::fork_for_ever();
    }
    let args = match Args::parse(env::args().skip(1), env::var("PORT_http").ok()) {
        Ok(args) => args,
        Err(why) => {
            eprintln!(
                "hello: {why}\nusage: hello [--listen [ADDRESS]:PORT] [--tick MILLIS] [--exit-after MILLIS]"
            );
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(why) => {
            eprintln!("hello: cannot start the event loop: {why}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run(args));
    // Burning threads and blocked writers are not waited for.
    runtime.shutdown_background();
    code
}

async fn run(args: Args) -> ExitCode {
    let listener = match TcpListener::bind(args.listen).await {
        Ok(listener) => listener,
        Err(why) => {
            eprintln!("hello: cannot listen on {}: {why}", args.listen);
            return ExitCode::FAILURE;
        }
    };
    let (end, ending) = watch::channel(None);
    // Handlers are in place before the line that says so: as pid 1 an unhandled SIGTERM would be dropped.
    for (kind, name) in [(SignalKind::terminate(), "SIGTERM"), (SignalKind::interrupt(), "SIGINT")] {
        match signal(kind) {
            Ok(mut signals) => {
                let end = end.clone();
                tokio::spawn(async move {
                    signals.recv().await;
                    end.send_replace(Some(Ending::Signal(name)));
                });
            }
            Err(why) => {
                eprintln!("hello: cannot handle {name}: {why}");
                return ExitCode::FAILURE;
            }
        }
    }
    say(&started(args.listen));
    let state = Arc::new(State::new(end.clone()));
    if let Some(life) = args.exit_after {
        tokio::spawn(async move {
            tokio::time::sleep(life).await;
            say(&format!("hello: done after {} ms", life.as_millis()));
            end.send_replace(Some(Ending::Code(0)));
        });
    }
    if let Some(period) = args.tick {
        tokio::spawn(tick(state.clone(), period));
    }
    match serve(listener, state.clone(), ending).await {
        Ending::Code(code) => ExitCode::from(code),
        Ending::Signal(name) => {
            say(&format!("hello: ended by {name} after {} requests, none left open", state.requests()));
            ExitCode::SUCCESS
        }
    }
}

/// Accepts until told to end, then lets each connection finish the request that it is in.
async fn serve(
    listener: TcpListener,
    state: Arc<State>,
    mut ending: watch::Receiver<Option<Ending>>,
) -> Ending {
    let mut connections = JoinSet::new();
    let why = loop {
        tokio::select! {
            changed = ending.changed() => match (*ending.borrow_and_update(), changed) {
                (Some(why), _) => break why,
                (None, Ok(())) => {}
                (None, Err(_)) => break Ending::Code(0),
            },
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // Without this an answer in two writes waits 40 ms for the other side's acknowledgement.
                    let _ = stream.set_nodelay(true);
                    connections.spawn(connection(TokioIo::new(stream), state.clone(), ending.clone()));
                }
                // Out of descriptors, most likely: others may close theirs.
                Err(why) => {
                    eprintln!("hello: cannot accept a connection: {why}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    };
    drop(listener);
    if let Ending::Signal(name) = why {
        say(&format!(
            "hello: {name}: {} requests open, accepting no more",
            state.open.load(Ordering::Relaxed)
        ));
    }
    let finished = async { while connections.join_next().await.is_some() {} };
    match why {
        Ending::Signal(_) => finished.await,
        Ending::Code(_) => drop(tokio::time::timeout(EXIT_PATIENCE, finished).await),
    }
    why
}

async fn connection(
    io: TokioIo<tokio::net::TcpStream>,
    state: Arc<State>,
    mut ending: watch::Receiver<Option<Ending>>,
) {
    let service = service_fn(move |request| routes::answer(state.clone(), request));
    let mut connection =
        std::pin::pin!(http1::Builder::new().timer(TokioTimer::new()).serve_connection(io, service));
    // A client that goes away is no news; there is nobody to tell.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = ending.wait_for(Option::is_some) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

/// One numbered line each `period`, so that a reader can tell whether any was lost.
async fn tick(state: Arc<State>, period: Duration) {
    let mut timer = tokio::time::interval(period);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for number in 1u64.. {
        timer.tick().await;
        let state = state.clone();
        // A full pipe must not stop the answers, so the write waits on another thread.
        let _ = tokio::task::spawn_blocking(move || state.write_line(&format!("tick {number}"))).await;
    }
}

fn started(listen: SocketAddr) -> String {
    let of = |name| env::var(name).unwrap_or_else(|_| "-".to_owned());
    format!(
        "hello: started job={}/{} index={} generation={} listen={listen} pid={}",
        of("COVEY_OWNER"),
        of("COVEY_JOB"),
        of("COVEY_INDEX"),
        of("COVEY_GENERATION"),
        std::process::id()
    )
}

/// Writes a line to stdout; a closed stdout is not worth dying for.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests;
