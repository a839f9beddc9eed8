//! What the node learns of its tasks' needs, kept on disk: each minute, and at the agent's end.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::{
    core::{Core, Estimates},
    daemon::inbox::NodeHandle,
    estimate::{Learned, Settings},
    journal::Journal,
    store::Store,
};

/// What was learned since is lost with an agent that is killed.
const EVERY: Duration = Duration::from_secs(60);
/// An agent that ends does not wait longer for the disk.
const PATIENCE: Duration = Duration::from_secs(2);

/// What an earlier agent has left, to go on from. Of no use, it is said why, and all begins anew: tasks count with their
/// limits at first.
pub(crate) fn read(
    settings: Option<Settings>,
    kept: Option<Vec<u8>>,
    warnings: &mut Vec<String>,
) -> Option<Estimates> {
    let settings = settings?;
    let learned = kept.and_then(|bytes| match Learned::read(&bytes) {
        Ok(learned) => Some(learned),
        Err(why) => {
            warnings.push(format!(
                "what this node had learned of its tasks' needs cannot be read: {why}. They count with their limits until \
                 it knows them again"
            ));
            None
        }
    });
    Some(Estimates { settings, learned })
}

/// Until the node's loop ends, or if there is nothing to keep.
pub(crate) async fn keep(node: NodeHandle, store: Store, journal: Journal) {
    let mut trouble = None;
    loop {
        sleep(EVERY).await;
        let Some(Some(learned)) = node.read(Core::learned).await else { return };
        let result = store.learned(learned).await.err();
        if let Some(why) = result.as_ref().filter(|_| trouble.is_none()) {
            journal.warn(format!(
                "what this node learns of its tasks' needs cannot be kept: {why}; it tries again each minute"
            ));
        }
        trouble = result;
    }
}

/// The agent ends.
pub(crate) async fn keep_now(node: &NodeHandle, store: &Store) {
    let write = async {
        if let Some(Some(learned)) = node.read(Core::learned).await {
            let _ = store.learned(learned).await;
        }
    };
    let _ = timeout(PATIENCE, write).await;
}
