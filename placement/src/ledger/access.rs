//! Who gets in: tokens, those that were let in by one, and what each may change.
//!
//! A token is a secret that a member printed; the ledger knows only its hash. Using it up, letting in and remembering
//! who was let in is one entry, so that a join whose answer was lost may be repeated: it counts once.

use alloc::{
    collections::BTreeSet,
    string::{String, ToString},
};
use core::fmt;
use serde::{Deserialize, Serialize};

use super::{
    Access, Answer, Command, Later, Ledger, Refusal,
    apply::{At, CHANGED, UNCHANGED},
    grants,
    roster::Newcomer,
};
use crate::{
    ids::Principal,
    job::{Job, name},
};

/// Tokens that are kept: those that can still be used, and used-up ones until they expire.
const TOKENS: usize = 1000;
/// Uses of one token: each is remembered.
pub const MOST_USES: u32 = 10_000;
/// How long a token may live: a year.
pub const LONGEST_MS: u64 = 365 * 24 * 3_600_000;
/// Principals of a cell.
const PRINCIPALS: usize = 10_000;
/// Root on the local socket: an admin without a record.
pub const ROOT: &str = "root";

/// What a token makes of whoever shows it, and so what its certificate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A machine that runs an agent.
    Node,
    /// Changes its own jobs.
    User,
    /// Changes everything.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Node => "node",
            Role::User => "user",
            Role::Admin => "admin",
        })
    }
}

/// A token as the ledger knows it, by the SHA-256 of its secret (64 hex digits).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    pub role: Role,
    /// Of the principal, for users and admins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many may use it.
    pub uses: u32,
    /// Who did: ids of nodes, or key hashes of those who logged in. The same one again counts once.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub used_by: BTreeSet<String>,
    /// Wall time, milliseconds since 1970.
    pub created_ms: u64,
    pub expires_ms: u64,
    /// Who had it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Principal>,
    /// Fields of a later covey: kept.
    #[serde(flatten)]
    pub later: Later,
}

impl TokenRecord {
    fn is_used_up(&self) -> bool {
        self.used_by.len() >= self.uses as usize
    }
}

/// A user or an admin who logged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrincipalRecord {
    pub role: Role,
    /// Of the first login. Wall time, milliseconds since 1970.
    pub created_ms: u64,
    /// Who had the token made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Principal>,
    /// Rights beyond those of the role: see `grants`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub grants: BTreeSet<String>,
    /// Fields of a later covey: kept.
    #[serde(flatten)]
    pub later: Later,
}

/// What a token shall be.
pub(super) struct NewToken<'a> {
    pub(super) hash: &'a str,
    pub(super) role: Role,
    pub(super) name: Option<&'a str>,
    pub(super) uses: u32,
    pub(super) ttl_ms: u64,
}

impl Ledger {
    /// Expired tokens make room for the new one, then used-up ones.
    pub(super) fn token(&mut self, at: &At<'_>, new: &NewToken<'_>) -> Result<Answer, Refusal> {
        if !is_hash(new.hash) {
            return Err(Refusal::invalid("a token is stored as the SHA-256 of its secret, in 64 hex digits"));
        }
        match (new.role, new.name) {
            (Role::Node, None) => {}
            (Role::Node, Some(_)) => {
                let hint = "leave out --name: a node brings its own (covey agent --name NAME)";
                return Err(Refusal::new("invalid", "a token for nodes has no name", Some(hint)));
            }
            (role, None) => {
                let message = format_args!("a token of role {role} needs the name that it is for");
                return Err(Refusal::new("invalid", message, Some("covey token --role … --name NAME")));
            }
            (role, Some(name)) => self.may_be(name, role)?,
        }
        if !(1..=MOST_USES).contains(&new.uses) {
            return Err(Refusal::invalid(format_args!(
                "a token has 1 to {MOST_USES} uses, not {}",
                new.uses
            )));
        }
        if !(1..=LONGEST_MS).contains(&new.ttl_ms) {
            return Err(Refusal::invalid("a token lives for at least a millisecond and at most a year"));
        }
        let record = TokenRecord {
            role: new.role,
            name: new.name.map(Into::into),
            uses: new.uses,
            used_by: BTreeSet::new(),
            created_ms: at.ms,
            expires_ms: at.ms.saturating_add(new.ttl_ms),
            by: at.by.cloned(),
            later: Later::new(),
        };
        match self.tokens.get(new.hash) {
            Some(known) if *known == record => return Ok(UNCHANGED),
            Some(_) => {
                return Err(Refusal::conflict("there is such a token already", "draw another secret"));
            }
            None => {}
        }
        self.tokens.retain(|_, token| token.expires_ms > at.ms);
        if self.tokens.len() >= TOKENS {
            self.tokens.retain(|_, token| !token.is_used_up());
        }
        if self.tokens.len() >= TOKENS {
            let hint = "one token may have many uses: covey token --uses N";
            return Err(Refusal::conflict(
                format_args!("{TOKENS} tokens wait to be used, and no more are kept"),
                hint,
            ));
        }
        self.tokens.insert(new.hash.into(), record);
        Ok(CHANGED)
    }

    /// Lets a node in by a token. What a stranger learns without a good token is nothing but that.
    pub(super) fn join(
        &mut self,
        at: &At<'_>,
        new: &Newcomer<'_>,
        token_hash: &str,
    ) -> Result<Answer, Refusal> {
        let who = new.node.to_string();
        self.usable(at, token_hash, &who, false)?;
        let (admitted, mut changed) = self.take_in(at, new)?;
        changed |= self.use_up(token_hash, who);
        Ok(Answer::Done {
            job: None,
            access: Some(Access::Node { admitted, promise: self.activation }),
            changed,
        })
    }

    /// Makes whoever holds the key with this hash (64 hex digits) the principal that the token is for.
    pub(super) fn login(&mut self, at: &At<'_>, key: &str, token_hash: &str) -> Result<Answer, Refusal> {
        if !is_hash(key) {
            return Err(Refusal::invalid("a login names its public key's SHA-256, in 64 hex digits"));
        }
        let token = self.usable(at, token_hash, key, true)?;
        let (role, by, name) = (token.role, token.by.clone(), token.name.clone().unwrap_or_default());
        self.may_be(&name, role)?;
        let principal = Principal(name);
        if !self.principals.contains_key(&principal) && self.principals.len() >= PRINCIPALS {
            return Err(Refusal::invalid(format_args!("a cell has at most {PRINCIPALS} users")));
        }
        let mut changed = false;
        self.principals.entry(principal.clone()).or_insert_with(|| {
            changed = true;
            PrincipalRecord { role, created_ms: at.ms, by, grants: BTreeSet::new(), later: Later::new() }
        });
        changed |= self.use_up(token_hash, key.into());
        Ok(Answer::Done { job: None, access: Some(Access::Principal { principal, role }), changed })
    }

    /// The token, if `who` may use it now, or has used it before. `login`: for people, not for nodes.
    fn usable(&self, at: &At<'_>, hash: &str, who: &str, login: bool) -> Result<&TokenRecord, Refusal> {
        let denied = |message: fmt::Arguments<'_>, hint: &str| Refusal::new("denied", message, Some(hint));
        let again = if login {
            "`covey token --role user --name NAME` on a member prints a new one"
        } else {
            "`covey token` on a member prints a new one"
        };
        let Some(token) = self.tokens.get(hash) else {
            return Err(denied(format_args!("this cell does not know the token"), again));
        };
        match (login, token.role) {
            (false, Role::Node) | (true, Role::User | Role::Admin) => {}
            (false, role) => {
                let message = format_args!("the token is for `covey login` (role {role}), not for a node");
                return Err(denied(message, again));
            }
            (true, Role::Node) => {
                return Err(denied(format_args!("the token lets nodes join, not people log in"), again));
            }
        }
        if token.used_by.contains(who) {
            return Ok(token);
        }
        if token.expires_ms <= at.ms {
            let ago = Ago((at.ms - token.expires_ms) / 1000);
            return Err(denied(format_args!("the token expired {ago}"), again));
        }
        if token.is_used_up() {
            let many = if token.uses == 1 { "" } else { "s" };
            let message = format_args!("the token is used up: it was for {} use{many}", token.uses);
            return Err(denied(message, again));
        }
        Ok(token)
    }

    /// True if that is news.
    fn use_up(&mut self, hash: &str, who: String) -> bool {
        self.tokens.get_mut(hash).is_some_and(|token| token.used_by.insert(who))
    }

    /// Whether a principal of this name and role may be made, or is there.
    fn may_be(&self, name: &str, role: Role) -> Result<(), Refusal> {
        if !name::is_label(name) {
            let message = format_args!("`{name}` cannot be the name of a user");
            let hint = "a lower-case letter, then lower-case letters, digits or `-`, at most 63";
            return Err(Refusal::new("invalid", message, Some(hint)));
        }
        if name == ROOT {
            let message = format_args!("`{ROOT}` is root on a node's own socket");
            return Err(Refusal::conflict(message, "choose another name"));
        }
        match self.principals.get(&Principal(name.into())) {
            Some(known) if known.role != role => {
                let message = format_args!("`{name}` has the role {} already", known.role);
                Err(Refusal::conflict(message, "choose another name for the other role"))
            }
            _ => Ok(()),
        }
    }

    /// The role of whoever asks; None if this cell knows nobody of that name.
    pub fn role(&self, principal: &Principal) -> Option<Role> {
        match self.principals.get(principal) {
            Some(record) => Some(record.role),
            None => (principal.0 == ROOT).then_some(Role::Admin),
        }
    }

    /// Whether the principal may have this done: for whoever decides about a request, before it is proposed.
    ///
    /// # Errors
    /// `denied`, with who could.
    pub fn may(&self, principal: &Principal, command: &Command) -> Result<(), Refusal> {
        match self.role(principal) {
            Some(role) => {
                let others_jobs = self.has_right(principal, grants::ADMIN_JOBS);
                may(principal, role, command, others_jobs)?;
                match command {
                    Command::Submit { document, .. } if role != Role::Admin => {
                        match Job::from_document(document) {
                            Ok(job) => self.may_contain(principal, &job),
                            // What cannot be read is refused as that.
                            Err(_) => Ok(()),
                        }
                    }
                    _ => Ok(()),
                }
            }
            None => {
                let message = format_args!("this cell knows no user `{}`", principal.0);
                let hint = "log in again with a new token: `covey token --role user --name NAME` on a member";
                Err(Refusal::new("denied", message, Some(hint)))
            }
        }
    }
}

/// A user changes its own jobs (or, with that right, everybody's), an admin everything, a node nothing: agents propose what
/// they have to in their own name.
fn may(principal: &Principal, role: Role, command: &Command, others_jobs: bool) -> Result<(), Refusal> {
    let job = match command {
        Command::Submit { job, .. }
        | Command::Stop { job, .. }
        | Command::Restart { job, .. }
        | Command::Scale { job, .. } => Some(job),
        _ => None,
    };
    let who = &principal.0;
    match (role, job) {
        (Role::Admin, _) => Ok(()),
        (Role::User, Some(job)) if job.owner == *who || others_jobs => Ok(()),
        (Role::User, Some(job)) => {
            let message = format_args!("`{who}` is a user, and the job {job} is not its own");
            Err(Refusal::new(
                "denied",
                message,
                Some("its owner can do it, an admin, or who has the right admin.jobs"),
            ))
        }
        (Role::User, None) => {
            let message = format_args!("`{who}` is a user: only admins change the cell");
            Err(Refusal::new("denied", message, Some("ask an admin, or root on any node")))
        }
        (Role::Node, _) => {
            let message = format_args!("`{who}` is a node, and asks for what people ask for");
            Err(Refusal::new("denied", message, Some("log in as a user: covey login")))
        }
    }
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Seconds, in the largest unit of which there is one.
struct Ago(u64);

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("just now"),
            s @ 1..60 => write!(f, "{s} s ago"),
            s @ 60..3600 => write!(f, "{} min ago", s / 60),
            s @ 3600..86_400 => write!(f, "{} h ago", s / 3600),
            s => write!(f, "{} days ago", s / 86_400),
        }
    }
}
