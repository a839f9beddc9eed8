//! Runs behind the handle: owns the Raft core, gathers proposals into batches, and starts the core anew when the disk
//! failed, since openraft stops for good at the first failed write.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};
use openraft::{
    Config, EmptyNode, LogIdOptionExt, Raft, RaftMetrics, ServerState,
    error::{ClientWriteError, Fatal, RaftError},
};
use placement::{ids::NodeId, ledger::Answer};
use tokio::{
    select,
    sync::{mpsc, oneshot, watch},
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep},
};

use super::{Batch, Daemon, File, Log, Machine, ProposeError, Role, View, network::Ways};

/// A batch takes no more entries, nor bytes, than this (but always one request).
const BATCH_ENTRIES: usize = 1024;
const BATCH_BYTES: usize = 1 << 20;
/// How long a failed disk is left alone.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Entries to commit together.
#[derive(Debug)]
pub(super) struct Request {
    /// Become the sole voter first, if nobody votes yet.
    pub found: bool,
    pub batch: Batch,
    pub reply: oneshot::Sender<Result<Vec<Answer>, ProposeError>>,
}

type Metrics = RaftMetrics<NodeId, EmptyNode>;

/// The Raft core, and all that starting it takes.
pub(super) struct Keeper {
    file: File,
    node: NodeId,
    config: Arc<Config>,
    view: Arc<View>,
    pulse: Arc<Pulse>,
    role: Arc<watch::Sender<Role>>,
    ways: Ways,
    raft: Raft<Daemon>,
    core: watch::Sender<Option<Raft<Daemon>>>,
    starts: u64,
    started: Instant,
    /// Tells the role of this core.
    teller: JoinHandle<()>,
}

/// Why the keeper stopped serving.
enum End {
    Stopped,
    Failed(ProposeError),
}

impl Keeper {
    pub(super) async fn start(
        file: File,
        node: NodeId,
        config: Config,
        view: Arc<View>,
        pulse: Arc<Pulse>,
        role: watch::Sender<Role>,
        ways: Ways,
    ) -> Result<Keeper, ProposeError> {
        let config = Arc::new(config);
        let raft = start_core(&file, node, config.clone(), &view, &ways).await?;
        let core = watch::Sender::new(Some(raft.clone()));
        let role = Arc::new(role);
        let teller = follow(&raft, role.clone(), pulse.clone(), 1);
        let started = Instant::now();
        Ok(Keeper { file, node, config, view, pulse, role, ways, raft, core, starts: 1, started, teller })
    }

    /// The core, each time it is another; none while it is broken.
    pub(super) fn core(&self) -> watch::Receiver<Option<Raft<Daemon>>> {
        self.core.subscribe()
    }

    /// Until stopped, or until all handles are gone.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Request>, mut stop: watch::Receiver<bool>) {
        while let End::Failed(error) = self.serve(&mut queue, &mut stop).await {
            tracing::error!(%error, "the ledger is read-only");
            if let End::Stopped = self.recover(error, &mut queue, &mut stop).await {
                break;
            }
            tracing::info!("the ledger takes entries again");
        }
        self.core.send_replace(None);
        // It fails only if the core panicked, and then it has ended too.
        let _ = self.raft.shutdown().await;
        self.role.send_replace(Role::Follower { leader: None });
        let file = self.file;
        let _ = spawn_blocking(move || file.close()).await;
        // Only now the queue is dropped, for which `LedgerHandle::shutdown` waits.
    }

    async fn serve(&mut self, queue: &mut mpsc::Receiver<Request>, stop: &mut watch::Receiver<bool>) -> End {
        let mut ended = self.raft.metrics();
        loop {
            let request = select! {
                biased;
                () = stopped(stop) => return End::Stopped,
                () = core_ended(&mut ended) => {
                    self.broken().await;
                    return End::Failed(self.reason(&Fatal::Stopped));
                }
                request = queue.recv() => request,
            };
            let Some(Request { mut found, mut batch, reply }) = request else { return End::Stopped };
            let mut waiting = vec![(batch.len(), reply)];
            let mut bytes = batch.size();
            while batch.len() < BATCH_ENTRIES
                && bytes < BATCH_BYTES
                && let Ok(next) = queue.try_recv()
            {
                found |= next.found;
                bytes += next.batch.size();
                waiting.push((next.batch.len(), next.reply));
                batch.append(next.batch);
            }
            let committed = select! {
                biased;
                () = stopped(stop) => return End::Stopped,
                committed = self.commit(batch, found) => committed,
            };
            match committed {
                Err(error @ (ProposeError::Disk(_) | ProposeError::Core { .. })) => {
                    // Before anybody hears of it and looks who leads.
                    self.broken().await;
                    answer(waiting, Err(error.clone()));
                    return End::Failed(error);
                }
                committed => answer(waiting, committed),
            }
        }
    }

    async fn commit(&self, batch: Batch, found: bool) -> Result<Vec<Answer>, ProposeError> {
        if found && !self.raft.is_initialized().await.map_err(|e| self.reason(&e))? {
            let alone = BTreeMap::from([(self.node, EmptyNode {})]);
            match self.raft.initialize(alone).await {
                Ok(()) => caught_up(&self.raft, self.node).await.map_err(|e| self.reason(&e))?,
                Err(RaftError::APIError(e)) => return Err(ProposeError::Core { why: e.to_string() }),
                Err(RaftError::Fatal(e)) => return Err(self.reason(&e)),
            }
        }
        match self.raft.client_write(batch).await {
            Ok(response) => Ok(response.data),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
                Err(ProposeError::NotLeader { leader: to.leader_id })
            }
            Err(RaftError::APIError(e)) => Err(ProposeError::Core { why: e.to_string() }),
            Err(RaftError::Fatal(e)) => Err(self.reason(&e)),
        }
    }

    /// Tries until the ledger works again; refuses meanwhile. What was being committed when it failed may be in the
    /// log or not: the new core reads it there and goes by that.
    async fn recover(
        &mut self,
        mut error: ProposeError,
        queue: &mut mpsc::Receiver<Request>,
        stop: &mut watch::Receiver<bool>,
    ) -> End {
        // What failed again at once is left alone for a while.
        let mut wait = self.started.elapsed() < TRY_AGAIN;
        loop {
            let _ = self.raft.shutdown().await;
            if !std::mem::take(&mut wait) {
                match self.restart().await {
                    Ok(()) => return End::Failed(error),
                    Err(new) => error = new,
                }
            }
            let mut again = std::pin::pin!(sleep(TRY_AGAIN));
            loop {
                select! {
                    biased;
                    () = stopped(stop) => return End::Stopped,
                    () = &mut again => break,
                    request = queue.recv() => match request {
                        None => return End::Stopped,
                        // The proposer may have gone away.
                        Some(request) => drop(request.reply.send(Err(error.clone()))),
                    },
                }
            }
        }
    }

    /// Once for each core.
    async fn broken(&mut self) {
        self.core.send_replace(None);
        self.teller.abort();
        // Aborted, or it had ended.
        let _ = (&mut self.teller).await;
        self.role.send_if_modified(|known| std::mem::replace(known, Role::Broken) != Role::Broken);
    }

    async fn restart(&mut self) -> Result<(), ProposeError> {
        let mut file = self.file.clone();
        let (file, opened) = spawn_blocking(move || {
            let opened = file.reopen();
            (file, opened)
        })
        .await
        .map_err(|e| ProposeError::Core { why: e.to_string() })?;
        self.file = file;
        opened?;
        self.raft = start_core(&self.file, self.node, self.config.clone(), &self.view, &self.ways).await?;
        self.core.send_replace(Some(self.raft.clone()));
        self.starts += 1;
        self.started = Instant::now();
        self.teller = follow(&self.raft, self.role.clone(), self.pulse.clone(), self.starts);
        Ok(())
    }

    fn reason(&self, fatal: &Fatal<NodeId>) -> ProposeError {
        reason(&self.file, fatal)
    }
}

/// Tells role and pulse as the core changes them, until it ends.
fn follow(
    raft: &Raft<Daemon>,
    role: Arc<watch::Sender<Role>>,
    pulse: Arc<Pulse>,
    start: u64,
) -> JoinHandle<()> {
    let mut metrics = raft.metrics();
    let tell = move |metrics: &Metrics| {
        let leads = metrics.state == ServerState::Leader;
        pulse.beat(metrics.millis_since_quorum_ack.unwrap_or(0), sole_voter(metrics), leads);
        let new = match metrics.state {
            ServerState::Leader => Role::Leader { term: metrics.current_term, start },
            _ => Role::Follower { leader: metrics.current_leader },
        };
        role.send_if_modified(|known| std::mem::replace(known, new) != new);
    };
    // At once: whoever has just opened the ledger wants to know.
    tell(&metrics.borrow_and_update());
    tokio::spawn(async move {
        while metrics.changed().await.is_ok() {
            let metrics = metrics.borrow_and_update();
            if metrics.running_state.is_err() {
                return;
            }
            tell(&metrics);
        }
    })
}

async fn start_core(
    file: &File,
    node: NodeId,
    config: Arc<Config>,
    view: &Arc<View>,
    ways: &Ways,
) -> Result<Raft<Daemon>, ProposeError> {
    let (disk, shown) = (file.clone(), view.clone());
    let machine = spawn_blocking(move || Machine::open(disk, shown))
        .await
        .map_err(|e| ProposeError::Core { why: e.to_string() })??;
    let raft = Raft::new(node, config, ways.clone(), Log::new(file.clone()), machine)
        .await
        .map_err(|e| reason(file, &e))?;
    caught_up(&raft, node).await.map_err(|e| reason(file, &e))?;
    Ok(raft)
}

/// Waits, if this node is the sole voter, until it leads and has applied its log. Nobody else can hold that up.
async fn caught_up(raft: &Raft<Daemon>, node: NodeId) -> Result<(), Fatal<NodeId>> {
    // Answered by the core, so it runs, and the metrics are its own.
    raft.is_initialized().await?;
    let mut metrics = raft.metrics();
    let ready = |metrics: &Metrics| {
        let alone = sole_voter(metrics) && metrics.id == node;
        let applied = metrics.last_applied.index() == metrics.last_log_index;
        metrics.running_state.is_err() || !alone || (metrics.state == ServerState::Leader && applied)
    };
    let metrics = metrics.wait_for(ready).await.map_err(|_| Fatal::Stopped)?;
    metrics.running_state.clone()
}

fn sole_voter(metrics: &Metrics) -> bool {
    metrics.membership_config.membership().voter_ids().count() == 1
}

/// Why the core stopped: the disk's own words if it was the disk.
fn reason(file: &File, fatal: &Fatal<NodeId>) -> ProposeError {
    file.failure().map_or_else(|| ProposeError::Core { why: fatal.to_string() }, ProposeError::Disk)
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error: all handles are gone, which is as good.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn core_ended(metrics: &mut watch::Receiver<Metrics>) {
    let _ = metrics.wait_for(|metrics| metrics.running_state.is_err()).await;
}

type Waiting = Vec<(usize, oneshot::Sender<Result<Vec<Answer>, ProposeError>>)>;

/// Gives each proposer its part of the answers, or all the same error.
fn answer(waiting: Waiting, committed: Result<Vec<Answer>, ProposeError>) {
    let mut answers = committed.map(Vec::into_iter);
    for (count, reply) in waiting {
        let part = answers.as_mut().map(|answers| answers.by_ref().take(count).collect());
        // The proposer may have gone away.
        let _ = reply.send(part.map_err(|e| e.clone()));
    }
}

/// When a majority last answered.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    acked_ms: AtomicU64,
    alone: AtomicBool,
    leads: AtomicBool,
    /// When another voter last called.
    called_ms: AtomicU64,
}

/// A leader that hears nobody may be heard all the same, and would keep its followers for ever: Raft has no word for it.
/// After so long it falls silent, so that they elect another.
const UNHEARD_MS: u64 = 1_000;

impl Pulse {
    fn beat(&self, millis_ago: u64, alone: bool, leads: bool) {
        self.leads.store(leads, Ordering::Relaxed);
        self.acked_ms.store(now_ms().saturating_sub(millis_ago), Ordering::Relaxed);
        self.alone.store(alone, Ordering::Relaxed);
    }

    /// Another voter called: it is heard.
    pub(super) fn called(&self) {
        self.called_ms.store(now_ms(), Ordering::Relaxed);
    }

    /// Whether this node leads and should say nothing, since neither an answer nor a call has come for too long.
    pub(super) fn unheard(&self) -> bool {
        let called = now_ms().saturating_sub(self.called_ms.load(Ordering::Relaxed));
        self.leads.load(Ordering::Relaxed) && self.age() >= UNHEARD_MS && called >= UNHEARD_MS
    }

    /// Milliseconds since.
    pub(super) fn age(&self) -> u64 {
        if self.alone.load(Ordering::Relaxed) {
            return 0;
        }
        now_ms().saturating_sub(self.acked_ms.load(Ordering::Relaxed))
    }
}

/// Monotonic, and it goes on while the machine is suspended.
fn now_ms() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
