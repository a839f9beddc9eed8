//! `covey-lab`: hosts on one machine, for tests, demos and trying things by hand.

/// Prints a line. A reader that has left, as of `covey-lab up | head -1`, is no reason to leave a lab half made.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

/// Says what takes a while. Not a result: whoever reads those is not disturbed.
fn tell(what: &str) {
    eprintln!("{what}");
}

mod add;
mod args;
mod down;
mod exec;
mod fault;
mod image;
mod power;
mod status;
mod units;
mod up;

use std::process::ExitCode;

use clap::Parser;
use test_vms::guest;
use test_vms::lab::{Lab, Result};

use args::{Cli, Verb};

fn main() -> ExitCode {
    let Cli { name, verb } = Cli::parse();
    match run(&name, verb) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("covey-lab: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(name: &str, verb: Verb) -> Result<ExitCode> {
    let lab = || Lab::open(name).map(|lab| lab.telling(tell));
    match verb {
        Verb::Up(up) => up::up(name, up)?,
        Verb::Status { json } => status::status(&lab()?, json)?,
        Verb::Add { host, vm } => add::add(&lab()?, &host, vm)?,
        Verb::Down => down::down(name)?,
        // A command's failure is its own: 125 is left for ours, as `covey exec` has it.
        Verb::Exec { host, command } => return Ok(exec::exec(lab(), &host, &command)),
        Verb::Kill { host } => power::kill(&lab()?, &host)?,
        Verb::Start { host, binary } => power::start(&lab()?, &host, binary.as_deref())?,
        Verb::Crash { host } => power::crash(&lab()?, &host)?,
        Verb::Boot { host, addr } => power::boot(&lab()?, &host, addr)?,
        Verb::Cut { from, to, one_way } => fault::cut(&lab()?, &from, &to, one_way)?,
        Verb::Heal => lab()?.heal()?,
        Verb::Loss { host, percent } => lab()?.loss(&host, percent)?,
        Verb::Rate { host, mbit } => lab()?.rate(&host, mbit)?,
        Verb::Guest { dir } => return Ok(guest::init(&dir)),
        Verb::PassOn { command } => return Ok(guest::exec(command)),
        Verb::Image { file } => image::image(&lab()?, &file)?,
    }
    Ok(ExitCode::SUCCESS)
}
