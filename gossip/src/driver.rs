//! Runs a `Membership` over a `Transport`, on a thread of its own: whatever else the agent does, it does not look dead.
//! Decides nothing.

mod exchange;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use placement::ids::NodeId;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    membership::{Garbled, Input, Membership, Output, Seen},
    peer::Peer,
    tls::Credentials,
    transport::{BindError, Event, Lane, Stream, Transport},
};

/// Streams that the agent has not looked at yet. More are refused.
const ARRIVED: usize = 256;
/// Changes that the agent has not looked at yet; half of it for what others' nonsense may fill. If it falls behind
/// further, news are lost: `members` is always true.
const NEWS: usize = 4096;
/// After the good-byes, for the packets to leave.
const FAREWELL: Duration = Duration::from_millis(100);

/// How to begin.
#[derive(Debug)]
pub struct Settings {
    pub me: Credentials,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where others reach this node; none: where it listens.
    pub advertise: Option<SocketAddr>,
    /// Greater than in any earlier start of this node.
    pub life: u64,
    /// For random choices.
    pub seed: u64,
    /// Where members are, or were when this node last ran.
    pub greet: Vec<SocketAddr>,
}

/// What the agent is told, in order.
#[derive(Debug)]
pub enum News {
    /// Here now, or here with another address or life than before.
    Up(Peer),
    /// Dead, or gone.
    Down(Peer),
    /// Not alone any more.
    Active,
    /// Alone, or just declared dead by the others.
    Idle,
    /// Another process runs with this node's key, from a copy of its data directory: where, and whether it was there
    /// first. If not, it is about to hear of this one.
    Twin { addr: SocketAddr, first: bool },
    /// A member sent what makes no sense.
    Garbled(Garbled),
}

/// A driver that cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("cannot start the thread for membership: {0}")]
    Thread(io::Error),
}

/// A running membership. When it is dropped, its node falls silent; the others find out.
pub struct Driver {
    /// For all else that nodes say to each other.
    pub transport: Transport,
    /// What has changed.
    pub news: mpsc::Receiver<News>,
    /// All others that are here.
    pub members: watch::Receiver<BTreeMap<NodeId, Peer>>,
    /// Streams that others opened, except those of membership itself; and who was turned away.
    pub arrived: mpsc::Receiver<Event>,
    orders: mpsc::UnboundedSender<Order>,
    thread: Option<JoinHandle<()>>,
}

enum Order {
    Greet(Vec<SocketAddr>),
    Leave,
    Stop,
}

/// Opens the port and begins.
pub fn start(settings: Settings) -> Result<Driver, StartError> {
    let (orders, ordered) = mpsc::unbounded_channel();
    let (news, news_receiver) = mpsc::channel(NEWS);
    let (members, members_receiver) = watch::channel(BTreeMap::new());
    let (arrived, arrived_receiver) = mpsc::channel(ARRIVED);
    let (ready, is_ready) = std::sync::mpsc::channel();
    let body = move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(ready.send(Err(StartError::Thread(error)))),
        };
        runtime.block_on(async move {
            let (transport, events) = match Transport::bind(settings.listen, &settings.me) {
                Ok(bound) => bound,
                Err(error) => return drop(ready.send(Err(error.into()))),
            };
            let addr = settings.advertise.or(transport.local_addr().ok()).unwrap_or(settings.listen);
            let me = Peer::new(settings.me.subject.node, addr, settings.life);
            let begun = Instant::now();
            let membership = Membership::new(me, settings.seed, Duration::ZERO);
            let _ = ready.send(Ok(transport.clone()));
            let (seen, heard) = mpsc::channel(16);
            let (sought, found) = mpsc::unbounded_channel();
            let shell = Shell { membership, transport, begun, news, members, arrived, seen, sought };
            shell.run(settings.greet, events, heard, found, ordered).await;
        });
        // What is still under way belongs to a node that is no more.
        runtime.shutdown_background();
    };
    let thread = thread::Builder::new().name("members".into()).spawn(body).map_err(StartError::Thread)?;
    let gone = || StartError::Thread(io::Error::other("it ended before it had begun"));
    let transport = is_ready.recv().map_err(|_| gone())??;
    Ok(Driver {
        transport,
        news: news_receiver,
        members: members_receiver,
        arrived: arrived_receiver,
        orders,
        thread: Some(thread),
    })
}

impl Driver {
    /// Hands over what is heard, to be listened to elsewhere; nothing comes out of the fields from then on.
    pub fn hear(&mut self) -> (mpsc::Receiver<News>, mpsc::Receiver<Event>) {
        let news = std::mem::replace(&mut self.news, mpsc::channel(1).1);
        (news, std::mem::replace(&mut self.arrived, mpsc::channel(1).1))
    }

    /// Greets these from now on until somebody answers.
    pub fn greet(&self, addrs: Vec<SocketAddr>) {
        let _ = self.orders.send(Order::Greet(addrs));
    }

    /// Leaves for good: the others are told that this node is gone. Waits until they have been.
    pub fn leave(self) {
        let _ = self.orders.send(Order::Leave);
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread's side.
struct Shell {
    membership: Membership,
    transport: Transport,
    begun: Instant,
    news: mpsc::Sender<News>,
    members: watch::Sender<BTreeMap<NodeId, Peer>>,
    arrived: mpsc::Sender<Event>,
    /// From exchanges under way.
    seen: mpsc::Sender<Vec<Seen>>,
    /// Where a later life of this node was said to be, and whether it is there, first.
    sought: mpsc::UnboundedSender<(Peer, Option<bool>)>,
}

impl Shell {
    async fn run(
        mut self,
        greet: Vec<SocketAddr>,
        mut events: mpsc::Receiver<Event>,
        mut heard: mpsc::Receiver<Vec<Seen>>,
        mut found: mpsc::UnboundedReceiver<(Peer, Option<bool>)>,
        mut orders: mpsc::UnboundedReceiver<Order>,
    ) {
        self.tell(Input::Greet(greet));
        loop {
            let wake = self.membership.wake_at().map(|at| self.begun + at);
            let later = Instant::now() + Duration::from_secs(3600);
            tokio::select! {
                // What has arrived comes before what time says about those who have not been heard.
                biased;
                order = orders.recv() => match order {
                    Some(Order::Greet(addrs)) => self.tell(Input::Greet(addrs)),
                    Some(Order::Leave) => {
                        self.tell(Input::Leave);
                        sleep(FAREWELL).await;
                        return self.transport.close().await;
                    }
                    Some(Order::Stop) | None => return,
                },
                Some(event) = events.recv() => self.event(event),
                Some(seen) = heard.recv() => self.tell(Input::State(seen)),
                Some((later, there)) = found.recv() => self.found(later, there),
                () = sleep_until(wake.unwrap_or(later)) => self.tell(Input::Wake),
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Datagram { from, bytes } => self.tell(Input::Datagram { from, bytes: bytes.into() }),
            Event::Stream { lane: Lane::Exchange, stream, .. } => {
                tokio::spawn(exchange::answer(stream, self.mine(), self.seen.clone()));
            }
            // An agent that does not keep up loses streams, not its place among the living.
            other => drop(self.arrived.try_send(other)),
        }
    }

    /// A later life that nobody leads is outlived, and one whose agent was here after this one's too: it then hears of
    /// this one, and finds that it was here first.
    fn found(&mut self, later: Peer, there: Option<bool>) {
        if let Some(first) = there {
            let _ = self.news.try_send(News::Twin { addr: later.addr, first });
        }
        if there != Some(true) {
            self.tell(Input::Outlive(later));
        }
    }

    fn mine(&self) -> exchange::Mine {
        exchange::Mine { digest: self.membership.digest(), members: self.membership.state() }
    }

    fn tell(&mut self, input: Input) {
        let outputs = self.membership.handle(input, self.begun.elapsed());
        let mut changed = false;
        for output in outputs {
            changed |= matches!(output, Output::Up(_) | Output::Down(_));
            self.output(output);
        }
        if changed {
            self.members.send_replace(self.membership.members().map(|peer| (peer.id, *peer)).collect());
        }
    }

    fn output(&self, output: Output) {
        let news = match output {
            Output::Datagram { to, bytes } => return self.transport.datagram(to, Bytes::from(bytes)),
            Output::Warm(peer) => return self.transport.warm(peer),
            Output::Exchange { with } => {
                let (transport, mine, seen) = (self.transport.clone(), self.mine(), self.seen.clone());
                return drop(tokio::spawn(exchange::ask(transport, with, mine, seen)));
            }
            Output::Up(peer) => News::Up(peer),
            Output::Down(peer) => {
                self.transport.forget(peer.id);
                News::Down(peer)
            }
            Output::Active => News::Active,
            Output::Idle => News::Idle,
            Output::Twin(later) => {
                let (transport, sought, mine) =
                    (self.transport.clone(), self.sought.clone(), self.membership.me());
                return drop(tokio::spawn(async move {
                    // This node has that address: there is no other.
                    let there =
                        if later.addr == mine.addr { None } else { transport.twin_at(later.addr).await };
                    let _ = sought.send((later, there.map(|age| age >= transport.age())));
                }));
            }
            Output::Garbled(why) => News::Garbled(why),
        };
        let nonsense = matches!(news, News::Garbled(_));
        if !nonsense || self.news.capacity() > NEWS / 2 {
            let _ = self.news.try_send(news);
        }
    }
}
