//! The placer's loop: one task that owns its core, while this node leads the ledger. It opens a session to each member's
//! agent, its own included, hands the core what comes, and carries out what it wants.

use std::{collections::BTreeMap, time::Duration};

use gossip::wire::{Hello, PROTOCOL, SessionId, ToAgent};
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

use super::inbox::NodeHandle;
use crate::{
    clock,
    core::place::{PlaceAction, PlaceConfig, PlaceCore, PlaceEvent},
    journal::Journal,
    ledger::{LedgerHandle, Role},
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

    /// Counts the changes of what people read.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }
}

pub struct PlacerLoop {
    core: PlaceCore,
    me: NodeId,
    ledger: LedgerHandle,
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
}

/// The stream to one agent: being opened, or open.
struct Link {
    attempt: u64,
    task: AbortHandle,
    open: Option<(SessionId, UnboundedSender<ToAgent>)>,
}

/// Between two tries to reach an agent, or to activate.
const AGAIN: Duration = Duration::from_millis(200);
/// How long to sleep when nothing is due; any length would do.
const IDLE: Duration = Duration::from_secs(3_600);
/// Bytes under way in a stream to this node's own agent.
const PIPE: usize = 64 << 10;

impl PlacerLoop {
    pub fn new(
        me: NodeId,
        ledger: LedgerHandle,
        own: NodeHandle,
        journal: Journal,
    ) -> (PlacerLoop, PlacerHandle) {
        let (tell, inbox) = unbounded_channel();
        let (changed, seen) = watch::channel(0);
        let handle = PlacerHandle { inbox: tell.clone(), changed: seen };
        let core = PlaceCore::new(PlaceConfig::default());
        let placer = PlacerLoop {
            core,
            me,
            ledger,
            own,
            journal,
            inbox,
            tell,
            changed,
            sessions: BTreeMap::new(),
            attempts: 0,
            wake: None,
        };
        (placer, handle)
    }

    /// Runs until the ledger is shut down.
    pub async fn run(mut self) {
        let mut role = self.ledger.role();
        let mut applied = self.ledger.applied();
        loop {
            let now = *role.borrow_and_update();
            if now.is_leader() {
                self.lead(now, &mut role, &mut applied).await;
                self.depose();
            }
            // While nobody leads here, readers still get their answer: that there is no placer.
            tokio::select! {
                biased;
                change = role.changed() => if change.is_err() { return },
                message = self.inbox.recv() => match message {
                    Some(PlacerMsg::Read(look)) => look(&self.core),
                    Some(_) => {}
                    None => return,
                },
            }
        }
    }

    /// From a role as leader to its end.
    async fn lead(
        &mut self,
        as_leader: Role,
        role: &mut watch::Receiver<Role>,
        applied: &mut watch::Receiver<u64>,
    ) {
        let Some(activation) = self.activate().await else { return };
        applied.mark_unchanged();
        let ledger = self.ledger.state();
        self.handle(PlaceEvent::Activated { activation, ledger });
        loop {
            self.reach(activation);
            let wake = self.wake.unwrap_or_else(|| Instant::now() + IDLE);
            let event = tokio::select! {
                biased;
                change = role.changed() => match change {
                    Ok(()) if *role.borrow_and_update() == as_leader => continue,
                    _ => return,
                },
                message = self.inbox.recv() => match message {
                    Some(PlacerMsg::Read(look)) => {
                        look(&self.core);
                        continue;
                    }
                    Some(PlacerMsg::Session(end)) => match self.session(end) {
                        Some(event) => event,
                        None => continue,
                    },
                    Some(PlacerMsg::Over { node, attempt }) => {
                        if self.sessions.get(&node).is_some_and(|link| link.attempt == attempt) {
                            self.sessions.remove(&node);
                        }
                        continue;
                    }
                    None => return,
                },
                change = applied.changed() => match change {
                    Ok(()) => PlaceEvent::Ledger(self.ledger.state()),
                    Err(_) => return,
                },
                () = sleep_until(wake) => {
                    self.wake = None;
                    PlaceEvent::Woke
                }
            };
            self.handle(event);
        }
    }

    /// Commits this node's "I act" (PROTOCOL 3, 5): its index is in the state when the answer comes.
    async fn activate(&self) -> Option<Activation> {
        let entry = Entry {
            request: None,
            at_ms: clock::now().wall_ms,
            command: Command::Activate { node: self.me },
        };
        match self.ledger.propose(&entry).await {
            Ok(Answer::Done { .. }) => {
                let ledger = self.ledger.state();
                (ledger.placer == Some(self.me)).then_some(ledger.activation)
            }
            Ok(Answer::Refused(refusal)) => {
                self.journal.node("placer_failed", format!("cannot act as placer: {refusal}"));
                tokio::time::sleep(AGAIN).await;
                None
            }
            Err(error) => {
                tracing::warn!("cannot act as placer yet: {error}");
                tokio::time::sleep(AGAIN).await;
                None
            }
        }
    }

    fn depose(&mut self) {
        for link in std::mem::take(&mut self.sessions).into_values() {
            link.task.abort();
        }
        self.wake = None;
        self.handle(PlaceEvent::Deposed);
    }

    /// Opens a stream to each member that has none. Only this node can be reached so far.
    fn reach(&mut self, activation: Activation) {
        if self.sessions.contains_key(&self.me) || !self.ledger.state().roster.contains_key(&self.me) {
            return;
        }
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let own = self.own.clone();
        tokio::spawn(async move {
            if let Err(error) = session::agent_end(theirs, |end| own.session(end)).await {
                tracing::debug!("the session of this node's own placer ended: {error}");
            }
        });
        let hello =
            Hello { protocol: PROTOCOL.to_string(), placer: self.me, activation, fresh: session::fresh() };
        self.attempts += 1;
        let (node, attempt, tell) = (self.me, self.attempts, self.tell.clone());
        let task = tokio::spawn(async move {
            let forward = |end| {
                let _ = tell.send(PlacerMsg::Session(end));
            };
            if let Err(error) = session::placer_end(ours, node, hello, forward).await {
                tracing::warn!("the session with {node} ended: {error}");
            }
            tokio::time::sleep(AGAIN).await;
            let _ = tell.send(PlacerMsg::Over { node, attempt });
        });
        self.sessions.insert(node, Link { attempt, task: task.abort_handle(), open: None });
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
        let ledger = self.ledger.clone();
        tokio::spawn(async move {
            if let Err(error) = ledger.propose(&entry).await {
                tracing::warn!("the ledger did not take a completion yet: {error}");
            }
        });
    }
}
