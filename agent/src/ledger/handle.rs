//! What the daemon sees of the ledger.

use std::{collections::BTreeSet, fmt, path::Path, sync::Arc};

use openraft::Raft;
use placement::{
    ids::NodeId,
    ledger::{Answer, Entry, Ledger},
    voters::{Seats, Silence, VoterStep},
};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::{
    Ask, Batch, CallError, Copy, CopyError, Daemon, DiskError, File, Since, StepError, Unreached, View,
    alone, answer, config,
    heard::{Heard, noted},
    keeper::{Keeper, Pulse, Request},
    network::Ways,
    seats, take,
};
use crate::clock;

/// Requests that may wait; beyond it proposers wait for a place.
const QUEUE: usize = 4096;
/// Bytes of one entry. A job's document is bounded far below; this guards the log itself.
const MAX_ENTRY: usize = 8 << 20;

/// What this node is to the ledger now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It leads: its proposals are taken. `start` counts the starts of the Raft core in this process: a core that had
    /// to be started again leads in the same term, and the daemon activates itself anew all the same (PROTOCOL 3).
    Leader { term: u64, start: u64 },
    /// Somebody else leads, or nobody yet.
    Follower { leader: Option<NodeId> },
    /// The disk failed; proposals are refused with the reason until it works again.
    Broken,
}

impl Role {
    pub fn is_leader(self) -> bool {
        matches!(self, Role::Leader { .. })
    }
}

/// Why an entry did not get into the ledger.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    /// Somebody else has to be asked.
    #[error("this node does not lead the ledger{}", leader.map(|id| format!("; node {id} does")).unwrap_or_default())]
    NotLeader { leader: Option<NodeId> },
    /// Most likely the entry is not in the ledger, but it may be: repeat it with the same request id.
    #[error("the ledger did not take the entry: {0}")]
    Disk(#[from] DiskError),
    /// The Raft core stopped for a reason that is not the disk's. As with `Disk`, repeat it with the same id.
    #[error("the ledger stopped: {why}; it is being started again")]
    Core { why: String },
    #[error("an entry of {size} bytes is too large for the ledger, the limit is {MAX_ENTRY}")]
    TooLarge { size: usize },
    #[error("the entry cannot be written as JSON: {0}")]
    Encode(Arc<serde_json::Error>),
    /// Shut down meanwhile. As with `Disk`, the entry may be in it or not.
    #[error("the ledger is shut down")]
    Closed,
}

/// The ledger, from outside. Clones are the same ledger; when the last is gone it stops, but only
/// [`LedgerHandle::shutdown`] waits for that.
#[derive(Clone)]
pub struct LedgerHandle {
    node: NodeId,
    requests: mpsc::Sender<Request>,
    view: Arc<View>,
    role: watch::Receiver<Role>,
    pulse: Arc<Pulse>,
    heard: Heard,
    core: watch::Receiver<Option<Raft<Daemon>>>,
    /// Of the one who is making a step.
    stepping: Arc<Semaphore>,
    stop: Arc<watch::Sender<bool>>,
}

impl fmt::Debug for LedgerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LedgerHandle").field("role", &*self.role.borrow()).finish_non_exhaustive()
    }
}

impl LedgerHandle {
    /// Opens `ledger.redb`, or makes an empty one. A sole voter leads again, with all of its log applied, when this
    /// returns. Takes tokio's current runtime.
    pub async fn open(path: &Path, node: NodeId) -> Result<LedgerHandle, ProposeError> {
        LedgerHandle::open_with(path, node, config(), alone()).await
    }

    /// As [`LedgerHandle::open`], with a way to the other voters.
    pub async fn open_among(path: &Path, node: NodeId, ask: Ask) -> Result<LedgerHandle, ProposeError> {
        LedgerHandle::open_with(path, node, config(), ask).await
    }

    pub(super) async fn open_with(
        path: &Path,
        node: NodeId,
        config: openraft::Config,
        ask: Ask,
    ) -> Result<LedgerHandle, ProposeError> {
        let config = config.validate().map_err(|e| ProposeError::Core { why: e.to_string() })?;
        let file = {
            let path = path.to_owned();
            tokio::task::spawn_blocking(move || File::open(&path, node))
                .await
                .map_err(|_| ProposeError::Closed)??
        };
        let (requests, queue) = mpsc::channel(QUEUE);
        let view = Arc::<View>::default();
        let pulse = Arc::<Pulse>::default();
        let (role, roles) = watch::channel(Role::Follower { leader: None });
        let (stop, stopped) = watch::channel(false);
        let heard = Heard::default();
        let noted = noted(ask, heard.clone(), || clock::now().mono_ms);
        let ways = Ways(unless_unheard(noted, pulse.clone()));
        let keeper = Keeper::start(file, node, config, view.clone(), pulse.clone(), role, ways).await?;
        let core = keeper.core();
        tokio::spawn(keeper.run(queue, stopped));
        let (stop, stepping) = (Arc::new(stop), Arc::new(Semaphore::new(1)));
        Ok(LedgerHandle { node, requests, view, role: roles, pulse, heard, core, stepping, stop })
    }

    /// Makes this node the sole voter of a new ledger and proposes its first entries. Doing it again does nothing if the
    /// ledger has its `Found` entry, and finishes what a crash interrupted if not.
    pub async fn found(&self, first: Vec<Entry>) -> Result<(), ProposeError> {
        if self.state().cell.is_some() {
            return Ok(());
        }
        let mut all = Batch::default();
        for entry in &first {
            all.append(encode(entry)?);
        }
        self.send(all, true).await.map(drop)
    }

    /// Commits one entry and tells what the state machine answered. It is on disk, on a majority of voters, when this
    /// returns. If the future is dropped, the entry may be committed all the same.
    pub async fn propose(&self, entry: &Entry) -> Result<Answer, ProposeError> {
        let mut answers = self.send(encode(entry)?, false).await?;
        answers.pop().ok_or_else(|| ProposeError::Core { why: "an entry without an answer".into() })
    }

    async fn send(&self, batch: Batch, found: bool) -> Result<Vec<Answer>, ProposeError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request { found, batch, reply }).await.map_err(|_| ProposeError::Closed)?;
        answer.await.map_err(|_| ProposeError::Closed)?
    }

    /// The ledger as applied on this node. A pointer; let go of it soon, since while it is held the next entry has to
    /// copy the ledger.
    pub fn state(&self) -> Arc<Ledger> {
        self.view.ledger()
    }

    /// The index of the last entry applied, each time it grows.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.view.applied()
    }

    /// What this node is to the ledger, each time it changes.
    pub fn role(&self) -> watch::Receiver<Role> {
        self.role.clone()
    }

    /// As leader: how long ago the heartbeats were answered that a majority answered last (PROTOCOL 6), by a clock that
    /// counts suspension. 0 for a sole voter; `None` if this node does not lead.
    pub fn millis_since_quorum_ack(&self) -> Option<u64> {
        self.role.borrow().is_leader().then(|| self.pulse.age())
    }

    /// Who votes, as applied on this node; while a change is half done, all who may.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.view.members().voter_ids().collect()
    }

    /// Whether this node is sent the log without a vote, as applied here.
    pub fn learns(&self) -> bool {
        self.view.members().membership().learner_ids().any(|id| id == self.node)
    }

    /// Who holds which part, for [`placement::voters::next_step`]: if this node leads, a majority answered just now, and
    /// no change is under way.
    pub fn seats(&self) -> Option<Seats> {
        let core = self.core.borrow();
        let metrics = core.as_ref()?.metrics();
        let metrics = metrics.borrow();
        seats(&metrics)
    }

    /// That a node does not answer this leader's calls, if that is so for long enough to count.
    pub fn silence(&self, node: NodeId) -> Option<Silence> {
        self.heard.silence(node, clock::now().mono_ms)
    }

    /// What a copy lacks that has all up to the entry `after`.
    pub fn since(&self, after: u64) -> Since {
        self.view.since(after)
    }

    /// Opens this node's copy of the ledger, for as long as it does not vote: [`LedgerHandle::state`] shows it where it
    /// is newer.
    pub async fn copy(&self, path: &Path) -> Result<Copy, CopyError> {
        let (path, view) = (path.to_owned(), self.view.clone());
        tokio::task::spawn_blocking(move || Copy::open(&path, view)).await.map_err(|_| CopyError::Broken)?
    }

    /// Makes one change of the seats and waits until it is committed. One at a time: a second is refused.
    pub async fn step(&self, step: VoterStep) -> Result<(), StepError> {
        let _alone = self.stepping.try_acquire().map_err(|_| StepError::Unsettled { step })?;
        let core = self.core.borrow().clone();
        take(&core.ok_or(StepError::Closed)?, step).await
    }

    /// Gives up leading, and does not ask to lead, while `on`: another voter is elected, if there is one.
    pub fn stand_down(&self, on: bool) {
        if let Some(core) = self.core.borrow().as_ref() {
            core.runtime_config().elect(!on);
            core.runtime_config().heartbeat(!on);
        }
    }

    /// Answers what another voter asked by its [`Ask`]; from whom it came has to be sure already.
    pub async fn answer(&self, call: &[u8]) -> Result<Vec<u8>, CallError> {
        self.pulse.called();
        let core = self.core.borrow().clone();
        answer(&core.ok_or(CallError::Closed)?, call).await
    }

    /// Asks to lead, when nobody does, only while `on`: a voter that hears no majority could not lead, and by asking would
    /// keep others from it.
    pub fn stand(&self, on: bool) {
        if let Some(core) = self.core.borrow().as_ref() {
            core.runtime_config().elect(on);
        }
    }

    /// Ends what is under way, closes the file and waits for both. Proposals that wait are refused.
    pub async fn shutdown(&self) {
        self.stop.send_replace(true);
        self.requests.closed().await;
    }
}

/// What a leader that hears nobody has to say does not get out.
fn unless_unheard(ask: Ask, pulse: Arc<Pulse>) -> Ask {
    Arc::new(move |node, call| {
        if pulse.unheard() {
            let why = "this node hears no majority, and lets the others elect another leader".into();
            return Box::pin(std::future::ready(Err(Unreached { node, why })));
        }
        ask(node, call)
    })
}

fn encode(entry: &Entry) -> Result<Batch, ProposeError> {
    let batch = Batch::one(entry).map_err(|e| ProposeError::Encode(Arc::new(e)))?;
    let size = batch.size();
    if size > MAX_ENTRY { Err(ProposeError::TooLarge { size }) } else { Ok(batch) }
}
