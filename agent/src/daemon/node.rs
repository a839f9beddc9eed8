//! The node's loop: one task that owns the core, hands it events in order and carries out what it wants.

use std::time::Duration;

use gossip::wire::{SessionId, Welcome};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender},
    time::{Instant, sleep_until},
};

use super::inbox::NodeMsg;
use crate::{
    clock,
    core::Core,
    event::{Action, Event},
    journal::Journal,
    runner::Runner,
    session::{AgentEnd, ToPlacer},
    store::Store,
};

pub struct NodeLoop {
    pub core: Core,
    pub store: Store,
    pub runner: Runner,
    pub journal: Journal,
    /// Where the answer to the last hello goes, and then the session's news.
    out: Option<UnboundedSender<ToPlacer>>,
    /// The open session: news goes to it alone.
    session: Option<(SessionId, UnboundedSender<ToPlacer>)>,
    wake: Option<Instant>,
}

impl NodeLoop {
    pub fn new(core: Core, store: Store, runner: Runner, journal: Journal) -> NodeLoop {
        NodeLoop { core, store, runner, journal, out: None, session: None, wake: None }
    }

    /// Runs until every handle is gone. `first`: what the core wanted at its making.
    pub async fn run(mut self, first: Vec<Action>, mut inbox: UnboundedReceiver<NodeMsg>) {
        self.carry_out(first);
        loop {
            let wake = self.wake.unwrap_or_else(|| Instant::now() + IDLE);
            let message = tokio::select! {
                biased;
                message = inbox.recv() => match message {
                    Some(message) => message,
                    None => return,
                },
                () = sleep_until(wake) => {
                    self.wake = None;
                    NodeMsg::Event(Event::Woke)
                }
            };
            let event = match message {
                NodeMsg::Event(event) => event,
                NodeMsg::Read(look) => {
                    look(&self.core);
                    continue;
                }
                NodeMsg::Session(AgentEnd::Hello { hello, fresh, out }) => {
                    self.out = Some(out);
                    Event::Hello { hello, fresh }
                }
                // For whoever serves the stream.
                NodeMsg::Session(AgentEnd::Opened(_)) => continue,
                NodeMsg::Session(AgentEnd::Order(order)) => Event::Order(order),
                NodeMsg::Session(AgentEnd::Closed(session)) => {
                    self.session.take_if(|(open, _)| *open == session);
                    Event::Closed(session)
                }
            };
            let actions = self.core.handle(event, clock::now());
            self.carry_out(actions);
        }
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Store { ticket, changes } => self.store.change(ticket, changes),
                Action::Welcome(welcome) => self.welcome(welcome),
                Action::Send(news) => {
                    if let Some((session, out)) = &self.session
                        && *session == news.session
                    {
                        let _ = out.send(ToPlacer::News(news));
                    }
                }
                Action::WakeAt { mono_ms } => {
                    let wait = mono_ms.saturating_sub(clock::now().mono_ms);
                    self.wake = Some(Instant::now() + Duration::from_millis(wait));
                }
                Action::Note(note) => self.journal.note(note),
                Action::Start(start) => self.runner.start(*start),
                Action::Signal { run, signal } => self.runner.signal(run, signal),
                Action::Abandon { run } => self.runner.abandon(run),
                Action::Amend(amend) => self.runner.amend(*amend),
                Action::Remove { run, own } => self.runner.remove(run, own),
                Action::Probe { run, check, health, port, good } => {
                    self.runner.probe(run, check, health, port, good);
                }
                Action::Unprobe { run } => self.runner.unprobe(run),
            }
        }
    }

    fn welcome(&mut self, welcome: Welcome) {
        let Some(out) = self.out.take() else { return };
        if let Welcome::Open { session, .. } = welcome {
            self.session = Some((session, out.clone()));
        }
        let _ = out.send(ToPlacer::Welcome(welcome));
    }
}

/// How long to sleep when nothing is due; any length would do.
const IDLE: Duration = Duration::from_secs(3_600);
