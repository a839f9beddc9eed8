//! A file for each verb, or for verbs that do the same to different things.

pub(crate) mod agent;
mod cell;
mod change;
mod dev;
mod doctor;
mod events;
mod image;
mod logs;
mod node;
mod run;
mod show;
mod token;
mod wait;

use std::{env, path::PathBuf};

use ::agent::config::SOCKET;
use gossip::wire::Call;

use crate::{
    args::{self, Cli, Verb},
    failure::Failure,
    output::Out,
    session::Session,
};

/// Does what the command line asks for.
pub(crate) fn run(cli: Cli, out: &mut Out) -> Result<(), Failure> {
    let socket = socket(cli.global.socket);
    let verb = match cli.verb {
        Verb::Agent(args) => return agent::agent(args, socket),
        Verb::Dev => return dev::dev(socket, out),
        verb => verb,
    };
    let session = Session::new(socket.unwrap_or_else(|| PathBuf::from(SOCKET)))?;
    // One thread: starting more would take longer than most requests.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Failure::System { what: "start the event loop", source })?
        .block_on(ask(verb, &session, out))
}

/// The socket, if the command line or the environment names one.
fn socket(given: Option<PathBuf>) -> Option<PathBuf> {
    given.or_else(|| env::var_os("COVEY_SOCKET").filter(|path| !path.is_empty()).map(PathBuf::from))
}

async fn ask(verb: Verb, session: &Session, out: &mut Out) -> Result<(), Failure> {
    match verb {
        // They are no clients, and were started before.
        Verb::Agent(_) | Verb::Dev => Ok(()),
        Verb::Run(args) => run::run(args, session, out).await,
        Verb::Logs(args) => logs::logs(args, session, out).await,
        Verb::Events(args) => events::events(args, session, out).await,
        Verb::Image(args) => image::image(args, session, out).await,
        Verb::Jobs => show::jobs(session, out).await,
        Verb::Job { job } => show::job(job, session, out).await,
        Verb::Tasks { job } => show::tasks(job, session, out).await,
        Verb::Task { task } => show::task(task, session, out).await,
        Verb::Nodes => show::nodes(session, out).await,
        Verb::Why { target } => show::why(target, session, out).await,
        Verb::Stop { target } => {
            let what = format!("{target} is told to stop");
            let same = format!("{target} is stopped already");
            change::change(Call::Stop { job: target.job, index: target.index }, &what, &same, session, out)
                .await
        }
        Verb::Restart { target } => {
            let what = format!("{target} is told to restart");
            let call = Call::Restart { job: target.job, index: target.index };
            change::change(call, &what, &what, session, out).await
        }
        Verb::Label(args) => node::label(args, session, out).await,
        Verb::Node(args::cell::Node::Rm { node }) => node::remove(node, session, out).await,
        Verb::Doctor => doctor::doctor(session, out).await,
        Verb::Cell(args) => cell::cell(args.verb, session, out).await,
        Verb::Token(args) => token::token(args, session, out).await,
        Verb::Scale { job, count } => change::scale(job, count, session, out).await,
    }
}

/// What a verb is about, as errors say it after "cannot".
pub(crate) fn doing(verb: &Verb) -> String {
    use crate::names::Shown;
    match verb {
        Verb::Agent(_) => "run an agent".into(),
        Verb::Dev => "start a cell to try".into(),
        Verb::Run(args) if args.file.as_os_str() == "-" => "run the job on standard input".into(),
        Verb::Run(args) => format!("run {}", args.file.display()),
        Verb::Jobs => "list jobs".into(),
        Verb::Job { job } => format!("show job {}", Shown(job)),
        Verb::Tasks { job: None } => "list tasks".into(),
        Verb::Tasks { job: Some(job) } => format!("list the tasks of {}", Shown(job)),
        Verb::Task { task } => format!("show task {task}"),
        Verb::Stop { target } => format!("stop {target}"),
        Verb::Restart { target } => format!("restart {target}"),
        Verb::Scale { job, .. } => format!("scale {}", Shown(job)),
        Verb::Logs(args) => format!("show the logs of {}", args.task),
        Verb::Why { target } => format!("say why {target} does not run"),
        Verb::Events(_) => "show events".into(),
        Verb::Nodes => "list nodes".into(),
        Verb::Label(args) => format!("label node {}", args.node),
        Verb::Node(args::cell::Node::Rm { node }) => format!("forget node {node}"),
        Verb::Cell(args::cell::Cell { verb: None }) => "show the cell".into(),
        Verb::Cell(_) => "change the cell's settings".into(),
        Verb::Doctor => "examine the cell".into(),
        Verb::Token(_) => "make a token".into(),
        Verb::Image(args) => image::doing(args),
    }
}
