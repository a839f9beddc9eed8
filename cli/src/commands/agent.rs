//! The agent in the foreground.

mod config;

use std::{env, io, path::PathBuf, thread};

use agent::{
    config::Config,
    daemon::{self, Ready},
};
use tracing_subscriber::EnvFilter;

pub(super) use self::config::usual_estimate;
pub(crate) use self::config::{Capacity, ConfigError, Label, Reclaim};
use crate::{args, failure::Failure, token};

/// Runs until SIGTERM or SIGINT.
pub(super) fn agent(args: args::Agent, socket: Option<PathBuf>) -> Result<(), Failure> {
    let config = config::config(args, socket, exe()?, token::from_env()).map_err(Box::new)?;
    log_to_stderr("info");
    if config.has_cell() && !config.join.is_empty() {
        let data = config.data.display();
        tracing::info!("{data} holds a node of a cell already: --join and --token are ignored");
    }
    run(config, |ready| {
        tracing::info!(
            "node {} of cell {} answers on {}",
            ready.node.name,
            ready.cell,
            ready.socket.display()
        );
    })
}

/// Runs an agent until it is told to end; `ready` is called once it answers.
pub(super) fn run(config: Config, ready: impl FnOnce(Ready)) -> Result<(), Failure> {
    // More threads than this would only cost memory: what blocks runs elsewhere.
    let threads = thread::available_parallelism().map_or(2, usize::from).clamp(2, 4);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        // Starts and removals of containers wait for the disk and the kernel: more at once only take more memory.
        .max_blocking_threads(32)
        .enable_all()
        .build()
        .map_err(|source| Failure::System { what: "start the event loop", source })?;
    let done = runtime.block_on(daemon::run(config, ready));
    // Whatever still waits for the disk has no say any more.
    runtime.shutdown_background();
    done.map_err(|why| Failure::Agent(Box::new(why)))
}

/// The running binary: shims are made of it.
pub(super) fn exe() -> Result<PathBuf, Failure> {
    env::current_exe().map_err(|source| Failure::System { what: "find the binary that runs", source })
}

/// `COVEY_LOG` says what is logged: a level, or filters as of `tracing`.
pub(super) fn log_to_stderr(level: &str) {
    let filter = EnvFilter::try_from_env("COVEY_LOG")
        // The consensus library tells of each step at `info`.
        .unwrap_or_else(|_| EnvFilter::new(format!("{level},openraft=off")));
    let colour = anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colour)
        .with_target(false)
        .init();
}
