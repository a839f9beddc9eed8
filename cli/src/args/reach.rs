//! Verbs that open a way into a task.

use std::{path::PathBuf, str::FromStr};

use clap::Args;

use crate::names::TaskName;

/// Execute a command in a task that runs
///
/// It runs in the task's container, as the task's user and with no more rights, memory or CPU than the task has. Its
/// stdin, stdout and stderr are this command's, byte for byte; -t gives it a terminal. It exits as the command did; with
/// 125 if covey could not do it, and 128 and the signal's number if a signal ended it. Whatever the command has started
/// ends with it, and it ends when this command does. `covey events` says who executed what.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  covey exec web/0 -- cat /etc/hosts\n  covey exec -t web/0 -- sh\n  covey exec --user 0 db/0 -- \
                        pg_dump app > app.sql\n  covey exec db/0 -- psql app < app.sql"
)]
pub(crate) struct Exec {
    /// With a terminal: keys, Ctrl-C and the window's size go to the command
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Pass standard input on, which is always done: for those who are used to writing it
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// As this user of the image: USER[:GROUP], by name or number
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// In this directory; default: the task's
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// A variable beside the task's own
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<Variable>,
    /// JOB/INDEX
    #[arg(value_name = "JOB/INDEX")]
    pub(crate) task: TaskName,
    /// The program and its arguments; -- before them may be left out
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true)]
    pub(crate) command: Vec<String>,
}

/// `NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable(pub(crate) String, pub(crate) String);

impl FromStr for Variable {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Variable(name.into(), value.into())),
            _ => Err("a variable has the form NAME=VALUE".into()),
        }
    }
}

/// Copy files and directories into a task or out of it
///
/// One side is JOB/INDEX:PATH, a path in the task's container; the other a path here, or - for a tar archive on standard
/// input or output. As with cp, what is copied goes into the destination if that is a directory, else it gets its name.
/// Modes are kept; in the container the files are the task's user's, here they are yours. What breaks off leaves no half a
/// file. Out of a task that has ended, or whose job was stopped, comes what its last run has left, for a day at most and without
/// its volumes; --previous copies that while another runs.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  covey cp web/0:/var/log/app.log .\n  covey cp site/ web/0:/srv\n  covey cp db/0:/data - | tar t\n  covey \
                        cp --previous web/0:/core .    what it left before it was last restarted"
)]
pub(crate) struct Cp {
    /// Out of the last run that is over, wherever it was, whether or not another runs; if need be of an earlier job of that name
    #[arg(long)]
    pub(crate) previous: bool,
    /// What to copy: JOB/INDEX:PATH, PATH or -
    #[arg(value_name = "SRC")]
    pub(crate) source: Side,
    /// Where to: PATH, JOB/INDEX:PATH or -
    #[arg(value_name = "DST")]
    pub(crate) destination: Side,
}

/// One side of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Side {
    Task(TaskName, String),
    Here(PathBuf),
    /// Standard input or output.
    Stream,
}

impl FromStr for Side {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "-" {
            return Ok(Side::Stream);
        }
        match text.split_once(':') {
            // A path that begins so is no job's, whoever's.
            _ if text.starts_with(['.', '/']) => Ok(Side::Here(text.into())),
            Some((task, path)) if task.parse::<TaskName>().is_ok() => {
                let task = task.parse()?;
                match path {
                    "" => Err(format!("{text} names no path in the task: {text}/ is all of it")),
                    // As seen from the container's root.
                    path if !path.starts_with('/') => Ok(Side::Task(task, format!("/{path}"))),
                    path => Ok(Side::Task(task, path.to_owned())),
                }
            }
            _ => Ok(Side::Here(text.into())),
        }
    }
}

/// Make ports of a task reachable on this machine's loopback
///
/// Each connection to 127.0.0.1:LOCAL is carried to the task, wherever it runs, and made in its own network. Goes on until
/// Ctrl-C, over restarts of the task.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  covey port-forward web/0 8080:http      and in another terminal: curl http://127.0.0.1:8080/\n  covey \
                        port-forward db/0 5432 9187:metrics"
)]
pub(crate) struct PortForward {
    /// JOB/INDEX
    #[arg(value_name = "JOB/INDEX")]
    pub(crate) task: TaskName,
    /// A port here (0: one that is free), and the name or number of the task's; the same number if it is left out
    #[arg(value_name = "LOCAL[:PORT]", required = true)]
    pub(crate) ports: Vec<Mapping>,
}

/// `LOCAL[:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) local: u16,
    pub(crate) port: String,
}

impl FromStr for Mapping {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("`{text}` has not the form LOCAL[:PORT], for instance 8080:http or 5432");
        let (local, port) = text.split_once(':').unwrap_or((text, text));
        let local: u16 = local.parse().map_err(|_| form())?;
        let number = port.parse::<u32>().ok();
        if port.is_empty() || number.is_some_and(|number| number == 0 || number > 65_535) {
            return Err(form());
        }
        Ok(Mapping { local, port: port.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_side_is_a_tasks_or_ones_own() {
        let read = |text: &str| text.parse::<Side>();
        let task = |name: &str, path: &str| Ok(Side::Task(name.parse().unwrap(), path.to_owned()));
        assert_eq!(read("web/0:/etc/hosts"), task("web/0", "/etc/hosts"));
        assert_eq!(read("ann/web/12:srv"), task("ann/web/12", "/srv"));
        assert_eq!(read("web/0:/a:b"), task("web/0", "/a:b"));
        for here in ["web", "./web/0:x", "/a/b:c", "C:x"] {
            assert_eq!(read(here), Ok(Side::Here(here.into())));
        }
        assert_eq!(read("-"), Ok(Side::Stream));
        assert!(read("web/0:").unwrap_err().contains("names no path"));
    }

    #[test]
    fn a_mapping_has_one_port_here_and_one_there() {
        let read = |text: &str| text.parse::<Mapping>();
        let mapping = |local, port: &str| Ok(Mapping { local, port: port.to_owned() });
        assert_eq!(read("8080:http"), mapping(8080, "http"));
        assert_eq!(read("0:80"), mapping(0, "80"));
        assert_eq!(read("5432"), mapping(5432, "5432"));
        for bad in ["", "http", "8080:", "8080:0", "70000", "80:70000", "0"] {
            assert!(read(bad).unwrap_err().contains("LOCAL[:PORT]"), "{bad}");
        }
    }
}
