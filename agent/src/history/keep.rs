//! What a node remembers of its jobs, kept on disk: each few minutes, and at the agent's end.

use std::{collections::BTreeMap, time::Duration};

use placement::ids::JobKey;
use tokio::time::{sleep, timeout};

use super::{History, JobHistory};
use crate::{core::Core, daemon::inbox::NodeHandle, journal::Journal, store::Store};

/// What came since is lost with an agent that is killed.
const EVERY: Duration = Duration::from_secs(300);
/// An agent that ends does not wait longer for the disk.
const PATIENCE: Duration = Duration::from_secs(2);

/// As it was written; what cannot be read is left out, and begins anew.
pub(crate) fn read(
    kept: Vec<(String, Vec<u8>)>,
    endings: Option<Vec<u8>>,
    warnings: &mut Vec<String>,
) -> History {
    let mut jobs = BTreeMap::new();
    for (name, bytes) in kept {
        let Some((owner, job)) = name.split_once('/') else { continue };
        match serde_json::from_slice(&bytes) {
            Ok(history) => drop(jobs.insert(JobKey { owner: owner.into(), name: job.into() }, history)),
            Err(why) => warnings.push(format!(
                "what this node remembers of job {name} cannot be read and is forgotten: {why}"
            )),
        }
    }
    let endings = endings.map(|bytes| serde_json::from_slice(&bytes)).transpose().unwrap_or_else(|why| {
        warnings.push(format!("what ended tasks here cannot be read and is forgotten: {why}"));
        None
    });
    History { jobs, endings: endings.unwrap_or_default(), ..History::default() }
}

/// By job, and what ended tasks.
fn written(core: &Core) -> (BTreeMap<String, Vec<u8>>, Vec<u8>) {
    let history = core.remembers();
    let one = |(job, history): (&JobKey, &JobHistory)| {
        let bytes = serde_json::to_vec(history).ok()?;
        Some((job.to_string(), bytes))
    };
    (history.jobs.iter().filter_map(one).collect(), serde_json::to_vec(&history.endings).unwrap_or_default())
}

/// Until the node's loop ends.
pub(crate) async fn keep(node: NodeHandle, store: Store, journal: Journal) {
    let mut trouble = None;
    loop {
        sleep(EVERY).await;
        let Some((jobs, endings)) = node.read(written).await else { return };
        let result = store.history(jobs, endings).await.err();
        if let Some(why) = result.as_ref().filter(|_| trouble.is_none()) {
            journal
                .warn(format!("what this node remembers of its jobs cannot be kept: {why}; it tries again"));
        }
        trouble = result;
    }
}

/// The agent ends.
pub(crate) async fn keep_now(node: &NodeHandle, store: &Store) {
    let write = async {
        if let Some((jobs, endings)) = node.read(written).await {
            let _ = store.history(jobs, endings).await;
        }
    };
    let _ = timeout(PATIENCE, write).await;
}
