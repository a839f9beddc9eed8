//! Copies of what was loaded: made by others at this node's word, and by this node at theirs.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use gossip::wire::{
    ask::{Question, Told},
    image::{ImageName, ImageQuestion, ImageTold},
};
use oci::{digest::Digest, reference::Reference};
use placement::{ids::NodeId, ledger::Refusal};
use tokio::{
    sync::mpsc,
    task::{JoinSet, spawn_blocking},
    time::timeout,
};

use super::{Images, Phase, locked};

/// Nodes that keep what was loaded, if there are so many.
pub(super) const COPIES: usize = 3;
/// A copier that says nothing for so long is given up. It says something several times a second.
const SILENCE: Duration = Duration::from_secs(10);
/// Of a node: two copies in one rack are lost together.
const RACK: &str = "rack";

/// What came of a load.
pub struct Kept {
    pub name: ImageName,
    /// Names of the nodes that have it now.
    pub nodes: Vec<String>,
    /// Why there are not more, if there should be.
    pub trouble: Vec<String>,
}

/// A step of a copy: who copies, and how far he has got.
pub type Step = (NodeId, u64, u64);

impl Images {
    /// Tells all others of what was just loaded here, and has some of them copy it. Each step is told, if somebody waits
    /// for it.
    pub async fn spread(&self, name: ImageName, tell: mpsc::Sender<Step>) -> Kept {
        self.touch();
        let news = ImageQuestion::Loaded { name: name.clone() };
        for (node, answer) in self.ask_each(self.others(), news).await {
            if let Err(error) = answer {
                tracing::info!(
                    "{} has not heard that {} was loaded: {error}",
                    self.name(node),
                    name.reference
                );
            }
        }
        let mut taken = BTreeSet::from([self.0.cell.me()]);
        let mut failed = BTreeMap::new();
        let mut copying = JoinSet::new();
        loop {
            while taken.len() < COPIES
                && let Some(node) = self.next_keeper(&name.digest, &taken, &failed)
            {
                taken.insert(node);
                let (images, name, tell) = (self.clone(), name.clone(), tell.clone());
                copying.spawn(async move { (node, images.copy_to(node, &name, &tell).await) });
            }
            match copying.join_next().await {
                Some(Ok((_, Ok(())))) | Some(Err(_)) => {}
                Some(Ok((node, Err(why)))) => {
                    taken.remove(&node);
                    tracing::warn!("{} keeps no copy of {}: {why}", self.name(node), name.reference);
                    failed.insert(node, why);
                }
                None => break,
            }
        }
        let trouble = match taken.len() < COPIES {
            true => failed.iter().map(|(node, why)| format!("{}: {why}", self.name(*node))).collect(),
            false => Vec::new(),
        };
        Kept { name, nodes: self.names(taken), trouble }
    }

    /// Who should copy next: where fewest copies are in the same rack, and of these each image has its own order.
    pub(super) fn next_keeper(
        &self,
        image: &str,
        taken: &BTreeSet<NodeId>,
        failed: &BTreeMap<NodeId, String>,
    ) -> Option<NodeId> {
        let ledger = self.0.cell.state();
        let rack = |node: &NodeId| ledger.roster.get(node).and_then(|member| member.labels.get(RACK));
        let crowd = |node: &NodeId| match rack(node) {
            Some(here) => taken.iter().filter(|other| rack(other) == Some(here)).count(),
            None => 0,
        };
        let order = |node: &NodeId| Digest::of(format!("{image} {node}").as_bytes());
        let able = self.others().into_iter().filter(|n| !taken.contains(n) && !failed.contains_key(n));
        able.min_by_key(|node| (crowd(node), order(node)))
    }

    /// Has another node copy it from whoever has it.
    pub(super) async fn copy_to(
        &self,
        node: NodeId,
        name: &ImageName,
        tell: &mpsc::Sender<Step>,
    ) -> Result<(), String> {
        let question = Question::Image(ImageQuestion::Copy { name: name.clone() });
        let silent = |_| format!("said nothing for {} s", SILENCE.as_secs());
        let begun = timeout(SILENCE, self.0.cell.peers.begin(node, &question)).await.map_err(silent)?;
        let mut answers = begun.map_err(|error| error.to_string())?;
        loop {
            let told = timeout(SILENCE, answers.next()).await.map_err(silent)?;
            match told.map_err(|error| error.to_string())? {
                Told::Image(ImageTold::Copying { done, total }) => drop(tell.try_send((node, done, total))),
                Told::Image(ImageTold::Changed { .. }) => return Ok(()),
                _ => return Err("answered another question".into()),
            }
        }
    }

    /// Keeps a copy here, at another's word: fetched, unpacked, named. Whether the name is new.
    pub(super) async fn copy(&self, name: &ImageName) -> Result<bool, Refusal> {
        let invalid = |error: &dyn std::fmt::Display| Refusal::new("invalid", error, None);
        let digest: Digest = name.digest.parse().map_err(|e| invalid(&e))?;
        let reference: Reference = name.reference.parse().map_err(|e| invalid(&e))?;
        let mut phase = self.fetch(&name.reference, digest);
        let fetched = loop {
            match &*phase.borrow_and_update() {
                Phase::Done(fetched) => break fetched.clone(),
                // Whoever wants the copy finds another place for it.
                Phase::Waiting(error) | Phase::Failed(error) => return Err(invalid(error)),
                Phase::Asking | Phase::Fetching(_) => {}
            }
            if phase.changed().await.is_err() {
                return Err(invalid(&"the agent is ending"));
            }
        };
        let (store, set_ms) = (self.0.store.clone(), name.set_ms);
        let kept = spawn_blocking(move || {
            store.ensure_unpacked(&digest)?;
            let known = store.named(&reference)?.is_some_and(|named| named.digest == digest);
            Ok::<_, oci::content::Error>(store.set_name_at(&reference, &digest, set_ms)? && !known)
        });
        let new = kept.await.map_err(|_| invalid(&"the agent is ending"))?.map_err(|e| invalid(&e))?;
        // Until here the content was held by the fetch.
        drop(phase);
        if new {
            let from = super::listed(&fetched.from);
            let text = match fetched.bytes {
                0 => format!("keeps a copy of {} ({digest}), which was here", name.reference),
                n => {
                    format!("keeps a copy of {} ({digest}): {} from {from}", name.reference, super::bytes(n))
                }
            };
            self.0.journal.node("image_copied", text);
            self.touch();
        }
        Ok(new)
    }

    /// How far a fetch has got: for whoever waits for a copy.
    pub(super) fn moving(&self, digest: &str) -> (u64, u64) {
        let flight = digest.parse().ok().and_then(|digest| locked(&self.0.flights).get(&digest).cloned());
        match flight.map(|phase| phase.borrow().clone()) {
            Some(Phase::Fetching(moving)) => (moving.done, moving.total),
            _ => (0, 0),
        }
    }
}
