//! Questions to several nodes at once.

use std::{collections::BTreeMap, time::Duration};

use gossip::wire::{
    ask::{Question, Told},
    image::{ImageQuestion, ImageTold},
};
use oci::digest::Digest;
use placement::ids::NodeId;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::Images;
use crate::{cell::Cell, peers::AskError};

/// Nodes that are asked at once.
const AT_ONCE: usize = 16;
/// Once all that is needed is known, others' answers are waited for so long: more to choose from.
const MOMENT: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("node {0} answered another question")]
    Strange(NodeId),
}

/// Who has what.
#[derive(Debug, Default)]
pub(super) struct Holders {
    pub(super) of: BTreeMap<Digest, Vec<NodeId>>,
    /// Who answered, and who did not.
    pub(super) asked: Vec<NodeId>,
    pub(super) silent: Vec<NodeId>,
}

impl Holders {
    fn know_all(&self, digests: &[Digest]) -> bool {
        digests.iter().all(|digest| self.of.contains_key(digest))
    }
}

pub(super) async fn ask(
    cell: &Cell,
    node: NodeId,
    question: &ImageQuestion,
    patience: Duration,
) -> Result<ImageTold, NoAnswer> {
    let question = Question::Image(question.clone());
    match cell.peers.ask_within(node, &question, patience).await? {
        Told::Image(told) => Ok(told),
        _ => Err(NoAnswer::Strange(node)),
    }
}

impl Images {
    /// All others that are here.
    pub(super) fn others(&self) -> Vec<NodeId> {
        self.0.cell.peers.members().into_keys().collect()
    }

    /// What each of the nodes answers.
    pub(super) async fn ask_each(
        &self,
        nodes: Vec<NodeId>,
        question: ImageQuestion,
    ) -> BTreeMap<NodeId, Result<ImageTold, NoAnswer>> {
        let mut answers = BTreeMap::new();
        let mut nodes = nodes.into_iter();
        let mut asking = JoinSet::new();
        loop {
            while asking.len() < AT_ONCE
                && let Some(node) = nodes.next()
            {
                let (cell, question, patience) = (self.0.cell.clone(), question.clone(), self.0.pace.answer);
                asking.spawn(async move { (node, ask(&cell, node, &question, patience).await) });
            }
            match asking.join_next().await {
                Some(Ok((node, answer))) => drop(answers.insert(node, answer)),
                // It was aborted with the runtime: as good as silent.
                Some(Err(_)) => {}
                None => return answers,
            }
        }
    }

    /// Who has these blobs. Of many nodes not all are asked, once each blob is known to be somewhere.
    pub(super) async fn who_has(&self, digests: &[Digest]) -> Holders {
        let mut holders = Holders::default();
        let question = ImageQuestion::Have { digests: digests.iter().map(ToString::to_string).collect() };
        let mut nodes = self.others();
        // Different nodes begin at different places, so that not all ask the same first.
        let first = nodes.partition_point(|node| *node < self.0.cell.me());
        nodes.rotate_left(first);
        let mut nodes = nodes.into_iter();
        let mut asking = JoinSet::new();
        let mut enough: Option<Instant> = None;
        loop {
            while enough.is_none()
                && asking.len() < AT_ONCE
                && let Some(node) = nodes.next()
            {
                let (cell, question, patience) = (self.0.cell.clone(), question.clone(), self.0.pace.answer);
                asking.spawn(async move { (node, ask(&cell, node, &question, patience).await) });
            }
            let until = enough.unwrap_or_else(|| Instant::now() + self.0.pace.answer * 2);
            let answered = tokio::select! {
                answered = asking.join_next() => answered,
                () = sleep_until(until), if enough.is_some() => None,
            };
            match answered {
                None => return holders,
                Some(Ok((node, Ok(ImageTold::Held { blobs, .. })))) => {
                    holders.asked.push(node);
                    for digest in blobs.iter().filter_map(|blob| blob.digest.parse().ok()) {
                        holders.of.entry(digest).or_default().push(node);
                    }
                }
                Some(Ok((node, Ok(_)))) => holders.silent.push(node),
                Some(Ok((node, Err(error)))) => {
                    tracing::debug!("who has an image: {error}");
                    holders.silent.push(node);
                }
                Some(Err(_)) => {}
            }
            if enough.is_none() && holders.know_all(digests) {
                enough = Some(Instant::now() + MOMENT);
            }
        }
    }
}
