//! The command line of covey: verbs in, documents and tables out. It decides nothing about jobs; it asks an agent.

/// A line for the person, on stderr. That nobody reads it (a closed pipe) is no reason to end.
macro_rules! say {
    ($($part:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($part)*);
    }};
}

mod address;
mod args;
mod commands;
mod context;
mod failure;
pub mod jobfile;
mod names;
mod output;
mod session;
mod times;
mod token;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser;

use crate::{args::Cli, failure::Failure, output::Out};

/// Runs the command that the arguments (the program's name first) ask for. Exit code 0: done, 1: refused or failed,
/// 2: wrong arguments.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    match Cli::try_parse_from(&args) {
        Ok(cli) => {
            let mut out = Out::new(cli.global.json);
            let doing = commands::doing(&cli.verb);
            // `exec` exits as its command did, so that its own failures have a code of their own.
            let failed = if matches!(cli.verb, args::Verb::Exec(_)) { 125 } else { 1 };
            let done = commands::run(cli, &mut out);
            end(&mut out, &doing, done, failed)
        }
        Err(why) => {
            let code = why.exit_code();
            // A reader that went away needs no help text.
            let _ = why.print();
            if code != 0 && args.iter().any(|arg| arg == "--json") {
                let text = why.render().to_string();
                let _ = Out::new(true).document(&Failure::Arguments(text).document());
            }
            u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}

fn end(out: &mut Out, doing: &str, done: Result<(), Failure>, failed: u8) -> ExitCode {
    let Err(why) = done else { return ExitCode::SUCCESS };
    match why {
        // The reader of our output has seen enough.
        Failure::Output(why) if why.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Failure::Ended(code) => ExitCode::from(code),
        why => {
            // A verb that shows one document has shown it.
            if out.json() && !matches!(why, Failure::Unwell { .. } | Failure::NotAll { .. }) {
                let _ = out.document(&why.document());
            } else if !out.json() {
                say!("{}", why.explain(doing));
            }
            // Wrong arguments are told apart from what failed.
            if matches!(why, Failure::Arguments(_)) { ExitCode::from(2) } else { ExitCode::from(failed) }
        }
    }
}
