//! The agent in the foreground: its arguments and configuration file.

use std::{collections::BTreeMap, env, fs, io, path::PathBuf, str::FromStr, thread};

use agent::{
    config::{Config, SOCKET},
    daemon::{self, Ready},
};
use placement::{
    job::{name::is_node_label, quantity},
    resources::{CPU, DISK, MEMORY, Resources},
};
use serde::Deserialize;
use tracing_subscriber::EnvFilter;

use crate::{args, failure::Failure};

/// `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label(String, String);

/// `cpu=2,memory=4GiB`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Capacity(Resources);

/// A configuration that is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: {why}")]
    Syntax { path: PathBuf, why: toml::de::Error },
    #[error("{path}: {why}")]
    Value { path: PathBuf, why: String },
    #[error("no data directory is named: give --data DIR, or data = \"DIR\" in {path}")]
    NoData { path: PathBuf },
}

/// A configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    data: Option<PathBuf>,
    socket: Option<PathBuf>,
    name: Option<String>,
    cell: Option<String>,
    #[serde(default)]
    label: BTreeMap<String, String>,
    #[serde(default)]
    capacity: BTreeMap<String, Amount>,
}

/// A number, or text with a unit.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Amount {
    Whole(u64),
    Part(f64),
    Text(String),
}

/// Runs until SIGTERM or SIGINT.
pub(super) fn agent(args: args::Agent, socket: Option<PathBuf>) -> Result<(), Failure> {
    let config = config(args, socket, exe()?).map_err(Box::new)?;
    log_to_stderr("info");
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
        .unwrap_or_else(|_| EnvFilter::new(format!("{level},openraft=error")));
    let colour = anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colour)
        .with_target(false)
        .init();
}

fn config(args: args::Agent, socket: Option<PathBuf>, exe: PathBuf) -> Result<Config, ConfigError> {
    let path = args.config.unwrap_or_default();
    let file = if path.as_os_str().is_empty() { Written::default() } else { read(&path)? };
    let value = |why| ConfigError::Value { path: path.clone(), why };
    let mut labels = BTreeMap::new();
    for (key, text) in file.label {
        let Label(key, text) = Label::new(&key, &text).map_err(value)?;
        labels.insert(key, text);
    }
    labels.extend(args.label.into_iter().map(|Label(key, value)| (key, value)));
    let mut capacity = Resources::default();
    for (name, amount) in file.capacity {
        let text = match amount {
            Amount::Whole(number) => number.to_string(),
            Amount::Part(number) => number.to_string(),
            Amount::Text(text) => text,
        };
        let (name, amount) = amount_of(&name, &text).map_err(value)?;
        capacity.set(&name, amount);
    }
    for (name, amount) in args.capacity.map(|Capacity(given)| given.0).unwrap_or_default() {
        capacity.set(&name, amount);
    }
    Ok(Config {
        data: args.data.or(file.data).ok_or_else(|| ConfigError::NoData { path: path.clone() })?,
        socket: socket.or(file.socket).unwrap_or_else(|| PathBuf::from(SOCKET)),
        name: args.name.or(file.name),
        cell: args.cell.or(file.cell),
        labels,
        capacity,
        exe,
        dev: false,
    })
}

fn read(path: &PathBuf) -> Result<Written, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
    toml::from_str(&text).map_err(|why| ConfigError::Syntax { path: path.clone(), why })
}

impl Label {
    fn new(key: &str, value: &str) -> Result<Self, String> {
        match [key, value].into_iter().find(|part| !is_node_label(part)) {
            None => Ok(Label(key.to_owned(), value.to_owned())),
            Some(part) => Err(format!(
                "`{part}` cannot be in a label: it has the form KEY=VALUE, of letters, digits and . _ - / : +"
            )),
        }
    }
}

impl FromStr for Label {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        Label::new(key, value)
    }
}

impl FromStr for Capacity {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut capacity = Resources::default();
        for part in text.split(',') {
            let (name, amount) = part
                .split_once('=')
                .ok_or("it has the form NAME=AMOUNT,…, for instance cpu=2,memory=4GiB")?;
            let (name, amount) = amount_of(name, amount)?;
            capacity.set(&name, amount);
        }
        Ok(Capacity(capacity))
    }
}

/// `cpu` and `memory` as in a job file; any other resource is counted.
fn amount_of(name: &str, amount: &str) -> Result<(String, u64), String> {
    let (name, amount) = match name {
        "cpu" => (CPU, quantity::parse_cpu(amount)),
        "memory" => (MEMORY, quantity::parse_bytes(amount)),
        "disk" => (DISK, quantity::parse_bytes(amount)),
        other if is_node_label(other) => {
            let count =
                amount.parse().map_err(|_| format!("`{amount}` of `{other}` is not a whole number"))?;
            return Ok((other.to_owned(), count));
        }
        other => return Err(format!("`{other}` cannot be the name of a resource")),
    };
    amount.map(|amount| (name.to_owned(), amount)).map_err(|why| why.to_string())
}

#[cfg(test)]
mod tests;
