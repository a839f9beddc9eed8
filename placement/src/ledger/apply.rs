//! The state machine: what is about the cell and its nodes, and the way to the rest.

use alloc::{collections::BTreeMap, sync::Arc};

use super::{Answer, Cell, Command, Completion, Entry, Ledger, Refusal, access::NewToken, roster::Newcomer};
use crate::ids::{Activation, CellId, NodeId, Principal, Uid};

/// What a command is applied with.
pub(super) struct At<'a> {
    /// The entry's index.
    pub(super) index: u64,
    /// The cell generation.
    pub(super) cell: u64,
    /// The proposer's wall clock.
    pub(super) ms: u64,
    pub(super) by: Option<&'a Principal>,
}

impl Ledger {
    /// Applies the entry at `index` of the log. Whatever the entry holds, the answer says what became of it: no entry
    /// stops the state machine. The answer to a request that was done before is the one given then; an index that
    /// was applied before changes nothing.
    ///
    /// Every voter must compute the same, so a build that *widens* what a submission may hold must not let the placer
    /// propose it before every voter runs such a build.
    pub fn apply(&mut self, index: u64, entry: &Entry) -> Answer {
        if index <= self.applied {
            return entry
                .request
                .as_ref()
                .and_then(|stamp| self.answered(stamp))
                .cloned()
                .unwrap_or(UNCHANGED);
        }
        self.applied = index;
        let Some(stamp) = &entry.request else { return self.command(index, entry).into() };
        if let Some(answer) = self.answered(stamp) {
            return answer.clone();
        }
        let answer = self.command(index, entry).into();
        self.remember(index, stamp, &answer);
        answer
    }

    fn command(&mut self, index: u64, entry: &Entry) -> Result<Answer, Refusal> {
        let by = entry.request.as_ref().map(|stamp| &stamp.principal);
        if let Command::Found { cell, name, generation } = &entry.command {
            return self.found(cell, name, *generation);
        }
        let Some(cell) = &self.cell else {
            return Err(Refusal::invalid("the cell is not founded yet"));
        };
        let at = At { index, cell: cell.generation, ms: entry.at_ms, by };
        match &entry.command {
            // Only a cell without a founding entry comes to it, and that returned above.
            Command::Found { .. } => Ok(UNCHANGED),
            Command::Admit { node, name } => self.admit(&at, &Newcomer { node: *node, name, addr: None }),
            Command::Remove { node } => self.remove(*node),
            Command::Drain { node, on } => self.drain(*node, *on),
            Command::Label { node, labels } => self.label(*node, labels),
            Command::Address { node, addr } => self.address(*node, addr),
            Command::Token { hash, role, name, uses, ttl_ms } => {
                let (role, name, uses, ttl_ms) = (*role, name.as_deref(), *uses, *ttl_ms);
                self.token(&at, &NewToken { hash, role, name, uses, ttl_ms })
            }
            Command::Join { node, name, token_hash, addr } => {
                self.join(&at, &Newcomer { node: *node, name, addr: addr.as_deref() }, token_hash)
            }
            Command::Login { key_hash, token_hash } => self.login(&at, key_hash, token_hash),
            Command::Grant { principal, give, take } => self.grant(principal, give, take),
            Command::Set { lost_after_ms } => self.set(*lost_after_ms),
            Command::Activate { node } => self.activate(&at, *node),
            Command::Submit { job, document, images, expect } => {
                self.submit(&at, job, document, images, expect)
            }
            Command::Stop { job, index } => self.stop(&at, job, *index),
            Command::Restart { job, index } => self.restart(&at, job, *index),
            Command::Scale { job, count, expect } => self.scale(&at, job, *count, expect),
            Command::Complete { done } => Ok(self.complete(done)),
        }
    }

    fn found(&mut self, id: &CellId, name: &str, generation: u64) -> Result<Answer, Refusal> {
        let new = Cell { id: id.clone(), name: name.into(), generation };
        match &self.cell {
            Some(cell) if *cell == new => Ok(UNCHANGED),
            Some(cell) => {
                let hint = "a cell is founded once; use another data directory for another cell";
                Err(Refusal::conflict(format_args!("this is the cell {} already", cell.name), hint))
            }
            None => {
                self.cell = Some(new);
                Ok(CHANGED)
            }
        }
    }

    fn activate(&mut self, at: &At<'_>, node: NodeId) -> Result<Answer, Refusal> {
        if !self.roster.contains_key(&node) {
            let message = format_args!("the node {node} is not in the roster: it cannot be the placer");
            return Err(Refusal::new("not_found", message, None));
        }
        self.activation = Activation { cell: at.cell, index: at.index };
        self.placer = Some(node);
        Ok(CHANGED)
    }

    fn complete(&mut self, done: &[Completion]) -> Answer {
        let mut by_uid: BTreeMap<Uid, _> = self.jobs.values_mut().map(|job| (job.uid, job)).collect();
        let mut changed = false;
        for done in done {
            // Another uid: a job that is no more, or a later one that took its name (PROTOCOL 1).
            if let Some(job) = by_uid.get_mut(&done.uid) {
                changed |= Arc::make_mut(job).complete(done);
            }
        }
        if changed { CHANGED } else { UNCHANGED }
    }
}

pub(super) const CHANGED: Answer = Answer::Done { job: None, access: None, changed: true };
pub(super) const UNCHANGED: Answer = Answer::Done { job: None, access: None, changed: false };
