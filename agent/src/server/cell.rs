//! Requests about the cell as a whole: what it is, its settings, and tokens for those who shall get in.

use std::collections::BTreeSet;

use placement::{
    ids::{NodeId, Principal},
    ledger::{Command, Ledger, PrincipalRecord, RequestStamp, Role},
};
use serde_json::{Value, json};

use super::{Services, change::propose, pass::Unpassed};
use crate::clock;

/// `covey cell`.
pub(super) fn cell(ledger: &Ledger, voters: &BTreeSet<NodeId>) -> Value {
    let name = |id| ledger.roster.get(&id).map_or_else(|| id.to_string(), |member| member.name.clone());
    let voters: Vec<String> = voters.iter().copied().map(name).collect();
    let cell = ledger.cell.as_ref();
    json!({
        "id": cell.map(|cell| &cell.id),
        "name": cell.map(|cell| &cell.name),
        "generation": cell.map(|cell| cell.generation),
        "placer": ledger.placer.map(name),
        "voters": voters,
        "nodes": ledger.roster.len(),
        "settings": settings(ledger),
    })
}

/// Who has logged in, and what they may do.
pub(super) fn principals(ledger: &Ledger) -> Vec<Value> {
    ledger.principals.iter().map(|(name, record)| principal(name, record)).collect()
}

fn principal(name: &Principal, record: &PrincipalRecord) -> Value {
    let created = clock::rfc3339(record.created_ms);
    json!({"name": name, "role": record.role, "grants": record.grants, "created": created})
}

/// `covey grant NAME RIGHT…`.
pub(super) async fn grant(
    services: &Services,
    stamp: &RequestStamp,
    whom: &Principal,
    give: &BTreeSet<String>,
    take: &BTreeSet<String>,
) -> Result<Value, Unpassed> {
    let command = Command::Grant { principal: whom.clone(), give: give.clone(), take: take.clone() };
    let (_, changed) = propose(services, stamp, command).await?;
    if changed {
        let signed = |sign: &str, rights: &BTreeSet<String>| -> Vec<String> {
            rights.iter().map(|right| format!("{sign}{right}")).collect()
        };
        let rights = [signed("+", give), signed("-", take)].concat().join(" ");
        services
            .journal
            .node("granted", format!("{} changed the rights of {}: {rights}", stamp.principal.0, whom.0));
    }
    let ledger = services.ledger.state();
    let mut document = match ledger.principals.get(whom) {
        Some(record) => principal(whom, record),
        None => json!({"name": whom}),
    };
    document["changed"] = json!(changed);
    Ok(document)
}

fn settings(ledger: &Ledger) -> Value {
    json!({"lost_after_ms": ledger.settings.lost_after_ms})
}

/// `covey cell set lost-after=1s`.
pub(super) async fn set(
    services: &Services,
    stamp: &RequestStamp,
    lost_after_ms: Option<u64>,
) -> Result<Value, Unpassed> {
    let by = stamp.principal.0.clone();
    let (_, changed) = propose(services, stamp, Command::Set { lost_after_ms }).await?;
    if changed {
        let now = settings(&services.ledger.state());
        services.journal.node("cell_set", format!("{by} changed the cell's settings to {now}"));
    }
    let mut document = cell(&services.ledger.state(), &services.ledger.voters());
    document["changed"] = json!(changed);
    Ok(document)
}

/// What a token shall be.
pub(super) struct Wanted {
    pub(super) hash: String,
    pub(super) role: Role,
    pub(super) name: Option<String>,
    pub(super) uses: u32,
    pub(super) ttl_ms: u64,
}

/// `covey token`.
pub(super) async fn token(
    services: &Services,
    stamp: &RequestStamp,
    wanted: Wanted,
) -> Result<Value, Unpassed> {
    let Wanted { hash, role, name, uses, ttl_ms } = wanted;
    let by = stamp.principal.0.clone();
    let command = Command::Token { hash: hash.clone(), role, name: name.clone(), uses, ttl_ms };
    let (_, changed) = propose(services, stamp, command).await?;
    let ledger = services.ledger.state();
    let expires = match ledger.tokens.get(&hash) {
        Some(record) => record.expires_ms,
        // A copy of the ledger that is behind.
        None => clock::now().wall_ms.saturating_add(ttl_ms),
    };
    let expires = clock::rfc3339(expires);
    if changed {
        let whom = name.as_deref().map(|name| format!(" for {name}")).unwrap_or_default();
        let text = format!("{by} made a token of role {role}{whom}, for {uses} uses until {expires}");
        services.journal.node("token_made", text);
    }
    let cell = ledger.cell.as_ref();
    Ok(json!({
        "cell": cell.map(|cell| &cell.id), "cell_name": cell.map(|cell| &cell.name),
        "role": role, "name": name, "uses": uses, "expires": expires,
    }))
}
