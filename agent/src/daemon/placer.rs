//! The placer's loop: one task that owns its core. While this node acts (`core::place::reign`) it opens a session to each
//! member's agent, its own included, hands the core what comes, and carries out what it wants.

use std::{collections::BTreeMap, future::Future, time::Duration};

use gossip::{
    transport::Lane,
    wire::{Hello, PROTOCOL, SessionId, ToAgent},
};
use placement::{
    ids::{Activation, NodeId},
    ledger::{Answer, Command, Entry},
};
use tokio::{
    sync::{
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
        oneshot, watch,
    },
    task::AbortHandle,
    time::{Instant, sleep_until},
};

use super::{inbox::NodeHandle, line::Line};
use crate::{
    cell::{Acting, Cell},
    clock,
    core::place::{
        PlaceAction, PlaceConfig, PlaceCore, PlaceEvent,
        company::Company,
        reign::{Reign, Sight, Step},
    },
    journal::Journal,
    ledger::Role,
    session::{self, PlacerEnd},
};

/// What reaches the loop, beside the ledger.
pub enum PlacerMsg {
    Session(PlacerEnd),
    /// That try to reach a node is over: the session could not be opened, or ended.
    Over {
        node: NodeId,
        attempt: u64,
    },
    /// What became of this node's activation.
    Proposed {
        done: bool,
    },
    Read(Box<dyn FnOnce(&PlaceCore) + Send>),
}

/// A handle on the loop.
#[derive(Clone)]
pub struct PlacerHandle {
    inbox: UnboundedSender<PlacerMsg>,
    changed: watch::Receiver<u64>,
}

impl PlacerHandle {
    /// What `look` sees; none once the loop has ended.
    pub async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&PlaceCore) -> T + Send + 'static,
    ) -> Option<T> {
        let (tell, told) = oneshot::channel();
        let look = move |core: &PlaceCore| {
            let _ = tell.send(look(core));
        };
        self.inbox.send(PlacerMsg::Read(Box::new(look))).ok()?;
        told.await.ok()
    }

    /// The racks that agents were started with; of those that have reported, while this node acts.
    pub async fn racks(&self) -> BTreeMap<NodeId, String> {
        let racks = self.read(|core| {
            let nodes = core.view().map(|(_, view)| view.nodes.iter());
            let rack = |(id, node): (&NodeId, &placement::view::NodeView)| {
                Some((*id, node.info.as_ref()?.labels.get("rack")?.clone()))
            };
            nodes.into_iter().flatten().filter_map(rack).collect()
        });
        racks.await.unwrap_or_default()
    }

    /// Counts the changes of what people read.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }
}

pub struct PlacerLoop {
    core: PlaceCore,
    reign: Reign,
    company: Company,
    cell: Cell,
    /// This node's agent: reached by a stream like any other's.
    own: NodeHandle,
    journal: Journal,
    inbox: UnboundedReceiver<PlacerMsg>,
    tell: UnboundedSender<PlacerMsg>,
    changed: watch::Sender<u64>,
    sessions: BTreeMap<NodeId, Link>,
    /// Streams opened so far: tells what comes from an old one.
    attempts: u64,
    wake: Option<Instant>,
    /// No look for a new reign before.
    patience: Option<Instant>,
}

/// The stream to one agent: being opened, or open.
struct Link {
    attempt: u64,
    task: AbortHandle,
    open: Option<(SessionId, UnboundedSender<ToAgent>)>,
}

/// Between two tries to reach an agent, or to activate.
const AGAIN: Duration = Duration::from_millis(200);
/// The same for a node that is not here.
const AWAY: Duration = Duration::from_secs(1);
/// While acting: how often to look whether a majority still answers. Before it speaks it looks anyhow.
const PULSE: Duration = Duration::from_millis(250);
/// While a majority does not: how often to look whether it does again.
const HOLD: Duration = Duration::from_millis(10);
/// How long to sleep when nothing is due; any length would do.
const IDLE: Duration = Duration::from_secs(3_600);
/// Bytes under way in a stream to this node's own agent.
const PIPE: usize = 64 << 10;

impl PlacerLoop {
    pub fn new(cell: Cell, own: NodeHandle, journal: Journal) -> (PlacerLoop, PlacerHandle) {
        let (tell, inbox) = unbounded_channel();
        let (changed, seen) = watch::channel(0);
        let handle = PlacerHandle { inbox: tell.clone(), changed: seen };
        let placer = PlacerLoop {
            core: PlaceCore::new(PlaceConfig::default()),
            reign: Reign::new(cell.me()),
            company: Company::default(),
            cell,
            own,
            journal,
            inbox,
            tell,
            changed,
            sessions: BTreeMap::new(),
            attempts: 0,
            wake: None,
            patience: None,
        };
        (placer, handle)
    }

    /// Runs until the ledger is shut down.
    pub async fn run(mut self) {
        let mut role = self.cell.ledger.role();
        let mut applied = self.cell.ledger.applied();
        let mut members = self.cell.peers.watch();
        self.look_around().await;
        loop {
            self.look().await;
            if let Some(activation) = self.reign.acts() {
                self.reach(activation);
            }
            let now = Instant::now();
            let next = match self.reign.acts() {
                Some(_) => self.wake.unwrap_or(now + IDLE).min(now + PULSE),
                None => self.patience.unwrap_or(now + IDLE),
            };
            tokio::select! {
                biased;
                change = role.changed() => if change.is_err() { return },
                message = self.inbox.recv() => match message {
                    Some(message) => self.message(message).await,
                    None => return,
                },
                change = applied.changed() => match change {
                    Ok(()) => {
                        self.event(PlaceEvent::Ledger(self.cell.state())).await;
                        self.look_around().await;
                    }
                    Err(_) => return,
                },
                // The transport is gone: the agent ends.
                change = members.changed() => match change {
                    Ok(()) => self.look_around().await,
                    Err(_) => return,
                },
                () = sleep_until(next) => {
                    self.patience = None;
                    if self.wake.take_if(|at| *at <= Instant::now()).is_some() {
                        self.event(PlaceEvent::Woke).await;
                    }
                }
            }
        }
    }

    async fn message(&mut self, message: PlacerMsg) {
        match message {
            PlacerMsg::Read(look) => look(&self.core),
            PlacerMsg::Session(end) => {
                if let Some(event) = self.session(end) {
                    self.event(event).await;
                }
            }
            PlacerMsg::Over { node, attempt } => {
                if self.sessions.get(&node).is_some_and(|link| link.attempt == attempt) {
                    self.sessions.remove(&node);
                }
            }
            PlacerMsg::Proposed { done } => {
                let step = self.reign.answered(done, &self.sight());
                match step {
                    Some(step) => self.step(step).await,
                    None => self.patience = Some(Instant::now() + AGAIN),
                }
            }
        }
    }

    /// What this node sees of the ledger now (PROTOCOL 3, 5, 6).
    fn sight(&self) -> Sight {
        let ledger = &self.cell.ledger;
        let leads = match *ledger.role().borrow() {
            Role::Leader { term, start } => Some((term, start)),
            Role::Follower { .. } | Role::Broken => None,
        };
        let state = ledger.state();
        let (activation, placer) = (state.activation, state.placer);
        Sight { leads, quorum_age_ms: ledger.millis_since_quorum_ack(), activation, placer }
    }

    async fn look(&mut self) {
        if self.patience.is_none_or(|until| until <= Instant::now())
            && let Some(step) = self.reign.look(&self.sight())
        {
            self.step(step).await;
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Propose => self.activate(),
            Step::Begin(activation) => {
                self.cell.heard(Acting { node: self.cell.me(), activation });
                self.journal.node("placer", "acts as the placer from now on".to_string());
                let ledger = self.cell.state();
                self.event(PlaceEvent::Activated { activation, ledger }).await;
                for verdict in self.company.verdicts() {
                    self.event(verdict).await;
                }
            }
            Step::End => {
                // What is still on its way in the streams goes with them.
                for link in std::mem::take(&mut self.sessions).into_values() {
                    link.task.abort();
                }
                self.wake = None;
                self.journal.node("placer", "acts as the placer no more".to_string());
                self.handle(PlaceEvent::Deposed);
            }
        }
    }

    /// Commits this node's "I act": its index is in the state when the answer comes.
    fn activate(&self) {
        let me = self.cell.me();
        let entry =
            Entry { request: None, at_ms: clock::now().wall_ms, command: Command::Activate { node: me } };
        let (ledger, journal, tell) = (self.cell.ledger.clone(), self.journal.clone(), self.tell.clone());
        tokio::spawn(async move {
            let done = match ledger.propose(&entry).await {
                Ok(Answer::Done { .. }) => true,
                Ok(Answer::Refused(refusal)) => {
                    journal.node("placer_failed", format!("cannot act as placer: {refusal}"));
                    false
                }
                Err(error) => {
                    tracing::warn!("cannot act as placer yet: {error}");
                    false
                }
            };
            let _ = tell.send(PlacerMsg::Proposed { done });
        });
    }

    /// Who is in the roster, and here.
    async fn look_around(&mut self) {
        let (ledger, alive) = (self.cell.state(), self.cell.peers.alive());
        let news = self.company.look(ledger.roster.keys().copied(), &alive, clock::now().mono_ms);
        drop(ledger);
        for event in news {
            if let PlaceEvent::MemberAlive(node) = event {
                // Whoever comes back is reached at once, not when the last try has given up.
                if let Some(link) = self.sessions.get(&node).filter(|link| link.open.is_none()) {
                    link.task.abort();
                    self.sessions.remove(&node);
                }
            }
            self.event(event).await;
        }
    }

    /// While it acts, the core hears nothing, and so sends nothing, unless a majority answered just now.
    async fn event(&mut self, event: PlaceEvent) {
        while self.reign.acts().is_some() && !self.reign.speaks(&self.sight()) {
            if let Some(Step::End) = self.reign.look(&self.sight()) {
                Box::pin(self.step(Step::End)).await;
                return;
            }
            tokio::time::sleep(HOLD).await;
        }
        self.handle(event);
    }

    /// Opens a stream to each member that has none.
    fn reach(&mut self, activation: Activation) {
        let state = self.cell.state();
        let missing: Vec<NodeId> =
            state.roster.keys().filter(|node| !self.sessions.contains_key(node)).copied().collect();
        drop(state);
        for node in missing {
            self.attempts += 1;
            let attempt = self.attempts;
            let task = tokio::spawn(self.serve(node, activation, attempt));
            self.sessions.insert(node, Link { attempt, task: task.abort_handle(), open: None });
        }
    }

    /// One session with one node, from its stream's opening to its end.
    fn serve(&self, node: NodeId, activation: Activation, attempt: u64) -> impl Future<Output = ()> + use<> {
        let (cell, own, tell) = (self.cell.clone(), self.own.clone(), self.tell.clone());
        let me = cell.me();
        let hello = Hello { protocol: PROTOCOL.to_string(), placer: me, activation, fresh: session::fresh() };
        async move {
            let forward = |end| {
                let _ = tell.send(PlacerMsg::Session(end));
            };
            let ended = if node == me {
                let (ours, theirs) = tokio::io::duplex(PIPE);
                tokio::spawn(async move {
                    if let Err(error) = session::agent_end(theirs, |end| own.session(end)).await {
                        tracing::debug!("the session of this node's own placer ended: {error}");
                    }
                });
                session::placer_end(ours, node, hello, forward).await.map_err(|e| e.to_string())
            } else {
                match cell.peers.open(node, Lane::Session).await {
                    Ok(stream) => {
                        let line = Line::new(stream);
                        session::placer_end(line, node, hello, forward).await.map_err(|e| e.to_string())
                    }
                    Err(error) => Err(error.to_string()),
                }
            };
            if let Err(error) = ended {
                tracing::debug!("the session with {}: {error}", cell.name(node));
            }
            tokio::time::sleep(if cell.peers.is_alive(node) { AGAIN } else { AWAY }).await;
            let _ = tell.send(PlacerMsg::Over { node, attempt });
        }
    }

    fn session(&mut self, end: PlacerEnd) -> Option<PlaceEvent> {
        match end {
            PlacerEnd::Opened { node, session, orders, .. } => {
                self.sessions.get_mut(&node)?.open = Some((session, orders));
                Some(PlaceEvent::SessionOpened { node, session })
            }
            PlacerEnd::News { node, news } => Some(PlaceEvent::News { node, from: news }),
            PlacerEnd::Closed { node, session } => {
                let link = self.sessions.get_mut(&node)?;
                link.open.take_if(|(open, _)| *open == session);
                Some(PlaceEvent::SessionClosed { node, session })
            }
        }
    }

    fn handle(&mut self, event: PlaceEvent) {
        for action in self.core.handle(clock::now(), event) {
            match action {
                PlaceAction::Send { node, order } => {
                    if let Some(Link { open: Some((session, orders)), .. }) = self.sessions.get(&node)
                        && *session == order.session
                    {
                        let _ = orders.send(order);
                    }
                }
                PlaceAction::CloseSession { node, session } => {
                    if let Some(link) = self.sessions.get_mut(&node)
                        && link.open.take_if(|(open, _)| *open == session).is_some()
                    {
                        link.task.abort();
                        self.sessions.remove(&node);
                    }
                }
                PlaceAction::Propose(command) => self.propose(command),
                PlaceAction::Changed => self.changed.send_modify(|n| *n += 1),
                PlaceAction::WakeAt { mono_ms } => {
                    let wait = mono_ms.saturating_sub(clock::now().mono_ms);
                    self.wake = Some(Instant::now() + Duration::from_millis(wait));
                }
            }
        }
    }

    /// What fails is proposed again by the core.
    fn propose(&self, command: Command) {
        let entry = Entry { request: None, at_ms: clock::now().wall_ms, command };
        let ledger = self.cell.ledger.clone();
        tokio::spawn(async move {
            if let Err(error) = ledger.propose(&entry).await {
                tracing::warn!("the ledger did not take a completion yet: {error}");
            }
        });
    }
}
