//! A file for each verb, or for verbs that do the same to different things.

mod advise;
pub(crate) mod agent;
mod cell;
mod change;
mod context;
mod dev;
mod doctor;
mod events;
mod grant;
mod image;
mod logs;
mod node;
mod reach;
mod run;
mod show;
pub(crate) mod simulate;
mod token;
mod top;
mod usage;
mod volume;
mod wait;

use std::{env, path::PathBuf};

use ::agent::config::SOCKET;
use gossip::wire::Call;

use crate::{
    args::{self, Cli, Global, Verb},
    failure::Failure,
    output::Out,
    session::{Session, Way},
};

/// Does what the command line asks for.
pub(crate) fn run(cli: Cli, out: &mut Out) -> Result<(), Failure> {
    let Global { socket: given, node, .. } = cli.global;
    let node = node_to_ask(node, &cli.verb);
    let named = given.is_some();
    let socket = socket(given);
    match cli.verb {
        Verb::Agent(args) => agent::agent(args, socket),
        Verb::Dev => dev::dev(socket, out),
        Verb::Login(args) => block_on(context::login(args, node, out))?,
        Verb::Simulate(args::simulate::Simulate::Overcommit(args)) => simulate::overcommit(&args, out),
        Verb::Context(args::cell::Context::Ls) => context::list(out),
        Verb::Context(args::cell::Context::Use { name }) => context::choose(&name, out),
        verb => {
            let local = || Way::Socket(socket.unwrap_or_else(|| PathBuf::from(SOCKET)));
            // Who names a socket means it.
            let way = if named && node.is_none() { local() } else { context::way(node.as_deref(), local)? };
            let session = Session::new(way)?;
            let before = session.nodes();
            let done = block_on(ask(verb, &session, out))?;
            if session.nodes() != before && node.is_none() {
                // The next command does not begin with the dead.
                context::prefer(&before, &session.nodes());
            }
            done
        }
    }
}

/// One thread: starting more would take longer than most requests.
fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|source| Failure::System { what: "start the event loop", source })?.block_on(work))
}

/// The node that `--node` says to ask: for `events` it may as well be the name of one that is asked about.
fn node_to_ask(given: Option<String>, verb: &Verb) -> Option<String> {
    let others = match verb {
        Verb::Events(args) => args.node.as_slice(),
        _ => &[],
    };
    given.iter().chain(others).find(|node| node.contains(':')).cloned()
}

/// The socket, if the command line or the environment names one.
fn socket(given: Option<PathBuf>) -> Option<PathBuf> {
    given.or_else(|| env::var_os("COVEY_SOCKET").filter(|path| !path.is_empty()).map(PathBuf::from))
}

async fn ask(verb: Verb, session: &Session, out: &mut Out) -> Result<(), Failure> {
    match verb {
        // They are no clients, and were started before.
        Verb::Agent(_) | Verb::Dev | Verb::Login(_) | Verb::Context(_) | Verb::Simulate(_) => Ok(()),
        Verb::Run(args) => run::run(args, session, out).await,
        Verb::Logs(args) => logs::logs(args, session, out).await,
        Verb::Exec(args) => reach::exec(args, session).await,
        Verb::Cp(args) => reach::cp(args, session, out).await,
        Verb::PortForward(args) => reach::port_forward(args, session, out).await,
        Verb::Events(args) => events::events(args, session, out).await,
        Verb::Image(args) => image::image(args, session, out).await,
        Verb::Volume(args) => volume::volume(args, session, out).await,
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
        Verb::Drain { name } => node::drain(name, true, session, out).await,
        Verb::Undrain { name } => node::drain(name, false, session, out).await,
        Verb::Leave(args) => node::leave(args, session, out).await,
        Verb::Node(args::cell::Node::Rm { name }) => node::remove(name, session, out).await,
        Verb::Doctor => doctor::doctor(session, out).await,
        Verb::Usage(args) => usage::usage(&args, session, out).await,
        Verb::Advise(args) => advise::advise(args, session, out).await,
        Verb::Top(args) => top::top(&args, session, out).await,
        Verb::Cell(args) => cell::cell(args.verb, session, out).await,
        Verb::Grant(args) => grant::grant(args, session, out).await,
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
        Verb::Exec(args) => format!("execute a command in {}", args.task),
        Verb::Cp(_) => "copy files".into(),
        Verb::PortForward(args) => format!("forward ports to {}", args.task),
        Verb::Why { target } => format!("say why {target} does not run"),
        Verb::Events(_) => "show events".into(),
        Verb::Nodes => "list nodes".into(),
        Verb::Label(args) => format!("label node {}", args.name),
        Verb::Drain { name } => format!("drain node {name}"),
        Verb::Undrain { name } => format!("let node {name} take tasks again"),
        Verb::Leave(_) => "leave the cell".into(),
        Verb::Node(args::cell::Node::Rm { name }) => format!("forget node {name}"),
        Verb::Cell(args::cell::Cell { verb: None }) => "show the cell".into(),
        Verb::Cell(_) => "change the cell's settings".into(),
        Verb::Doctor => "examine the cell".into(),
        Verb::Advise(args) => match &args.job {
            Some(job) => format!("advise on {}", Shown(job)),
            None => "advise on the jobs' limits".into(),
        },
        Verb::Top(_) => "show what the cell does".into(),
        Verb::Usage(args) => format!("show usage by {}", args.by.0.as_str()),
        Verb::Grant(args::cell::Grant { user: Some(user), .. }) => format!("change the rights of {user}"),
        Verb::Grant(_) => "list users and their rights".into(),
        Verb::Token(_) => "make a token".into(),
        Verb::Login(_) => "log in".into(),
        Verb::Context(args::cell::Context::Ls) => "list contexts".into(),
        Verb::Context(args::cell::Context::Use { name }) => format!("use context {name}"),
        Verb::Simulate(args::simulate::Simulate::Overcommit(_)) => "simulate overcommit".into(),
        Verb::Image(args) => image::doing(args),
        Verb::Volume(args::Volume::Ls) => "list volumes".into(),
        Verb::Volume(args::Volume::Rm { volume, .. }) => format!("remove {volume}"),
    }
}
