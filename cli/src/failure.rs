//! Why a command was not done, as people and programs read it.

use std::{
    io::{self, ErrorKind},
    path::PathBuf,
};

use agent::daemon::AgentError;
use gossip::{client::ClientError, frame::FrameError};
use placement::ledger::Refusal;
use serde_json::{Value, json};

use crate::{
    commands::{agent::ConfigError, simulate::trace::TraceError},
    context::ContextError,
    jobfile::JobFileError,
    output::shown,
    session::{Tried, Unsent, Way},
    token::TokenError,
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Arguments(String),
    #[error(transparent)]
    JobFile(#[from] JobFileError),
    /// In the agent's configuration.
    #[error(transparent)]
    Config(#[from] Box<ConfigError>),
    #[error(transparent)]
    Trace(#[from] TraceError),
    #[error(transparent)]
    Agent(#[from] Box<AgentError>),
    /// The first attempt to reach an agent failed.
    #[error("{}", connect(socket, source))]
    Connect { socket: PathBuf, source: io::Error },
    /// No node of the cell takes the request.
    #[error("no node of the cell answers: {0}")]
    Nobody(Tried),
    /// The agent was there, and then no more.
    #[error("{place} broke the connection ({why}) and did not come back within {waited_s} s")]
    Lost { place: String, why: String, waited_s: u64 },
    #[error("{place} answered what this covey does not understand: {what}")]
    Garbled { place: String, what: String },
    #[error(transparent)]
    Context(#[from] ContextError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("cannot make a key: {source}")]
    Key { source: gossip::tls::TlsError },
    #[error("to talk to {0} takes credentials, and there are none yet")]
    NoCredentials(String),
    /// It is about the node itself, and the request would have gone to another machine.
    #[error("{0}")]
    Elsewhere(&'static str),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    #[error("cannot {what}: {source}")]
    System { what: &'static str, source: io::Error },
    #[error("{message}")]
    Unsettled { message: String, hint: String },
    /// It was found out, and shown.
    #[error("the cell is not well: {wrong} thing{} wrong", if *wrong == 1 { " is" } else { "s are" })]
    Unwell { wrong: usize },
    /// Each was named when it was tried.
    #[error("{wrong} job{} not changed", if *wrong == 1 { " was" } else { "s were" })]
    NotAll { wrong: usize },
    #[error(transparent)]
    Copy(oci::copy::Error),
    #[error("{}", listening(*port, source))]
    Listen { port: u16, source: io::Error },
    /// A command was executed and ended so: it has said all there is to say.
    #[error("the command ended with code {0}")]
    Ended(u8),
    #[error("interrupted: {goes_on}")]
    Interrupted { goes_on: String, hint: String },
}

/// Why nobody can connect here.
fn listening(port: u16, source: &io::Error) -> String {
    match source.kind() {
        ErrorKind::AddrInUse => format!("port {port} of this machine is in use already"),
        ErrorKind::PermissionDenied => format!("port {port} of this machine is for root"),
        _ => format!("nobody can listen on port {port} of this machine: {source}"),
    }
}

/// What a failed attempt to connect means.
fn connect(socket: &std::path::Path, source: &io::Error) -> String {
    let socket = socket.display();
    match source.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            format!("no agent runs here (nothing listens on {socket})")
        }
        ErrorKind::PermissionDenied => format!("no right to talk to the agent on {socket}"),
        _ => format!("cannot connect to the agent on {socket}: {source}"),
    }
}

impl Failure {
    /// Sorts a client's errors by what a user can do about them.
    pub(crate) fn of(way: &Way, why: Unsent) -> Self {
        let place = way.to_string();
        let why = match why {
            Unsent::Client(why) => why,
            Unsent::Nobody(tried) => return Failure::Nobody(tried),
        };
        match (way, why) {
            (_, ClientError::Refused(refusal)) => Failure::Refused(refusal),
            (Way::Socket(socket), ClientError::Connect { source, .. }) => {
                Failure::Connect { socket: socket.clone(), source }
            }
            (_, ClientError::Frame(FrameError::Garbled(why))) => {
                Failure::Garbled { place, what: why.to_string() }
            }
            (_, ClientError::Frame(why @ FrameError::TooLong(_))) => {
                Failure::Garbled { place, what: why.to_string() }
            }
            (_, why) => Failure::Lost { place, why: why.to_string(), waited_s: 0 },
        }
    }

    fn code(&self) -> &str {
        match self {
            Failure::Arguments(_) | Failure::JobFile(_) | Failure::Config(_) => "invalid",
            Failure::Context(_) | Failure::Token(_) | Failure::Elsewhere(_) => "invalid",
            Failure::NoCredentials(_) => "denied",
            Failure::Key { .. } => "io",
            Failure::Connect { source, .. } if source.kind() == ErrorKind::PermissionDenied => "denied",
            Failure::Connect { .. } | Failure::Lost { .. } | Failure::Nobody(_) => "no_agent",
            Failure::Agent(_) => "agent",
            Failure::Garbled { .. } => "protocol",
            Failure::Refused(refusal) => &refusal.code,
            Failure::Trace(TraceError::Read { .. } | TraceError::Write { .. }) => "io",
            Failure::Trace(_) => "invalid",
            Failure::Output(_) | Failure::System { .. } => "io",
            Failure::Copy(_) | Failure::Listen { .. } => "io",
            Failure::Ended(_) => "ended",
            Failure::Unsettled { .. } => "unsettled",
            Failure::Unwell { .. } => "unwell",
            Failure::NotAll { .. } => "refused",
            Failure::Interrupted { .. } => "interrupted",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Failure::JobFile(why) => why.hint(),
            Failure::Refused(refusal) => refusal.hint.clone(),
            Failure::Connect { source, .. } => match source.kind() {
                ErrorKind::NotFound | ErrorKind::ConnectionRefused => Some(
                    "start one with `covey dev` or `covey agent`, or name the socket of one that runs with --socket"
                        .into(),
                ),
                ErrorKind::PermissionDenied => Some("the local socket is for root: try it with sudo".into()),
                _ => None,
            },
            Failure::Nobody(_) => Some(
                "do these addresses still hold? `covey context ls` shows them, and --node HOST:PORT names another node"
                    .into(),
            ),
            Failure::NoCredentials(node) => Some(format!(
                "`covey token --role user --name NAME` on a node prints a token, and `covey login --node {node} --token \
                 TOKEN` takes it"
            )),
            Failure::Elsewhere(_) => Some("run it there, on the node's own socket: covey context use local".into()),
            Failure::Trace(TraceError::Write { .. }) => None,
            Failure::Trace(_) => {
                Some("a trace is a CSV file; `covey simulate overcommit --help` says what is in it".into())
            }
            Failure::Context(_) | Failure::Token(_) | Failure::Key { .. } => None,
            Failure::Lost { .. } => Some("see what its log says; once it runs again, repeat the command".into()),
            Failure::Garbled { .. } => Some("is the agent of another version? `covey nodes` shows it".into()),
            Failure::Unsettled { hint, .. } | Failure::Interrupted { hint, .. } => Some(hint.clone()),
            // Their texts say what to do.
            Failure::Config(_) | Failure::Agent(_) | Failure::Unwell { .. } | Failure::NotAll { .. } => None,
            Failure::Arguments(_) | Failure::Output(_) | Failure::System { .. } => None,
            Failure::Listen { .. } => Some("LOCAL 0 takes one that is free".into()),
            Failure::Copy(_) | Failure::Ended(_) => None,
        }
    }

    /// For people: what was tried, why it failed, what to do.
    pub(crate) fn explain(&self, doing: &str) -> String {
        let mut text = match self {
            // Begins with FILE:LINE:COLUMN, where editors look for it.
            Failure::JobFile(why) => match why.excerpt() {
                Some(excerpt) => format!("{}\n{excerpt}", shown(&why.to_string())),
                None => format!("covey: cannot {doing}: {}", shown(&why.to_string())),
            },
            // Its lines are made here.
            Failure::Unsettled { message, .. } => format!("covey: {message}"),
            Failure::Interrupted { .. } | Failure::Unwell { .. } | Failure::NotAll { .. } => {
                format!("covey: {self}")
            }
            _ => format!("covey: cannot {doing}: {}", shown(&self.to_string())),
        };
        if let Some(hint) = self.hint() {
            text.push_str(&format!("\n  hint: {}", shown(&hint)));
        }
        text
    }

    /// For programs.
    pub(crate) fn document(&self) -> Value {
        let mut error = json!({"code": self.code(), "message": self.to_string(), "hint": self.hint()});
        if let Failure::JobFile(JobFileError::At { file, excerpt, .. }) = self {
            error["file"] = json!(file);
            error["line"] = json!(excerpt.line);
            error["column"] = json!(excerpt.column);
        }
        json!({ "error": error })
    }
}
