//! What a user may do beyond its own plain jobs: rights that an admin grants by name.

use alloc::{
    collections::BTreeSet,
    format,
    string::{String, ToString},
    vec::Vec,
};

use super::{
    Answer, Ledger, Refusal, Role,
    apply::{CHANGED, UNCHANGED},
};
use crate::{
    ids::Principal,
    job::{
        Job,
        container::{Container, Source},
    },
};

/// Rights of one principal.
const MOST: usize = 200;

/// Changes and ends everybody's jobs.
pub const ADMIN_JOBS: &str = "admin.jobs";
/// Runs containers without a user namespace: root inside is root outside.
pub const HOST_USERS: &str = "kernel.host_users";
/// Has its tasks counted with their limits, whatever they use.
pub const NO_ESTIMATE: &str = "estimate.off";
/// And the name of a capability in lower case, or `*`.
const CAPABILITY: &str = "kernel.cap.";
/// And the path of a device.
const DEVICE: &str = "kernel.device:";
/// And a path of the node, below which everything may be read.
const HOST_PATH: &str = "host.path:";

/// What a right may be called, for people.
pub const KNOWN: &str = "admin.jobs, estimate.off, kernel.host_users, kernel.cap.NAME (or kernel.cap.*), kernel.device:/dev/NAME, host.path:/PATH";

fn is_right(text: &str) -> bool {
    let path = |path: &str| {
        path.starts_with('/') && path.len() <= 1024 && path.split('/').all(|part| part != ".." && part != ".")
    };
    let word = |name: &str| {
        !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    };
    text == ADMIN_JOBS
        || text == HOST_USERS
        || text == NO_ESTIMATE
        || text.strip_prefix(CAPABILITY).is_some_and(|name| name == "*" || word(name))
        || text.strip_prefix(DEVICE).is_some_and(|dev| path(dev) && dev.starts_with("/dev/"))
        || text.strip_prefix(HOST_PATH).is_some_and(path)
}

/// The rights that a job's tasks take, each once.
pub fn needed(job: &Job) -> BTreeSet<String> {
    let templates = || job.overrides.values().map(|task| &**task).chain([&job.task]);
    let mut needed: BTreeSet<String> = templates().flat_map(|task| of_container(&task.container)).collect();
    if templates().any(|task| !task.estimate) {
        needed.insert(NO_ESTIMATE.to_string());
    }
    needed
}

fn of_container(container: &Container) -> Vec<String> {
    let privileges = &container.privileges;
    let capabilities =
        privileges.capabilities.iter().map(|c| format!("{CAPABILITY}{}", c.to_ascii_lowercase()));
    let devices = privileges.devices.iter().map(|path| format!("{DEVICE}{path}"));
    let binds = container.volumes.iter().filter_map(|volume| match &volume.source {
        Source::Host(path) => Some(format!("{HOST_PATH}{path}")),
        Source::Name(_) | Source::Tmpfs(_) => None,
    });
    let users = privileges.host_users.then(|| HOST_USERS.to_string());
    capabilities.chain(devices).chain(binds).chain(users).collect()
}

/// Whether one of the rights is, or covers, the one that is needed.
fn covered(rights: &BTreeSet<String>, needed: &str) -> bool {
    rights.contains(needed)
        || (needed.starts_with(CAPABILITY) && rights.contains("kernel.cap.*"))
        || needed.strip_prefix(HOST_PATH).is_some_and(|path| {
            let mut above = rights.iter().filter_map(|right| right.strip_prefix(HOST_PATH));
            above.any(|dir| below(path, dir))
        })
}

fn below(path: &str, dir: &str) -> bool {
    let (path, dir) = (path.trim_end_matches('/'), dir.trim_end_matches('/'));
    path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Ledger {
    /// Gives a principal rights, or takes them away.
    pub(super) fn grant(
        &mut self,
        principal: &Principal,
        give: &BTreeSet<String>,
        take: &BTreeSet<String>,
    ) -> Result<Answer, Refusal> {
        if let Some(bad) = give.iter().find(|right| !is_right(right)) {
            let hint = format!("rights are {KNOWN}");
            return Err(Refusal::new("invalid", format_args!("`{bad}` is no right"), Some(&hint)));
        }
        let Some(record) = self.principals.get_mut(principal) else {
            let message = format_args!("this cell knows no user `{}`", principal.0);
            let hint =
                "whoever has logged in is known: `covey token --role user --name NAME`, then `covey login`";
            return Err(Refusal::new("not_found", message, Some(hint)));
        };
        let mut rights = record.grants.clone();
        rights.retain(|right| !take.contains(right));
        rights.extend(give.iter().cloned());
        if rights.len() > MOST {
            return Err(Refusal::invalid(format_args!("a user has at most {MOST} rights")));
        }
        if rights == record.grants {
            return Ok(UNCHANGED);
        }
        record.grants = rights;
        Ok(CHANGED)
    }

    /// Whether a principal has a right: admins have all.
    pub fn has_right(&self, principal: &Principal, right: &str) -> bool {
        self.role(principal) == Some(Role::Admin)
            || self.principals.get(principal).is_some_and(|record| covered(&record.grants, right))
    }

    /// Whether the principal may have such containers made.
    ///
    /// # Errors
    /// `denied`, with what is missing and how it is granted.
    pub(super) fn may_contain(&self, principal: &Principal, job: &Job) -> Result<(), Refusal> {
        let missing: Vec<String> =
            needed(job).into_iter().filter(|right| !self.has_right(principal, right)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let (who, rights) = (&principal.0, missing.join(" "));
        let message = format_args!("`{who}` may not have what the job {} asks for: {rights}", job.name);
        let hint = format!("an admin can grant it: covey grant {who} {rights}");
        Err(Refusal::new("denied", message, Some(&hint)))
    }
}
