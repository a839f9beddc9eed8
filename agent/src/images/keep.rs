//! Looks after what was loaded: enough copies of it, and no name that was given to another image meanwhile.
//!
//! Nobody is in charge of an image: each node that has it looks whether enough others do, and of those that do, the one
//! with the lowest id acts. If two think that they are it, there is a copy more than needed.

use std::collections::{BTreeMap, BTreeSet};

use gossip::wire::image::{ImageName, ImageQuestion, ImageTold};
use oci::reference::Reference;
use placement::{ids::NodeId, ledger::Refusal};
use tokio::{sync::mpsc, time::sleep};

use super::{Images, copies::COPIES};

/// What others had when they were last asked.
type Known = BTreeMap<NodeId, Vec<ImageName>>;

/// Looks each minute, and soon after others have come or gone. For as long as the agent runs.
pub async fn keep(images: Images) {
    let mut members = images.0.cell.peers.watch();
    let mut known = Known::new();
    let mut seen = BTreeSet::new();
    loop {
        let here: BTreeSet<NodeId> = members.borrow_and_update().keys().copied().collect();
        known.retain(|node, _| here.contains(node));
        let new: Vec<NodeId> = here.difference(&seen).copied().collect();
        seen = here;
        images.give_credentials(new.clone()).await;
        if let Err(refusal) = images.look(&mut known, new).await {
            tracing::warn!("cannot look after the images' copies: {refusal}");
        }
        tokio::select! {
            () = sleep(images.0.pace.keep) => {}
            changed = members.changed() => match changed {
                // Many come and go at once: let them.
                Ok(()) => sleep(images.0.pace.keep / 12).await,
                Err(_) => return,
            }
        }
    }
}

/// The same image under the same name.
fn same(a: &ImageName, b: &ImageName) -> bool {
    a.reference == b.reference && a.digest == b.digest
}

/// Whether `a` gave the name of `b` to another image, later.
fn newer(a: &ImageName, b: &ImageName) -> bool {
    let order = |name: &ImageName| (name.set_ms, name.digest.clone());
    a.reference == b.reference && a.digest != b.digest && !a.made && order(a) > order(b)
}

impl Images {
    async fn look(&self, known: &mut Known, new: Vec<NodeId>) -> Result<(), Refusal> {
        let own: Vec<ImageName> = self.names_here(None).await?.into_iter().filter(|n| !n.made).collect();
        if own.is_empty() {
            return Ok(());
        }
        let holds = |names: &Vec<ImageName>| names.iter().any(|theirs| own.iter().any(|n| same(n, theirs)));
        let holding = known.iter().filter(|(_, names)| holds(names)).map(|(node, _)| *node);
        let ask: BTreeSet<NodeId> = new.into_iter().chain(holding).collect();
        self.refresh(known, ask.into_iter().collect()).await;
        let mut kept = Vec::new();
        for name in own {
            match known.values().flatten().find(|theirs| newer(theirs, &name)) {
                Some(theirs) => drop(self.supersede(&theirs.clone())?),
                None => kept.push(name),
            }
        }
        if kept.iter().any(|name| self.is_short(known, name)) {
            self.refresh(known, self.others()).await;
        }
        for name in &kept {
            if self.is_short(known, name) {
                self.have_copied(known, name).await;
            }
        }
        Ok(())
    }

    /// Asks anew. Who does not answer counts as having nothing.
    async fn refresh(&self, known: &mut Known, nodes: Vec<NodeId>) {
        for node in &nodes {
            known.remove(node);
        }
        for (node, answer) in self.ask_each(nodes, ImageQuestion::Names { reference: None }).await {
            if let Ok(ImageTold::Names { names }) = answer {
                known.insert(node, names);
            }
        }
    }

    /// All that have it, this node among them.
    fn holders(&self, known: &Known, name: &ImageName) -> BTreeSet<NodeId> {
        let others = known.iter().filter(|(_, names)| names.iter().any(|theirs| same(name, theirs)));
        others.map(|(node, _)| *node).chain([self.0.cell.me()]).collect()
    }

    fn is_short(&self, known: &Known, name: &ImageName) -> bool {
        self.holders(known, name).len() < COPIES.min(1 + self.others().len())
    }

    /// Has others copy it, if this is for this node to do.
    async fn have_copied(&self, known: &mut Known, name: &ImageName) {
        let mut holders = self.holders(known, name);
        if holders.first() != Some(&self.0.cell.me()) {
            return;
        }
        let mut failed = BTreeMap::new();
        // Nobody watches the steps.
        let (tell, _) = mpsc::channel(1);
        while holders.len() < COPIES
            && let Some(node) = self.next_keeper(&name.digest, &holders, &failed)
        {
            match self.copy_to(node, name, &tell).await {
                Ok(()) => {
                    holders.insert(node);
                    known.entry(node).or_default().push(name.clone());
                    let text = format!("{} has another copy, on {}", name.reference, self.name(node));
                    self.0.journal.node("image_kept", text);
                }
                Err(why) => {
                    tracing::warn!("{} keeps no copy of {}: {why}", self.name(node), name.reference);
                    failed.insert(node, why);
                }
            }
        }
    }

    /// The name was given to another image, later: what it stood for here goes. Its content stays until it is collected.
    pub(super) fn supersede(&self, name: &ImageName) -> Result<bool, Refusal> {
        let invalid = |error: &dyn std::fmt::Display| Refusal::new("invalid", error, None);
        let reference: Reference = name.reference.parse().map_err(|e| invalid(&e))?;
        let here = self.0.store.named(&reference).map_err(|e| invalid(&e))?;
        let older = here.filter(|here| {
            let digest = here.digest.to_string();
            !here.made && digest != name.digest && (here.set_ms, &digest) < (name.set_ms, &name.digest)
        });
        let Some(older) = older else { return Ok(false) };
        self.0.store.remove(&reference).map_err(|e| invalid(&e))?;
        let text = format!("{reference} stands for {} now, no longer for {}", name.digest, older.digest);
        self.0.journal.node("image_superseded", text);
        Ok(true)
    }
}
