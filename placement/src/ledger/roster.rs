//! Who belongs to the cell, and what operators say of its nodes.

use alloc::{collections::BTreeMap, string::String};

use super::{
    Answer, Ledger, Member, Refusal,
    apply::{At, CHANGED, UNCHANGED},
};
use crate::{ids::NodeId, job::name};

/// Labels of one node, and bytes of a key or value.
const LABELS: usize = 64;
const LABEL_BYTES: usize = 253;

/// Who wants to be a member.
pub(super) struct Newcomer<'a> {
    pub(super) node: NodeId,
    pub(super) name: &'a str,
    pub(super) addr: Option<&'a str>,
}

impl Ledger {
    /// A member that comes again under a new name is renamed; what it was admitted with stays (PROTOCOL 8).
    pub(super) fn admit(&mut self, at: &At<'_>, new: &Newcomer<'_>) -> Result<Answer, Refusal> {
        let (_, changed) = self.take_in(at, new)?;
        Ok(if changed { CHANGED } else { UNCHANGED })
    }

    /// Gives the entry that admitted it, and whether anything is new.
    pub(super) fn take_in(&mut self, at: &At<'_>, new: &Newcomer<'_>) -> Result<(u64, bool), Refusal> {
        let Newcomer { node, name, addr } = *new;
        if !name::is_node(name) {
            let message = format_args!("`{name}` cannot be the name of a node");
            let hint = "a letter, then letters, digits or `-`, at most 63: covey agent --name NAME";
            return Err(Refusal::new("invalid", message, Some(hint)));
        }
        if let Some(addr) = addr {
            is_address(addr)?;
        }
        if self.removed.contains(&node) {
            let message = format_args!("the node {node} was removed from this cell");
            let hint = "give its agent an empty data directory: then it joins as a new node";
            return Err(Refusal::new("denied", message, Some(hint)));
        }
        // Names are for people and for the DNS, to which `Web1` and `web1` are one.
        let same = |member: &Member| member.name.eq_ignore_ascii_case(name);
        if let Some((other, member)) = self.roster.iter().find(|(id, member)| same(member) && **id != node) {
            let message = format_args!("the name `{}` belongs to the node {other}", member.name);
            let hint =
                "give this one another (covey agent --name NAME), or `covey node rm` the one that is gone";
            return Err(Refusal::conflict(message, hint));
        }
        let mut changed = false;
        let member = self.roster.entry(node).or_insert_with(|| {
            changed = true;
            Member { name: name.into(), admitted: at.index, ..Member::default() }
        });
        if member.name != name {
            member.name = name.into();
            changed = true;
        }
        if addr.is_some() && member.addr.as_deref() != addr {
            member.addr = addr.map(Into::into);
            changed = true;
        }
        Ok((member.admitted, changed))
    }

    pub(super) fn address(&mut self, node: NodeId, addr: &str) -> Result<Answer, Refusal> {
        is_address(addr)?;
        let member = self.roster.get_mut(&node).ok_or_else(|| no_node(node))?;
        if member.addr.as_deref() == Some(addr) {
            return Ok(UNCHANGED);
        }
        member.addr = Some(addr.into());
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

    /// Whether its tasks move away.
    pub(super) fn drain(&mut self, node: NodeId, on: bool) -> Result<Answer, Refusal> {
        let member = self.roster.get_mut(&node).ok_or_else(|| no_node(node))?;
        if core::mem::replace(&mut member.draining, on) == on { Ok(UNCHANGED) } else { Ok(CHANGED) }
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

fn is_address(addr: &str) -> Result<(), Refusal> {
    match addr.parse::<core::net::SocketAddr>() {
        Ok(_) => Ok(()),
        Err(_) => Err(Refusal::invalid(format_args!("`{addr}` is not an address, IP:PORT"))),
    }
}

fn no_node(node: NodeId) -> Refusal {
    let hint = "`covey nodes` lists what there is";
    Refusal::new("not_found", format_args!("there is no node {node} in the roster"), Some(hint))
}
