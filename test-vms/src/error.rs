use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// What can go wrong around a host; never what the tested program did.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory that could not be made, read or removed.
    #[error("cannot {what} {path}: {why}")]
    File {
        /// The operation, as a verb.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        why: io::Error,
    },
    /// A program that is not there or could not be started.
    #[error("cannot run {program}: {why}{hint}")]
    Run {
        /// Its name.
        program: String,
        /// The cause.
        why: io::Error,
        /// What to do, or nothing.
        hint: &'static str,
    },
    /// A program that ended badly.
    #[error("{program} ended with {status}: {said}")]
    Failed {
        /// The command line.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote.
        said: String,
    },
    /// Something is missing that is expected on a stock system.
    #[error("{0}")]
    Missing(String),
    /// The machine did not power off in time.
    #[error("the virtual machine was still running after {after:?}; the end of its console:\n{console}")]
    Timeout {
        /// How long it had.
        after: Duration,
        /// The last lines of its console.
        console: String,
    },
    /// The machine powered off, or crashed, before its script had ended.
    #[error("the virtual machine stopped before its script had ended; the end of its console:\n{console}")]
    Stopped {
        /// The last lines of its console.
        console: String,
    },
}

/// The result of anything around a host.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Names the operation and the path of an I/O error.
    pub fn file(what: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |why| Self::File { what, path, why }
    }
}

/// Runs a program to its end and returns what it wrote to stdout.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|why| {
        let hint = if why.kind() == io::ErrorKind::NotFound {
            " (`make test` installs what is missing)"
        } else {
            ""
        };
        Error::Run { program: program.clone(), why, hint }
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said =
        String::from_utf8_lossy(if output.stderr.is_empty() { &output.stdout } else { &output.stderr });
    let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
    Err(Error::Failed {
        program: format!("{program} {}", args.join(" ")),
        status: output.status,
        said: tail(&said, 10),
    })
}

/// The last `lines` lines of a text.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
