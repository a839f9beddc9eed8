//! Verbs about the cell, its nodes, and who gets in.

use clap::{Args, Subcommand};

use crate::{names::LabelChange, times::Patience};
use placement::ledger::Role;

/// Make a token, by which a node joins or somebody logs in
///
/// Prints the token and nothing else on stdout. The cell keeps only its hash: it is shown this once. Whoever has it can
/// get in until it expires or is used up. One for nodes is good for 100 of them, one for a user or an admin for one login,
/// unless --uses says otherwise.
///
/// A node joins with it (`covey agent --join`); a user changes its own jobs, an admin everything (`covey login`).
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  covey token > token                      then, on another machine:\n  covey agent --data \
                  /var/lib/covey --join n1:7411 --token @token\n  covey token --role user --name ann       then, as ann:\n  \
                  covey login --node n1:7411 --token TOKEN"
)]
pub(crate) struct Token {
    /// What it makes of whoever shows it
    #[arg(long, value_name = "node|user|admin", default_value = "node", hide_default_value = true, value_parser = role)]
    pub(crate) role: Role,
    /// Of the user or admin that it is for
    #[arg(long, value_name = "NAME", required_if_eq_any = [("role", "user"), ("role", "admin")], value_parser = user)]
    pub(crate) name: Option<String>,
    /// How long it can be used
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    pub(crate) ttl: Patience,
    /// How many may use it; default: 100 nodes, or one login
    #[arg(long, value_name = "N", value_parser = uses, allow_negative_numbers = true)]
    pub(crate) uses: Option<u32>,
}

fn uses(text: &str) -> Result<u32, &'static str> {
    super::number_within(text, 1..=10_000, "a token is good for 1 to 10000 uses")
}

impl Token {
    pub(crate) fn uses(&self) -> u32 {
        self.uses.unwrap_or(match self.role {
            Role::Node => 100,
            Role::User | Role::Admin => 1,
        })
    }
}

/// Log in to a cell, by a token
///
/// Stores credentials for it as a context, and uses that from now on: every verb then talks to any of the cell's nodes.
/// The key is made here and never leaves this machine.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  covey token --role user --name ann           as root on a node: prints a token\n  covey \
                  login --node n1:7411 --token @token       here\n  covey context use local                      back \
                  to this machine's own agent"
)]
pub(crate) struct Login {
    /// The token, or @FILE to read it from; default: $COVEY_TOKEN
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// What to call the context; default: as the cell is called
    #[arg(long, value_name = "NAME", value_parser = context)]
    pub(crate) context: Option<String>,
}

fn context(text: &str) -> Result<String, String> {
    if placement::job::name::is_label(text) && text != crate::context::LOCAL {
        Ok(text.to_owned())
    } else {
        Err("the name of a context is a small letter, then small letters, digits and -, and not `local`"
            .into())
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Context {
    /// List the cells that one has logged in to
    #[command(after_help = "Example: covey context ls")]
    Ls,
    /// Choose the cell to talk to; `local` is this machine's own agent
    #[command(after_help = "Examples:\n  covey context use lab\n  covey context use local")]
    Use {
        #[arg(value_name = "NAME")]
        name: String,
    },
}

fn role(text: &str) -> Result<Role, String> {
    match text {
        "node" => Ok(Role::Node),
        "user" => Ok(Role::User),
        "admin" => Ok(Role::Admin),
        _ => Err("a role is node, user or admin".into()),
    }
}

fn user(text: &str) -> Result<String, String> {
    if placement::job::name::is_label(text) {
        Ok(text.to_owned())
    } else {
        Err("the name of a user is a small letter, then small letters, digits and -, at most 63".into())
    }
}

/// Let a user do more than run plain jobs of its own
///
/// A right is one of
///   admin.jobs            change and end everybody's jobs
///   estimate.off          have tasks counted with their limits, whatever they use: estimate = false
///   host.path:/PATH       mount this path of a node, and what is below it, read-only
///   kernel.cap.NAME       add the capability to containers, for instance kernel.cap.net_admin; kernel.cap.* is all
///   kernel.device:/dev/X  use the device in containers
///   kernel.host_users     run containers without a user namespace: root inside is root outside
///
/// What a job takes is checked when it is submitted. Admins have all rights. Without RIGHT, it shows those that there are.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  covey grant\n  covey grant ann host.path:/etc/ssl kernel.cap.net_admin\n  covey grant ann \
                  --revoke admin.jobs"
)]
pub(crate) struct Grant {
    /// Who: the name of a user that has logged in
    #[arg(value_name = "USER")]
    pub(crate) user: Option<String>,
    #[arg(value_name = "RIGHT", requires = "user")]
    pub(crate) rights: Vec<String>,
    /// Take a right away; may be repeated
    #[arg(long, value_name = "RIGHT", requires = "user")]
    pub(crate) revoke: Vec<String>,
}

/// Label a node, for `require`, `prefer` and `spread`
///
/// KEY=VALUE sets a label, KEY- takes it away. What is set here outweighs what the node says of itself, and stays when its
/// agent starts again. A label that the node itself declares is taken away there.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  covey label n1 rack=r1 disk=ssd\n  covey label n1 disk-")]
pub(crate) struct Label {
    // Not `node`: that is the option of all verbs.
    #[arg(value_name = "NODE")]
    pub(crate) name: String,
    #[arg(value_name = "KEY=VALUE|KEY-", required = true)]
    pub(crate) labels: Vec<LabelChange>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// Forget a node that is gone, and revoke it
    ///
    /// For one that will not come back: its name is free, nothing waits for it, and its key is never let in again. One
    /// that is alive is refused: `covey leave` on it makes it leave.
    #[command(after_help = "Example: covey node rm n3")]
    Rm {
        #[arg(value_name = "NODE")]
        name: String,
    },
}

/// Take this node out of its cell
///
/// Its tasks move to other nodes, one of each job at a time; its vote goes to another node; the others forget it and its
/// agent ends. The data directory keeps its images, and the next agent there is a new node, that may join this cell or
/// another. Asked of the node itself, on its own socket.
///
/// It waits until everything has moved. With --deadline, what has found no place by then is ended with the node. If it is
/// interrupted, the node stays drained: `covey undrain` lets it take tasks again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  covey leave\n  covey leave --deadline 5m")]
pub(crate) struct Leave {
    /// End what has not moved by then
    #[arg(long, value_name = "DURATION")]
    pub(crate) deadline: Option<Patience>,
}

/// Show the cell: its name and id, who votes, its settings; or change those
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  covey cell\n  covey cell set lost-after=5s")]
pub(crate) struct Cell {
    #[command(subcommand)]
    pub(crate) verb: Option<CellVerb>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CellVerb {
    /// Change settings of the cell
    ///
    /// lost-after: how long after a node was found dead its tasks are placed elsewhere; from 100ms to 24h, at first 1s.
    /// Longer spares tasks a move when a network or machine only hiccups, shorter brings them back sooner.
    #[command(after_help = "Example: covey cell set lost-after=5s")]
    Set {
        #[arg(value_name = "KEY=VALUE", required = true)]
        settings: Vec<Setting>,
    },
}

/// A setting of the cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    LostAfter(Patience),
}

impl std::str::FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) =
            text.split_once('=').ok_or("it has the form KEY=VALUE, for instance lost-after=5s")?;
        match key {
            "lost-after" => value.parse().map(Setting::LostAfter),
            other => Err(format!("the cell has no setting `{other}`: there is lost-after")),
        }
    }
}
