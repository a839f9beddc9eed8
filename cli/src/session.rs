//! Requests to an agent, over restarts of the agent and deaths of nodes.

mod way;

use std::{
    cell::Cell,
    fs::File,
    io::{self, ErrorKind, Read},
    ops::ControlFlow,
    time::Duration,
};

use gossip::{
    client::{Answer, ClientError, Ways},
    frame::FrameError,
    wire::{Call, PROTOCOL, Reply, Request},
};
use placement::ids::RequestId;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::failure::Failure;

pub(crate) use self::way::{Remote, Tried, Unsent, Way};

/// An agent that broke the connection is given so long to come back: a restart takes a second or two.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);
/// A node that has said nothing for so long is as good as dead: it would have said that no placer answers.
const SILENCE: Duration = Duration::from_secs(15);

/// Where requests go.
pub(crate) struct Session {
    way: Way,
    /// 128 random bits: no two requests ever share an id.
    next: Cell<u128>,
}

/// Who reads an answer of many parts, and knows how to ask for the rest of it.
pub(crate) trait Reader {
    /// What to ask, given what was read so far.
    fn call(&self) -> Call;
    /// Takes a part; says whether it wants more.
    fn take(&mut self, part: Reply) -> Result<ControlFlow<()>, Failure>;
}

impl Session {
    pub(crate) fn new(way: Way) -> Result<Self, Failure> {
        Ok(Session { way, next: Cell::new(u128::from_be_bytes(random()?)) })
    }

    /// Whether the agent runs on this machine, and sees its files.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.way, Way::Socket(_))
    }

    /// The nodes that it asks, the one that answered last first; none if it asks this machine's agent.
    pub(crate) fn nodes(&self) -> Vec<String> {
        self.way.nodes()
    }

    /// Asks for one document.
    pub(crate) async fn ask(&self, call: Call) -> Result<Value, Failure> {
        self.ask_with_progress(call, |_, _, _| ()).await
    }

    /// Asks for one document that takes its time. If the connection breaks, the same request, id and all, is made
    /// again, so that what it asks for is done once.
    pub(crate) async fn ask_with_progress(
        &self,
        call: Call,
        mut progress: impl FnMut(&str, u64, u64),
    ) -> Result<Value, Failure> {
        let request = self.request(call);
        let mut outage = Outage::default();
        loop {
            match self.attempt(&request, &mut outage, &mut progress).await {
                Ok(document) => return Ok(document),
                Err(why) => outage.wait_out(&self.way, why).await?,
            }
        }
    }

    async fn attempt(
        &self,
        request: &Request,
        outage: &mut Outage,
        progress: &mut impl FnMut(&str, u64, u64),
    ) -> Result<Value, Unsent> {
        let mut answer = self.way.send(request).await?;
        outage.reached = true;
        let mut document = Value::Null;
        loop {
            match self.next(&mut answer).await? {
                Some(Reply::Item(value)) => document = value,
                Some(Reply::Progress { what, done, total }) => progress(&what, done, total),
                Some(_) => {}
                None => return Ok(document),
            }
        }
    }

    /// The next part of an answer that does not make one wait.
    async fn next(&self, answer: &mut Answer) -> Result<Option<Reply>, Unsent> {
        if self.is_local() {
            return Ok(answer.next().await?);
        }
        let silent = || FrameError::Broken(io::Error::from(ErrorKind::TimedOut));
        Ok(timeout(SILENCE, answer.next()).await.map_err(|_| ClientError::from(silent()))??)
    }

    /// Has a way into a task opened: the node's first word, and what goes both ways from then on. It is done once: nobody
    /// knows what a command did before the connection broke.
    pub(crate) async fn open(&self, call: Call) -> Result<(Value, Ways), Failure> {
        let failed = |why: Unsent| Failure::of(&self.way, why);
        let mut answer = self.way.send(&self.request(call)).await.map_err(failed)?;
        match self.next(&mut answer).await.map_err(failed)? {
            Some(Reply::Item(document)) => Ok((document, answer.into_ways())),
            _ => Err(failed(ClientError::Closed.into())),
        }
    }

    /// Reads an answer of many parts to its end, or until the reader has enough. If the connection breaks, the reader
    /// says how to go on.
    pub(crate) async fn follow(&self, reader: &mut impl Reader) -> Result<(), Failure> {
        let mut outage = Outage::default();
        loop {
            let why = match self.way.send(&self.request(reader.call())).await {
                Err(why) => why,
                Ok(mut answer) => loop {
                    outage.reached = true;
                    match answer.next().await {
                        Err(why) => break why.into(),
                        Ok(None) => return Ok(()),
                        Ok(Some(part)) => {
                            outage.since = None;
                            if reader.take(part)?.is_break() {
                                return Ok(());
                            }
                        }
                    }
                },
            };
            outage.wait_out(&self.way, why).await?;
        }
    }

    fn request(&self, call: Call) -> Request {
        let id = self.next.get();
        self.next.set(id.wrapping_add(1));
        Request { protocol: PROTOCOL.to_owned(), principal: None, id: RequestId(format!("{id:032x}")), call }
    }
}

/// 128 bits that nobody can guess.
pub(crate) fn random() -> Result<[u8; 16], Failure> {
    let mut bits = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bits))
        .map_err(|source| Failure::System { what: "read /dev/urandom", source })?;
    Ok(bits)
}

/// How long the agent has been away, if it was there before.
#[derive(Default)]
struct Outage {
    reached: bool,
    since: Option<Instant>,
}

impl Outage {
    /// Returns when it is worth another attempt; fails if none is.
    async fn wait_out(&mut self, way: &Way, why: Unsent) -> Result<(), Failure> {
        if !why.is_passing(self.reached) {
            return Err(Failure::of(way, why));
        }
        let first = self.since.is_none();
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() >= PATIENCE {
            let place = way.to_string();
            return Err(Failure::Lost { place, why: why.to_string(), waited_s: PATIENCE.as_secs() });
        }
        if first {
            match way {
                Way::Socket(_) => say!("covey: the agent went away; waiting for it to come back"),
                Way::Cell(_) => say!("covey: {way} went away; asking another"),
            }
        }
        self.reached = true;
        // To no other node twice in a row.
        way.failed();
        sleep(PAUSE).await;
        Ok(())
    }
}
