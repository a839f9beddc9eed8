//! Names of images: on one node each, and merged over the cell. Of two that differ the newer counts.

use std::{collections::BTreeMap, str::FromStr};

use gossip::wire::image::{ImageName, ImageQuestion, ImageTold};
use oci::{content::Named, digest::Digest, reference::Reference};
use placement::{ids::NodeId, ledger::Refusal};
use tokio::task::spawn_blocking;

use super::{Images, ask::NoAnswer, listed, pulled::FILE};

/// A name in the cell, and who has the image whole under that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellName {
    pub name: ImageName,
    pub nodes: Vec<NodeId>,
}

/// All that is known of names.
pub struct CellNames {
    /// Ordered by reference.
    pub names: Vec<CellName>,
    /// Names of the nodes that did not answer.
    pub missing: Vec<String>,
}

pub struct Removed {
    pub digest: String,
    /// Names of the nodes that removed it, and of those that did not answer.
    pub nodes: Vec<String>,
    pub missing: Vec<String>,
}

fn invalid(error: impl std::fmt::Display) -> Refusal {
    Refusal::new("invalid", error, None)
}

fn not_found(message: impl std::fmt::Display, hint: &str) -> Refusal {
    Refusal::new("not_found", message, Some(hint))
}

fn broke_off<T>(_: T) -> Refusal {
    invalid("the agent is ending")
}

impl Images {
    /// The digest that a reference means: by this node's own names, or else the newest of the others', or else by the
    /// registry that it leads to; or by the file that it names.
    pub async fn resolve(&self, text: &str) -> Result<Digest, Refusal> {
        if text.starts_with(FILE) {
            return self.of_file(text).await;
        }
        let refusal = match self.resolve_in_cell(text).await {
            Ok(digest) => {
                // It is not collected before the job is known that wants it.
                self.0.store.touch(&digest);
                return Ok(digest);
            }
            Err(refusal) => refusal,
        };
        let reference = self.0.registries.reference(text).filter(|_| refusal.code == "not_found");
        let Some(reference) = reference else { return Err(refusal) };
        let begun = std::time::Instant::now();
        self.0.registries.forgive();
        match self.0.registries.resolve(&reference).await {
            Ok(digest) => {
                let (from, ms) = (self.registry_name(&reference), begun.elapsed().as_millis());
                let text = format!("{reference} is {digest} at {from}, which said so in {ms} ms");
                self.0.journal.node("image_resolved", text);
                Ok(digest)
            }
            Err(error) => {
                let code = match error.code() {
                    "unreachable" => "not_found",
                    code => code,
                };
                Err(Refusal::new(code, format!("{}; {error}", refusal.message), refusal.hint.as_deref()))
            }
        }
    }

    async fn resolve_in_cell(&self, text: &str) -> Result<Digest, Refusal> {
        let reference = Reference::from_str(text).map_err(invalid)?;
        let hint = format!("load it on any node: covey image load FILE --name {text}");
        if let Some(digest) = reference.digest() {
            let digest = *digest;
            if self.0.store.size_of(&digest).is_some() {
                return Ok(digest);
            }
            let holders = self.who_has(&[digest]).await;
            let asked = Asked { heard: self.names(holders.asked), silent: self.names(holders.silent) };
            return match holders.of.contains_key(&digest) {
                true => Ok(digest),
                false => Err(not_found(format_args!("no node has {digest}{asked}"), &hint)),
            };
        }
        let here = self.0.store.named(&reference).map_err(invalid)?;
        if let Some(named) = here {
            return Ok(named.digest);
        }
        let question = ImageQuestion::Names { reference: Some(reference.to_string()) };
        let answers = self.ask_each(self.others(), question).await;
        let (names, asked) = self.sorted(&answers);
        match names.iter().max_by_key(|(_, name)| (name.set_ms, &name.digest)) {
            Some((_, newest)) => newest.digest.parse().map_err(invalid),
            None => Err(not_found(format_args!("no node has an image named {reference}{asked}"), &hint)),
        }
    }

    /// All names of all nodes that answer.
    pub async fn list(&self) -> Result<CellNames, Refusal> {
        let here = self.names_here(None).await?;
        let answers = self.ask_each(self.others(), ImageQuestion::Names { reference: None }).await;
        let (names, asked) = self.sorted(&answers);
        let me = self.0.cell.me();
        let mut merged = BTreeMap::<(String, String), CellName>::new();
        let mine = here.into_iter().map(|name| (me, name));
        for (node, name) in mine.chain(names.into_iter().map(|(node, name)| (node, name.clone()))) {
            let key = (name.reference.clone(), name.digest.clone());
            let row = merged.entry(key).or_insert_with(|| CellName { name: name.clone(), nodes: Vec::new() });
            row.name.set_ms = row.name.set_ms.max(name.set_ms);
            row.nodes.push(node);
        }
        Ok(CellNames { names: merged.into_values().collect(), missing: asked.silent })
    }

    /// Takes the name away on all nodes that answer, and there what nobody needs of its content.
    pub async fn remove(&self, text: &str) -> Result<Removed, Refusal> {
        let reference = Reference::from_str(text).map_err(invalid)?;
        let (asked_for, others) = (reference.to_string(), self.others());
        let known = ImageQuestion::Names { reference: Some(asked_for.clone()) };
        let answers = self.ask_each(others, known).await;
        let (names, mut asked) = self.sorted(&answers);
        let theirs = names.iter().max_by_key(|(_, name)| name.set_ms).map(|(_, name)| name.digest.clone());
        let having: Vec<NodeId> = names.iter().map(|(node, _)| *node).collect();
        let mine = self.remove_here(text).await?;
        let removals = self.ask_each(having, ImageQuestion::Remove { reference: asked_for }).await;
        let mut nodes = Vec::new();
        for (node, removal) in removals {
            match removal {
                Ok(ImageTold::Changed { changed: true }) => nodes.push(self.name(node)),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!("image {text} may still be on {}: {error}", self.name(node));
                    asked.silent.push(self.name(node));
                }
            }
        }
        nodes.extend(mine.is_some().then(|| self.name(self.0.cell.me())));
        nodes.sort();
        match mine.or(theirs) {
            Some(digest) if !nodes.is_empty() => Ok(Removed { digest, nodes, missing: asked.silent }),
            _ => {
                let message = format!("no node has an image named {reference}{asked}");
                Err(not_found(message, "covey image ls shows what there is"))
            }
        }
    }

    /// A name of this node's, as the others are told of it.
    pub fn told(&self, reference: &Reference) -> Result<Option<ImageName>, oci::content::Error> {
        Ok(self.0.store.named(reference)?.map(|named| told(&self.0.store, named)))
    }

    /// Takes the name away on this node, if it is here; what it stood for.
    pub(super) async fn remove_here(&self, text: &str) -> Result<Option<String>, Refusal> {
        let reference = Reference::from_str(text).map_err(invalid)?;
        let named = self.0.store.named(&reference).map_err(invalid)?;
        let meant = |named: &Named| reference.digest().is_none_or(|digest| *digest == named.digest);
        let Some(named) = named.filter(meant) else { return Ok(None) };
        let in_use = self.in_use().await?;
        let store = self.0.store.clone();
        let removed = spawn_blocking(move || {
            store.remove(&reference)?;
            store.collect(&in_use)
        });
        removed.await.map_err(broke_off)?.map_err(invalid)?;
        let digest = named.digest.to_string();
        self.0.journal.node("image_removed", format!("removed {} ({digest})", named.reference));
        self.touch();
        Ok(Some(digest))
    }

    /// What tasks here use, and what any job wants to run.
    pub(super) async fn in_use(&self) -> Result<Vec<Digest>, Refusal> {
        let reports = self.0.node.read(|core| core.reports()).await.ok_or_else(|| broke_off(()))?;
        let mut used: Vec<String> = reports.into_iter().map(|report| report.digest).collect();
        let ledger = self.0.cell.state();
        let wanted = ledger.jobs.values().filter(|job| !job.is_ended());
        used.extend(wanted.flat_map(|job| job.images.values().cloned()));
        Ok(used.iter().filter_map(|digest| digest.parse().ok()).collect())
    }

    /// The names here, or the one.
    pub(super) async fn names_here(&self, reference: Option<String>) -> Result<Vec<ImageName>, Refusal> {
        let only = reference.map(|text| Reference::from_str(&text).map_err(invalid)).transpose()?;
        let store = self.0.store.clone();
        let listing = spawn_blocking(move || {
            let named = match only {
                Some(only) => store.named(&only)?.into_iter().collect(),
                None => {
                    let listing = store.list()?;
                    for error in &listing.unreadable {
                        tracing::warn!("an image's name cannot be read: {error}");
                    }
                    listing.names
                }
            };
            let whole = named.into_iter().filter(|n| store.missing(&n.digest).is_ok_and(|m| m.is_empty()));
            Ok::<_, oci::content::Error>(whole.map(|named| told(&store, named)).collect())
        });
        listing.await.map_err(broke_off)?.map_err(invalid)
    }

    pub(super) async fn names_told(&self, reference: Option<String>) -> Result<ImageTold, Refusal> {
        Ok(ImageTold::Names { names: self.names_here(reference).await? })
    }

    /// The names that were answered, and by whom; who answered and who did not.
    fn sorted<'a>(
        &self,
        answers: &'a BTreeMap<NodeId, Result<ImageTold, NoAnswer>>,
    ) -> (Vec<(NodeId, &'a ImageName)>, Asked) {
        let (mut all, mut heard, mut silent) = (Vec::new(), Vec::new(), Vec::new());
        for (node, answer) in answers {
            match answer {
                Ok(ImageTold::Names { names }) => {
                    heard.push(*node);
                    all.extend(names.iter().map(|name| (*node, name)));
                }
                Ok(_) => silent.push(*node),
                Err(error) => {
                    tracing::debug!("names of images: {error}");
                    silent.push(*node);
                }
            }
        }
        (all, Asked { heard: self.names(heard), silent: self.names(silent) })
    }
}

fn told(store: &oci::content::Store, named: Named) -> ImageName {
    let image = store.image(&named.digest).ok();
    ImageName {
        reference: named.reference.to_string(),
        digest: named.digest.to_string(),
        set_ms: named.set_ms,
        made: named.made,
        size_bytes: image.as_ref().map(|image| image.size),
        layers: image.as_ref().map(|image| image.layers.len()),
    }
}

/// Whom a question went to, by name.
struct Asked {
    heard: Vec<String>,
    silent: Vec<String>,
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.heard.as_slice() {
            [] => write!(f, ": this node has none")?,
            heard => write!(f, ": neither this one nor {}", listed(heard))?,
        }
        match self.silent.as_slice() {
            [] => Ok(()),
            silent => write!(f, "; {} did not answer", listed(silent)),
        }
    }
}
