//! A node: membership, a ledger that knows all names, a store of images, and what it says when it is asked.

use std::{
    collections::BTreeMap,
    io::Read,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use agent::{
    cell::Cell,
    clock,
    core::{Config, Core},
    daemon::inbox::{NodeHandle, NodeMsg},
    images::{
        Images, Pace, Phase,
        registry::{self, Registries},
    },
    journal::Journal,
    ledger::LedgerHandle,
    peers::Peers,
    store::Store,
};
use gossip::{
    driver::{self, Driver, Settings},
    tls::{Authority, AuthorityKey, Credentials, Key},
    transport::{Event, Lane, Stream, Transport},
    wire::{
        ask::{Question, Told},
        image::{ImageQuestion, ImageTold},
    },
};
use oci::digest::Digest;
use placement::{
    ids::{Activation, NodeId},
    ledger::{Command, Entry},
    node::NodeInfo,
    resources::Resources,
};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

/// Generous: a busy machine is slow, and a test ends as soon as it is done.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// What is larger than this is a layer.
const LAYER: u64 = 64 << 10;

/// How a node gives layers away.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Gives {
    Well,
    /// One byte is another.
    Wrong,
    /// So many bytes, then the end.
    Short(usize),
    /// So many bytes, then nothing.
    Stuck(usize),
    /// So many bytes, then the node is gone.
    Gone(usize),
}

pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) id: NodeId,
    pub(crate) images: Images,
    pub(crate) cell: Cell,
    pub(crate) gives: Arc<Mutex<Gives>>,
    /// What it was asked for, by digest: how often.
    pub(crate) given: Arc<Mutex<BTreeMap<String, u32>>>,
    pub(crate) journal: Journal,
    pub(crate) dir: TempDir,
    members: watch::Receiver<BTreeMap<NodeId, gossip::peer::Peer>>,
    _driver: Driver,
}

/// All see each other. A name may have a rack: `h1/r1`.
pub(crate) async fn cell(names: &[&str]) -> Vec<Node> {
    cell_with(names, registry::Settings { patience: PATIENCE, ..registry::Settings::named_only() }).await
}

/// With these settings of registries.
pub(crate) async fn cell_with(names: &[&str], registries: registry::Settings) -> Vec<Node> {
    let authority = AuthorityKey::found("test").unwrap();
    let opened = authority.open("test").unwrap();
    let split = |name: &&str| {
        let (name, rack) = name.split_once('/').unwrap_or((name, ""));
        (name.to_string(), rack.to_string(), Key::generate().unwrap())
    };
    let keys: Vec<(String, String, Key)> = names.iter().map(split).collect();
    let roster: Vec<(NodeId, String, String)> =
        keys.iter().map(|(name, rack, key)| (key.node(), name.clone(), rack.clone())).collect();
    let mut nodes: Vec<Node> = Vec::new();
    for (name, _, key) in &keys {
        let me = credentials(&opened, &authority.certificate, key, name);
        let greet = nodes.first().map(|first| first.addr()).into_iter().collect();
        nodes.push(Node::start(name, me, greet, &roster, registries.clone()).await);
    }
    for node in &mut nodes {
        node.sees(names.len() - 1).await;
    }
    nodes
}

fn credentials(authority: &Authority, certificate: &str, key: &Key, name: &str) -> Credentials {
    let own = authority.issue(key.public(), name, SystemTime::now()).unwrap();
    Credentials::new(&key.pem(), &own, certificate).unwrap()
}

fn pace() -> Pace {
    Pace {
        answer: Duration::from_secs(5),
        piece: Duration::from_millis(300),
        again: Duration::from_millis(50),
        keep: Duration::from_millis(200),
    }
}

impl Node {
    async fn start(
        name: &str,
        me: Credentials,
        greet: Vec<SocketAddr>,
        roster: &[(NodeId, String, String)],
        registries: registry::Settings,
    ) -> Node {
        let (dir, id, cell_id) = (tempfile::tempdir().unwrap(), me.subject.node, me.cell.clone());
        let listen = "127.0.0.1:0".parse().unwrap();
        let driver =
            driver::start(Settings { me, listen, advertise: None, life: 1, seed: id.0, greet }).unwrap();
        let ledger = LedgerHandle::open(&dir.path().join("ledger.redb"), id).await.unwrap();
        let mut entries = vec![Command::Found { cell: cell_id, name: "test".into(), generation: 1 }];
        for (node, name, rack) in roster {
            entries.push(Command::Admit { node: *node, name: name.clone() });
            let labels = BTreeMap::from([("rack".to_string(), Some(rack.clone()).filter(|r| !r.is_empty()))]);
            entries.push(Command::Label { node: *node, labels });
        }
        let entry = |command| Entry { request: None, at_ms: 0, command };
        ledger.found(entries.into_iter().map(entry).collect()).await.unwrap();
        let (store, _) = Store::open(&dir.path().join("agent.redb"), false, 0, Box::new(|_, _| {})).unwrap();
        let journal = Journal::new(name, Vec::new(), store);
        let content = oci::content::Store::open(&dir.path().join("content")).unwrap();
        let cell = Cell::new(Peers::new(id, driver.transport.clone(), driver.members.clone()), ledger);
        let node = looked_at(id, name);
        let registries = Registries::open(registries, &dir.path().join("registries.json")).unwrap();
        let images =
            Images::with_pace(Arc::new(content), node, journal.clone(), cell.clone(), registries, pace());
        let gives = Arc::new(Mutex::new(Gives::Well));
        let given = Arc::new(Mutex::new(BTreeMap::new()));
        let members = driver.members.clone();
        let transport = driver.transport.clone();
        let mut driver = driver;
        let (_, nothing) = mpsc::channel(1);
        let arrived = std::mem::replace(&mut driver.arrived, nothing);
        tokio::spawn(serve(arrived, images.clone(), transport, gives.clone(), given.clone()));
        let name = name.to_string();
        Node { name, id, images, cell, gives, given, journal, dir, members, _driver: driver }
    }

    fn addr(&self) -> SocketAddr {
        self.cell.peers.transport().local_addr().unwrap()
    }

    pub(crate) async fn sees(&mut self, others: usize) {
        let seen = self.members.wait_for(|members| members.len() == others);
        let seen = tokio::time::timeout(PATIENCE, seen).await.is_ok_and(|seen| seen.is_ok());
        assert!(seen, "{} sees {} others, not {others}", self.name, self.members.borrow().len());
    }

    pub(crate) fn gives(&self, how: Gives) {
        *self.gives.lock().unwrap() = how;
    }

    /// How often it was asked for any layer or document.
    pub(crate) fn times_given(&self) -> Vec<u32> {
        self.given.lock().unwrap().values().copied().collect()
    }

    /// Every file of the store's blobs, layers and leftovers.
    pub(crate) fn content(&self) -> Vec<String> {
        let mut found = Vec::new();
        for dir in ["blobs/sha256", "layers", "tmp"] {
            for entry in std::fs::read_dir(self.dir.path().join("content").join(dir)).unwrap() {
                found.push(format!("{dir}/{}", entry.unwrap().file_name().to_str().unwrap()));
            }
        }
        found.sort();
        found
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let names = self.images.store().list().unwrap().names;
        names.into_iter().map(|named| named.reference.to_string()).collect()
    }

    /// Fetches until the phase is as wanted.
    pub(crate) async fn fetch_until(
        &self,
        name: &str,
        digest: Digest,
        wanted: impl FnMut(&Phase) -> bool,
    ) -> (watch::Receiver<Phase>, Phase) {
        let mut phase = self.images.fetch(name, digest);
        let waited = tokio::time::timeout(PATIENCE, phase.wait_for(wanted)).await;
        let seen = waited.ok().and_then(Result::ok).map(|seen| seen.clone());
        let Some(seen) = seen else { panic!("{} is still at {:?}", self.name, *phase.borrow()) };
        (phase, seen)
    }

    pub(crate) fn whole(&self, digest: &Digest) -> bool {
        let store = self.images.store();
        store.missing(digest).unwrap().is_empty() && store.ensure_unpacked(digest).is_ok()
    }
}

pub(crate) fn is_over(phase: &Phase) -> bool {
    matches!(phase, Phase::Done(_) | Phase::Failed(_))
}

/// A node's loop that only lets itself be looked at.
fn looked_at(id: NodeId, name: &str) -> NodeHandle {
    let (tell, mut told) = mpsc::unbounded_channel();
    let node = NodeInfo {
        id,
        name: name.into(),
        addr: String::new(),
        version: String::new(),
        labels: BTreeMap::new(),
        capacity: Resources::default(),
        images: Default::default(),
        volumes: Default::default(),
        bad: Vec::new(),
    };
    let config = Config {
        node,
        cell: "test".into(),
        life: 1,
        promise: Activation::default(),
        ports: 20_000..=20_010,
        first_port: 20_000,
        claims: false,
        estimate: None,
    };
    let (core, _) = Core::restore(config, Vec::new(), BTreeMap::new(), clock::now());
    tokio::spawn(async move {
        while let Some(message) = told.recv().await {
            if let NodeMsg::Read(look) = message {
                look(&core);
            }
        }
    });
    NodeHandle::new(tell)
}

async fn serve(
    mut arrived: mpsc::Receiver<Event>,
    images: Images,
    transport: Transport,
    gives: Arc<Mutex<Gives>>,
    given: Arc<Mutex<BTreeMap<String, u32>>>,
) {
    while let Some(event) = arrived.recv().await {
        let Event::Stream { lane: Lane::Ask, mut stream, .. } = event else { continue };
        let (images, transport, gives, given) =
            (images.clone(), transport.clone(), gives.clone(), given.clone());
        tokio::spawn(async move {
            let Ok(Some(Question::Image(question))) = stream.read::<Question>().await else { return };
            let gives = *gives.lock().unwrap();
            if let ImageQuestion::Blob { digest, from } = &question {
                *given.lock().unwrap().entry(digest.clone()).or_default() += 1;
                let (mut file, size) = images.store().blob(&digest.parse().unwrap()).unwrap();
                if size > LAYER && gives != Gives::Well {
                    let mut bytes = Vec::new();
                    file.read_to_end(&mut bytes).unwrap();
                    return give_badly(stream, gives, bytes, *from as usize, &transport).await;
                }
            }
            agent::images::answer(question, stream, &images).await;
        });
    }
}

/// The one who asks may leave at any time: that is no concern of this one's.
async fn give_badly(
    mut stream: Stream,
    gives: Gives,
    mut bytes: Vec<u8>,
    from: usize,
    transport: &Transport,
) {
    let size = bytes.len() as u64;
    let _ = stream.write(&Told::Image(ImageTold::Blob { size })).await;
    let some = match gives {
        Gives::Well => bytes.len(),
        Gives::Wrong => {
            // Later than any place from where another may be asked to go on.
            *bytes.last_mut().unwrap() ^= 1;
            bytes.len()
        }
        Gives::Short(n) | Gives::Stuck(n) | Gives::Gone(n) => (from + n).min(bytes.len()),
    };
    let _ = stream.outgoing.write_all(&bytes[from..some]).await;
    match gives {
        Gives::Stuck(_) => drop(stream.outgoing.stopped().await),
        Gives::Gone(_) => transport.close().await,
        _ => stream.finish().await,
    }
}
