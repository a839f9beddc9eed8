//! Requests about the cell's nodes: what operators say of them, and forgetting one that is gone.

use std::collections::BTreeMap;

use placement::{
    ids::NodeId,
    job::name::is_node_label,
    ledger::{Answer, Command, Ledger, Refusal, RequestStamp},
    view::Standing,
};
use serde_json::{Value, json};

use super::{Services, change::propose, invalid, pass::Unpassed};

/// `covey label NODE k=v k-`.
pub(super) async fn label(
    services: &Services,
    stamp: &RequestStamp,
    node: &str,
    labels: BTreeMap<String, Option<String>>,
) -> Result<Value, Unpassed> {
    let id = find(&services.ledger.state(), node)?;
    let parts = labels.iter().flat_map(|(key, value)| [Some(key.as_str()), value.as_deref()]);
    if let Some(bad) = parts.flatten().find(|part| !is_node_label(part)) {
        let message = format!("`{bad}` cannot be in a label: it is made of letters, digits and . _ - / : +");
        return Err(invalid(message).into());
    }
    let by = stamp.principal.0.clone();
    let shown: Vec<String> = labels
        .iter()
        .map(|(key, value)| match value {
            Some(value) => format!("{key}={value}"),
            None => format!("{key}-"),
        })
        .collect();
    let (_, changed) = propose(services, stamp, Command::Label { node: id, labels }).await?;
    let ledger = services.ledger.state();
    let member = ledger.roster.get(&id);
    let name = member.map_or(node, |member| &member.name);
    if changed {
        services.journal.node("labelled", format!("{by} labelled {name}: {}", shown.join(" ")));
    }
    Ok(json!({"id": id, "name": name, "labels": member.map(|member| &member.labels), "changed": changed}))
}

/// `covey drain NODE`, and back.
pub(super) async fn drain(
    services: &Services,
    stamp: &RequestStamp,
    node: &str,
    on: bool,
) -> Result<Value, Unpassed> {
    let id = find(&services.ledger.state(), node)?;
    let (_, changed) = propose(services, stamp, Command::Drain { node: id, on }).await?;
    let name = services.cell.name(id);
    if changed {
        let by = &stamp.principal.0;
        let (kind, text) = match on {
            true => ("drain", format!("{by} has {name} drained: its tasks move to other nodes")),
            false => ("undrain", format!("{by} lets {name} take tasks again")),
        };
        services.journal.node(kind, text);
    }
    Ok(json!({"id": id, "name": name, "draining": on, "changed": changed}))
}

/// `covey node rm NAME`. To be decided by the placer: who is gone for it runs nothing that counts.
pub(super) async fn remove(
    services: &Services,
    stamp: &RequestStamp,
    node: &str,
    leaves: bool,
) -> Result<Value, Unpassed> {
    let id = match find(&services.ledger.state(), node) {
        Ok(id) => id,
        // The same request again, after it was done.
        Err(_) if was_done(&services.ledger.state(), stamp) => {
            return Ok(json!({"id": null, "name": node, "changed": true}));
        }
        Err(refusal) => return Err(refusal.into()),
    };
    let rows = services.placer.read(|core| core.nodes()).await.unwrap_or_default();
    let draining = services.ledger.state().roster.get(&id).is_some_and(|member| member.draining);
    // None: this node does not place, which `propose` says.
    let row = rows.iter().find(|row| row.id == id);
    if row.is_none() && services.ledger.role().borrow().is_leader() {
        return Err(Unpassed::Broken("it has just begun to place, and does not know yet who is here".into()));
    }
    if let Some(row) = row.filter(|row| row.standing != Standing::Gone && !(leaves && draining)) {
        return Err(Refusal::new(
            "conflict",
            format_args!("node {} is not gone: only one that is dead can be forgotten", row.name),
            Some(
                "`covey leave` on it makes it leave; one that just died is gone after the cell's lost-after",
            ),
        )
        .into());
    }
    let name = services.ledger.state().roster.get(&id).map_or_else(|| node.into(), |m| m.name.clone());
    let by = stamp.principal.0.clone();
    let (_, changed) = propose(services, stamp, Command::Remove { node: id }).await?;
    if changed {
        services.journal.node("node_removed", format!("{by} removed the node {name} ({id}) from the cell"));
    }
    Ok(json!({"id": id, "name": name, "changed": changed}))
}

fn was_done(ledger: &Ledger, stamp: &RequestStamp) -> bool {
    let asked = ledger.requests.get(&stamp.principal);
    let same = asked.and_then(|asked| asked.iter().find(|request| request.id == stamp.id));
    same.is_some_and(|request| matches!(request.answer, Answer::Done { .. }))
}

/// The node of the roster that people call `text`: by its name, whatever the case, or its id.
///
/// # Errors
/// `not_found`, with the name that was likely meant.
pub(super) fn find(ledger: &Ledger, text: &str) -> Result<NodeId, Refusal> {
    let named = ledger.roster.iter().find(|(_, member)| member.name.eq_ignore_ascii_case(text));
    if let Some((id, _)) = named {
        return Ok(*id);
    }
    if let Some(id) = text.parse().ok().filter(|id| ledger.roster.contains_key(id)) {
        return Ok(id);
    }
    let names: Vec<&str> = ledger.roster.values().map(|member| member.name.as_str()).collect();
    let hint = match likely(text, &names) {
        Some(name) => format!("did you mean {name}? `covey nodes` lists those that there are"),
        None => "`covey nodes` lists those that there are".to_owned(),
    };
    Err(Refusal::new("not_found", format_args!("there is no node `{text}` in this cell"), Some(&hint)))
}

/// The one name that differs from `text` by the least, if that is little.
fn likely<'a>(text: &str, names: &[&'a str]) -> Option<&'a str> {
    let most = match text.len() {
        0..=2 => 1,
        _ => 2,
    };
    let near = names.iter().map(|name| (distance(text, name), *name)).filter(|(far, _)| *far <= most);
    near.min_by_key(|(far, name)| (*far, name.len())).map(|(_, name)| name)
}

/// How many letters have to be put in, taken out or changed (Levenshtein, by rows).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.to_lowercase().chars().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = changed.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use placement::ledger::Member;

    #[test]
    fn nodes_are_found_by_name_or_id_and_others_are_suggested() {
        let mut ledger = Ledger::default();
        for (id, name) in [(0xab, "web-1"), (0xcd, "web-2"), (0xef, "db")] {
            ledger.roster.insert(NodeId(id), Member { name: name.into(), ..Member::default() });
        }
        assert_eq!(find(&ledger, "web-2").unwrap(), NodeId(0xcd));
        assert_eq!(find(&ledger, "Web-2").unwrap(), NodeId(0xcd));
        assert_eq!(find(&ledger, "00000000000000ef").unwrap(), NodeId(0xef));
        let hint = |text: &str| find(&ledger, text).unwrap_err().hint.unwrap();
        assert!(hint("web1").starts_with("did you mean web-1?"));
        assert!(hint("dp").starts_with("did you mean db?"));
        assert!(hint("mail").starts_with("`covey nodes`"));
        assert!(
            hint("").starts_with("`covey nodes`") && hint("00000000000000ff").starts_with("`covey nodes`")
        );
        assert_eq!(find(&ledger, "x").unwrap_err().code, "not_found");
    }

    #[test]
    fn distances() {
        for (a, b, far) in
            [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("n1", "n10", 1), ("N1", "n1", 0)]
        {
            assert_eq!(distance(a, b), far, "{a} {b}");
        }
    }
}
