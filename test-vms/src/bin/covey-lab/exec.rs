use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use test_vms::lab::{Lab, Result};

/// Becomes the command, so that its exit, signals and terminal are its own.
pub(crate) fn exec(lab: Result<Lab>, host: &str, command: &[String]) -> ExitCode {
    let (program, args) =
        command.split_first().map_or(("sh", command), |(program, args)| (program.as_str(), args));
    let entered = lab.and_then(|lab| lab.exec(host, program));
    let why = match entered {
        Ok(mut command) => format!("cannot run {program} on host `{host}`: {}", command.args(args).exec()),
        Err(why) => why.to_string(),
    };
    eprintln!("covey-lab: {why}");
    ExitCode::from(125)
}
