//! Who belongs to the cell, and what operators say of its nodes.

use alloc::{collections::BTreeMap, string::String};

use super::{
    Answer, Ledger, Member, Refusal,
    apply::{At, CHANGED, UNCHANGED},
};
use crate::ids::NodeId;

/// Labels of one node, and bytes of a key or value.
const LABELS: usize = 64;
const LABEL_BYTES: usize = 253;

impl Ledger {
    /// A member that comes again under a new name is renamed; what it was admitted with stays (PROTOCOL 8).
    pub(super) fn admit(&mut self, at: &At<'_>, node: NodeId, name: &str) -> Result<Answer, Refusal> {
        if name.is_empty() || name.len() > 253 || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(Refusal::invalid(format_args!("`{name}` cannot be the name of a node")));
        }
        if self.removed.contains(&node) {
            let message = format_args!("the node {node} was removed from this cell");
            let hint = "give its agent an empty data directory: then it joins as a new node";
            return Err(Refusal::new("denied", message, Some(hint)));
        }
        if let Some((other, _)) = self.roster.iter().find(|(id, member)| member.name == name && **id != node)
        {
            let message = format_args!("the name `{name}` belongs to the node {other}");
            return Err(Refusal::conflict(message, "give this one another: covey agent --name NAME"));
        }
        let new = Member { name: "".into(), admitted: at.index, labels: BTreeMap::new() };
        let member = self.roster.entry(node).or_insert(new);
        if member.name == name {
            return Ok(UNCHANGED);
        }
        member.name = name.into();
        Ok(CHANGED)
    }

    /// For good: its id, and so its key, is refused from here on; its name is free.
    pub(super) fn remove(&mut self, node: NodeId) -> Result<Answer, Refusal> {
        if self.removed.contains(&node) {
            return Ok(UNCHANGED);
        }
        if self.placer == Some(node) {
            let message = format_args!("the node {node} is the placer");
            return Err(Refusal::conflict(message, "stop its agent, and another node takes over"));
        }
        self.roster.remove(&node).ok_or_else(|| no_node(node))?;
        self.removed.insert(node);
        Ok(CHANGED)
    }

    /// Sets labels and, where there is no value, takes them away.
    pub(super) fn label(
        &mut self,
        node: NodeId,
        labels: &BTreeMap<String, Option<String>>,
    ) -> Result<Answer, Refusal> {
        let member = self.roster.get_mut(&node).ok_or_else(|| no_node(node))?;
        let fits = |text: &str| text.len() <= LABEL_BYTES && !text.chars().any(char::is_control);
        for (key, value) in labels {
            let bad_key = key.is_empty() || key.contains(|c: char| c.is_whitespace() || c == '=');
            if bad_key || !fits(key) || !value.as_deref().is_none_or(fits) {
                return Err(Refusal::invalid(format_args!("`{key}` cannot be set as a label")));
            }
        }
        let mut new = member.labels.clone();
        for (key, value) in labels {
            match value {
                Some(value) => drop(new.insert(key.clone(), value.clone())),
                None => drop(new.remove(key)),
            }
        }
        if new.len() > LABELS {
            return Err(Refusal::invalid(format_args!("a node has at most {LABELS} labels")));
        }
        if new == member.labels {
            return Ok(UNCHANGED);
        }
        member.labels = new;
        Ok(CHANGED)
    }
}

fn no_node(node: NodeId) -> Refusal {
    let hint = "`covey nodes` lists what there is";
    Refusal::new("not_found", format_args!("there is no node {node} in the roster"), Some(hint))
}
