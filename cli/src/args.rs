//! The command line's shape: verbs, options, and the texts of `--help`.

pub(crate) mod cell;
pub(crate) mod reach;
pub(crate) mod simulate;
pub(crate) mod usage;

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use clap::{Args, Parser, Subcommand};

use crate::{
    address::HostPort,
    commands::agent::{Capacity, Label, Reclaim},
    jobfile::Set,
    names::{Target, TaskName, VolumeName},
    times::{Patience, Since},
};
use gossip::wire::JobName;

const TOUR: &str = "\
covey runs jobs in containers on the machines of a cell, and keeps them running.

A short tour:
  covey dev                       a cell of one node in this terminal, with an image to try
  covey run web.toml --wait       create or change the job that the file describes
  covey tasks web                 where its tasks are and how they do
  covey logs -f web/0             what a task says
  covey exec -t web/0 -- sh       a look around in it
  covey why web                   why it does not run, and what would help
  covey scale web 5               more of it
  covey stop web                  end it

More machines, each like any other:
  covey token > token                           on one: lets others in
  covey agent --data DIR --join n1:7411 --token @token     on another
  covey nodes, covey doctor                     who is here, and what is wrong

A smallest job file:
  name = \"web\"
  task = { image = \"hello:1\", ports = [\"http\"] }";

/// Jobs in containers on the machines of a cell.
#[derive(Debug, Parser)]
#[command(name = "covey", version, about = TOUR, max_term_width = 100)]
#[command(
    after_help = "`covey VERB --help` explains a verb with an example. Exit codes: 0 done, 1 refused or failed, \
                        2 wrong arguments."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The agent's socket; default: $COVEY_SOCKET, else /run/covey/agent.sock
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Ask this node instead, with the credentials of `covey login`
    #[arg(long, global = true, value_name = "HOST:PORT", value_parser = node_to_ask)]
    pub(crate) node: Option<String>,
    /// Print one JSON document (with -f one a line) and nothing else on stdout
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

fn node_to_ask(text: &str) -> Result<String, String> {
    text.parse().map(|node: HostPort| node.to_string())
}

/// A count, with an error that says so: the standard library's speaks of digits.
fn number<T: FromStr>(text: &str) -> Result<T, &'static str> {
    text.parse().map_err(|_| "that is not a whole number from 0 up, or too large")
}

/// The same within bounds; `what` says of what, and which.
fn number_within<T: FromStr + PartialOrd>(
    text: &str,
    bounds: impl std::ops::RangeBounds<T>,
    what: &'static str,
) -> Result<T, &'static str> {
    text.parse().ok().filter(|number| bounds.contains(number)).ok_or(what)
}

/// A node to ask, or (without a port) one that is asked about: `--node` is both for `events`.
fn node_or_name(text: &str) -> Result<String, String> {
    if text.contains(':') { node_to_ask(text) } else { Ok(text.to_owned()) }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Agent(Agent),
    /// Start a cell of one node in this terminal, to try things
    ///
    /// It lives in a temporary directory and has the image hello:1: an HTTP server that can fall ill, use memory and
    /// exit on request. Ctrl-C ends its containers and removes all of it.
    #[command(after_help = "Example: covey dev      and in another terminal: covey nodes")]
    Dev,
    Run(Run),
    /// List jobs
    #[command(after_help = "Example: covey jobs")]
    Jobs,
    /// Show one job: what it is, its versions and tasks
    #[command(after_help = "Example: covey job web")]
    Job {
        /// NAME or OWNER/NAME
        #[arg(value_name = "JOB", value_parser = crate::names::job)]
        job: JobName,
    },
    /// List tasks, of one job or of all
    #[command(after_help = "Example: covey tasks web")]
    Tasks {
        /// NAME or OWNER/NAME
        #[arg(value_name = "JOB", value_parser = crate::names::job)]
        job: Option<JobName>,
    },
    /// Show one task
    #[command(after_help = "Example: covey task web/0")]
    Task {
        /// JOB/INDEX
        #[arg(value_name = "JOB/INDEX")]
        task: TaskName,
    },
    /// End a job, or take one task out of it
    ///
    /// Each task gets SIGTERM, and SIGKILL after its grace. A task that was stopped alone stays out until it is
    /// restarted or its job changed. The command returns when the stop is committed, not when all have ended.
    #[command(after_help = "Examples:\n  covey stop web\n  covey stop web/2")]
    Stop {
        #[arg(value_name = "JOB[/INDEX]")]
        target: Target,
    },
    /// Start tasks of a job again, in place
    ///
    /// Each is ended as `stop` would end it, and started on its node again with the same image and settings.
    #[command(after_help = "Examples:\n  covey restart web\n  covey restart web/2")]
    Restart {
        #[arg(value_name = "JOB[/INDEX]")]
        target: Target,
    },
    /// Change how many tasks a job has
    ///
    /// Changes the count in the job's document; a later `covey run` of a file that has a count sets it again.
    #[command(after_help = "Example: covey scale web 5")]
    Scale {
        /// NAME or OWNER/NAME
        #[arg(value_name = "JOB", value_parser = crate::names::job)]
        job: JobName,
        /// How many
        #[arg(value_name = "N", value_parser = number::<u32>, allow_negative_numbers = true)]
        count: u32,
    },
    Logs(Logs),
    Exec(reach::Exec),
    Cp(reach::Cp),
    PortForward(reach::PortForward),
    /// Say why a job or task does not run, and what would make it run
    #[command(after_help = "Examples:\n  covey why web\n  covey why web/2")]
    Why {
        #[arg(value_name = "JOB[/INDEX]")]
        target: Target,
    },
    Events(Events),
    /// List nodes
    ///
    /// PEAK is what a node believes that its tasks will need at most, all together. ROOM is what tasks of the bands batch and
    /// free may ask for: the capacity (the second of LIMITS) less PEAK, less some memory that the node keeps free, so that
    /// prod finds it when it wants more (2 %, at least 64 MiB; --json: kept). Prod has what prod's limits leave.
    #[command(after_help = "Example: covey nodes")]
    Nodes,
    /// Examine the cell: find what is wrong, what that means, and what to do
    ///
    /// Every node is asked: whom it reaches, its version, clock, disk, certificate, how far its ledger has got, and what its
    /// agent has warned of since it began (what it cannot measure or keep). The command fails if something is wrong; notes are
    /// only good to know.
    #[command(after_help = "Example: covey doctor")]
    Doctor,
    Usage(usage::Usage),
    Top(usage::Top),
    Advise(usage::Advise),
    Label(cell::Label),
    /// Move a node's tasks to other nodes, and give it no new ones
    ///
    /// One task of each job moves at a time, and only if there is room for it elsewhere. The command returns when that has
    /// begun; `covey nodes` shows when the node is drained.
    #[command(after_help = "Example: covey drain n2")]
    Drain {
        #[arg(value_name = "NODE")]
        name: String,
    },
    /// Let a drained node take tasks again
    #[command(after_help = "Example: covey undrain n2")]
    Undrain {
        #[arg(value_name = "NODE")]
        name: String,
    },
    Leave(cell::Leave),
    /// Forget nodes
    #[command(subcommand)]
    Node(cell::Node),
    Cell(cell::Cell),
    Grant(cell::Grant),
    Token(cell::Token),
    Login(cell::Login),
    /// List the cells that one has logged in to, and choose the one to talk to
    #[command(subcommand)]
    Context(cell::Context),
    /// Load, pull, list and remove images
    #[command(subcommand)]
    Image(Image),
    /// List and remove the volumes that nodes keep for tasks
    #[command(subcommand, after_help = "Example: covey volume ls")]
    Volume(Volume),
    /// Try things on paper: no agent is asked
    #[command(subcommand)]
    Simulate(simulate::Simulate),
}

/// Run the agent of this node, in the foreground
///
/// What the node has is kept in the data directory. An agent that finds none joins the cell that --join and --token
/// name, or starts a new one; once the directory holds a node of a cell, --join and --token are ignored, so a unit file
/// may repeat them. Containers go on when the agent ends, and the next agent takes them over. It needs root.
///
/// A configuration file is TOML with the same keys: data, socket, name, cell, listen, advertise, join, token, and the
/// tables label, capacity and estimate. What the command line says counts. Only the file has the tables registry (default,
/// insecure, ca, auth_file, mirror) and collect (unused, above, below), and in estimate beside the preset how long a new
/// task counts with its limit (hold) and how far ahead peaks are predicted (horizon): see the README. The log goes to
/// stderr; COVEY_LOG=debug makes it say more.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  covey agent --data /var/lib/covey                        a new cell, of this node\n  \
                        covey token > token                                  there: a token for others\n  covey agent \
                        --data /var/lib/covey --join n1:7411 --token @token   on another machine: join it\n  covey agent --data /var/lib/covey --label \
                        rack=r1 --capacity cpu=2,memory=4GiB\n  covey agent --config /etc/covey.toml"
)]
pub(crate) struct Agent {
    /// Where the node keeps what it has; made if it is not there
    #[arg(long, value_name = "DIR", required_unless_present = "config")]
    pub(crate) data: Option<PathBuf>,
    /// The node's name; default: the one it has, at first the host's
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The cell's name; another than the data directory's is refused
    #[arg(long, value_name = "NAME")]
    pub(crate) cell: Option<String>,
    /// Where to listen for other nodes and clients, on UDP; port 0: one that is free; default: 0.0.0.0:7411
    #[arg(long, value_name = "IP:PORT", value_parser = crate::address::listen)]
    pub(crate) listen: Option<SocketAddr>,
    /// Where other nodes reach this one, if not where it listens
    #[arg(long, value_name = "IP:PORT", value_parser = crate::address::advertise)]
    pub(crate) advertise: Option<SocketAddr>,
    /// Join the cell of these nodes; one that answers is enough
    #[arg(long, value_name = "HOST:PORT[,…]", value_delimiter = ',')]
    pub(crate) join: Vec<HostPort>,
    /// The token that admits this node, or @FILE to read it from; default: $COVEY_TOKEN
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// A label of the node, for `require`, `prefer` and `spread`
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<Label>,
    /// Offer no more than this: cpu=2,memory=4GiB
    #[arg(long, value_name = "NAME=AMOUNT,…")]
    pub(crate) capacity: Option<Capacity>,
    /// How much risk to take with what tasks do not use of their limits, which batch and free tasks may have:
    /// conservative, normal, aggressive, or off; default: normal
    #[arg(long, value_name = "PRESET")]
    pub(crate) estimate: Option<Reclaim>,
    /// Read what is not given here from a TOML file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Create or change the job that a file describes
///
/// The file is TOML or JSON. What runs already is changed to what the file says, task by task; a file that changes
/// nothing does nothing. If somebody else changed the job in the same moment, the command is refused and nothing is
/// done.
///
/// With --wait the command ends when the job is settled: a service when all its tasks run and are healthy, a batch job
/// when all have succeeded. It fails when that cannot be, or not in time; the job itself goes on.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  covey run web.toml --wait --timeout 1m\n  covey run web.toml --count 3 --set \
                        task.memory=64MiB\n  sed s/v1/v2/ web.toml | covey run -"
)]
pub(crate) struct Run {
    /// The job file, - for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Refuse to change a job that exists
    #[arg(long)]
    pub(crate) create: bool,
    /// Set a value of the document, for instance task.memory=64MiB
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<Set>,
    /// How many tasks, whatever the file says
    #[arg(long, value_name = "N", value_parser = number::<u32>, allow_negative_numbers = true)]
    pub(crate) count: Option<u32>,
    /// Wait until the job is settled, and show how it gets there
    #[arg(long)]
    pub(crate) wait: bool,
    /// Give up waiting after so long, for instance 30s or 2m
    #[arg(long, value_name = "DURATION", requires = "wait")]
    pub(crate) timeout: Option<Patience>,
}

/// Print what a task writes to stdout and stderr
///
/// Its stdout goes to stdout, its stderr to stderr, byte for byte. -f goes on with what comes, through restarts of the
/// task and of the agent, until the task has ended for good.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  covey logs web/0\n  covey logs -f --tail 20 web/0\n  covey logs --since 10m web/0\n  covey logs \
                        --previous web/0    what it said before it was last restarted"
)]
pub(crate) struct Logs {
    /// JOB/INDEX
    #[arg(value_name = "JOB/INDEX")]
    pub(crate) task: TaskName,
    /// Go on with what comes
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Begin so many lines before the end
    #[arg(long, value_name = "LINES", value_parser = number::<u64>, allow_negative_numbers = true)]
    pub(crate) tail: Option<u64>,
    /// Not what is older: an age (10m) or a time (2026-05-04T12:00:00Z), within a few seconds
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Since>,
    /// The run before the last restart, move or change, or of an earlier job of that name
    #[arg(long, conflicts_with = "follow")]
    pub(crate) previous: bool,
}

/// Show what happened
///
/// Nodes keep the last events of their tasks. -f goes on with what comes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  covey events --job web --since 10m\n  covey events -f --json")]
pub(crate) struct Events {
    /// Of this job only: NAME or OWNER/NAME
    #[arg(long, value_name = "JOB", value_parser = crate::names::job)]
    pub(crate) job: Option<JobName>,
    /// Of this node only; HOST:PORT: ask this node
    #[arg(long, value_name = "NAME|HOST:PORT", value_parser = node_or_name)]
    pub(crate) node: Vec<String>,
    /// Since then: an age (10m) or a time (2026-05-04T12:00:00Z)
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Since>,
    /// Go on with what comes
    #[arg(short, long)]
    pub(crate) follow: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Volume {
    /// List volumes, and which node has each
    ///
    /// A volume stays with its job's index, on the node where it was made, until a day after its job was stopped.
    #[command(after_help = "Example: covey volume ls")]
    Ls,
    /// Remove the volumes of a job's index, and what is in them
    ///
    /// From every node that answers, or from one of them alone; refused while a task uses them there. What was removed is
    /// gone: the next start begins with an empty volume, or with what the image has there.
    #[command(
        after_help = "Examples:\n  covey volume rm db/0               all volumes of index 0\n  covey volume rm db/0/data          \
                      that one\n  covey volume rm db/0 --on h2       only what h2 has of them"
    )]
    Rm {
        #[arg(value_name = "JOB/INDEX[/NAME]")]
        volume: VolumeName,
        /// From this node alone
        #[arg(long, value_name = "NODE")]
        on: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Load an image from a file: an OCI layout (directory or tar) or a `docker save` archive
    #[command(after_help = "Example: docker save app:2 -o app.tar && covey image load app.tar")]
    Load {
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// What to call it; default: what the file calls it
        #[arg(long, value_name = "REF")]
        name: Option<String>,
    },
    /// Pull an image from its registry, as its name stands there now
    ///
    /// The node that is asked pulls it, what other nodes have of it from these; others keep copies. A name without a
    /// registry is one of docker.io; registries on this machine (localhost:PORT) are asked without TLS. A pull that broke
    /// off goes on where it was. Jobs whose image no node has pull it by themselves.
    #[command(
        after_help = "Examples:\n  covey image pull nginx:1.27\n  covey image pull registry.example.org/team/app:2"
    )]
    Pull {
        #[arg(value_name = "REF")]
        reference: String,
    },
    /// Give all nodes credentials for a registry
    ///
    /// They are tried first. Each node keeps them in its data directory, in registries.json, which only root can read; they
    /// are not encrypted there, and go between nodes over the cell's own connections only. Nodes that join later get them
    /// too. Credentials of one machine alone can be in /etc/covey/registries.json, written as docker's config.json.
    #[command(
        after_help = "Example: covey image login registry.example.org --user ci --password-stdin < password"
    )]
    Login {
        #[arg(value_name = "REGISTRY")]
        registry: String,
        #[arg(long, value_name = "U")]
        user: String,
        /// Read the password from standard input: a command line is seen by others
        #[arg(long, required = true)]
        password_stdin: bool,
    },
    /// Take a registry's credentials from all nodes
    #[command(after_help = "Example: covey image logout registry.example.org")]
    Logout {
        #[arg(value_name = "REGISTRY")]
        registry: String,
    },
    /// List images
    #[command(after_help = "Example: covey image ls")]
    Ls,
    /// Remove the images that no job uses, on all nodes
    ///
    /// What a job names or a task runs stays, and what is on its way. Nodes do the same by themselves: with images unused
    /// for seven days, and with those unused for longest when the disk is more than 85 % full (the agent's configuration,
    /// table collect, says otherwise). An image that was loaded from a file must be loaded again then.
    #[command(after_help = "Examples:\n  covey image prune\n  covey image prune --older-than 24h")]
    Prune {
        /// Only those unused for so long
        #[arg(long, value_name = "D", default_value = "0s")]
        older_than: Patience,
    },
    /// Remove an image
    ///
    /// Tasks that run from it go on.
    #[command(after_help = "Example: covey image rm app:1")]
    Rm {
        #[arg(value_name = "REF")]
        reference: String,
    },
}
