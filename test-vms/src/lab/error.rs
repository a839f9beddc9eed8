use std::path::PathBuf;
use std::time::Duration;

/// Why something about a lab could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Namespaces, cgroups and mounts are root's.
    #[error("a lab makes namespaces, cgroups and mounts: run this as root")]
    NotRoot,
    /// No lab of that name.
    #[error(
        "there is no lab `{0}`: start it with `covey-lab up --name {0} --hosts 3`, or name another with --name"
    )]
    NoLab(String),
    /// It is there, whole or half.
    #[error(
        "there is a lab `{name}` already, in {dir}: `covey-lab down --name {name}` ends it, --name starts another"
    )]
    Exists {
        /// The lab.
        name: String,
        /// Where it keeps its state.
        dir: PathBuf,
    },
    /// Not a name.
    #[error("`{0}` cannot be a lab's name: it is a letter, then letters, digits and `-`, at most 32")]
    BadName(String),
    /// Not the name of a host.
    #[error("`{0}` cannot be a host's name: hosts are h1, h2 … h65000")]
    BadHost(String),
    /// Not an address that hosts can have.
    #[error("`{0}` cannot be a host's address: it is one of 10.77.0.1 to 10.77.255.254 that no host has")]
    BadAddress(String),
    /// No such host.
    #[error("lab `{lab}` has no host `{host}`; it has {hosts}")]
    NoHost {
        /// The lab.
        lab: String,
        /// The host asked for.
        host: String,
        /// Those that are there.
        hosts: String,
    },
    /// A second host of that name.
    #[error("lab `{lab}` has a host `{host}` already")]
    HostExists {
        /// The lab.
        lab: String,
        /// The host.
        host: String,
    },
    /// Nothing can be done on a host without power.
    #[error("host `{0}` is powered off: `covey-lab boot {0}` powers it on")]
    Off(String),
    /// It has power already.
    #[error("host `{0}` is powered on already: `covey-lab crash {0}` powers it off")]
    On(String),
    /// Its agent is there already.
    #[error("an agent runs on `{0}` already: `covey-lab kill {0}` kills it")]
    AgentRuns(String),
    /// Its agent is not there.
    #[error("no agent runs on `{0}`: `covey-lab start {0}` starts it")]
    NoAgent(String),
    /// An agent that ended by itself.
    #[error("the agent on `{host}` has ended; the end of its log, {log}:\n{said}")]
    AgentEnded {
        /// The host.
        host: String,
        /// Its log file.
        log: PathBuf,
        /// The last lines of it.
        said: String,
    },
    /// An event that did not come.
    #[error("{what}: not within {after:?}; last seen: {seen}")]
    Waited {
        /// What was waited for.
        what: String,
        /// For how long.
        after: Duration,
        /// How it was at the end.
        seen: String,
    },
    /// A share that is none.
    #[error("a loss of {0} percent: it is a number from 0 (none) to 100")]
    BadPercent(f64),
    /// One step on one host, or on the lab's network.
    #[error("cannot {what}: {why}")]
    Step {
        /// What was tried, and where.
        what: String,
        /// The cause.
        why: crate::Error,
    },
    /// An unreadable answer of a program.
    #[error("`{command}` on `{host}` printed no JSON ({why}): {said}")]
    NoJson {
        /// The host.
        host: String,
        /// The command.
        command: String,
        /// What is wrong with it.
        why: String,
        /// What it printed.
        said: String,
    },
    /// Anything below.
    #[error(transparent)]
    Tool(#[from] crate::Error),
}

/// The result of anything about a lab.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Says what was tried when something below failed.
    pub(super) fn step(what: impl Into<String>) -> impl FnOnce(crate::Error) -> Self {
        let what = what.into();
        move |why| Self::Step { what, why }
    }
}
