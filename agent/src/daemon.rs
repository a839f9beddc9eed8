//! The agent: puts its parts together, and takes them apart.

mod company;
mod copy;
pub mod inbox;
mod line;
pub mod node;
pub mod placer;
mod streams;
mod twin;
mod voters;
mod ways;

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use gossip::{
    driver::{self, Driver, Settings},
    token::{BadToken, Token},
};
use oci::{
    cgroup::Tree,
    container::{ForkServer, Stock},
    network::{Networks, Spares},
    quota::Quotas,
};
use placement::{
    ids::{Activation, NodeId},
    ledger::{Command, Entry},
    node::NodeInfo,
    resources::Resources,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Notify, mpsc::unbounded_channel, watch},
    task::spawn_blocking,
};

use self::{inbox::NodeHandle, node::NodeLoop, placer::PlacerLoop};
use crate::{
    cell::Cell,
    certificates, clock,
    config::Config,
    core::{self, Core},
    dir::{DataDir, DirError},
    event::Event,
    guard, history,
    identity::{Held, Identity, IdentityError},
    images::{
        self, Images,
        registry::{Registries, RegistriesError},
    },
    join::{self, JoinError},
    journal::Journal,
    labels,
    ledger::{LedgerHandle, ProposeError},
    left::Left,
    limits, measure, memory,
    peers::Peers,
    runner::{Ground, Runner, ScanError},
    server::{self, ServerError, Services},
    session,
    store::{Store, StoreError},
    volumes::{
        self, Volumes,
        anonymous::{self, Anonymous},
    },
};

/// Ports that a node allots (INTERFACES).
const PORTS: std::ops::RangeInclusive<u16> = 20_000..=31_999;
/// The image that comes with covey, made of its own binary.
const HELLO: &str = "hello:1";
const RESTORED: &str = "the data directory is older than this machine remembers: it was put back from a copy. What its records \
                        name starts only when the placer says so";
/// How long containers of a throw-away cell have to end by themselves.
const DEV_GRACE: Duration = Duration::from_secs(2);

/// An agent that could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(
        "the agent at {addr} has this node's key: {dir} is a copy of its data directory, or the other way round. Leave that \
         one as it is, and start this one with an empty directory; or end that one first"
    )]
    Twin { dir: PathBuf, addr: SocketAddr },
    #[error("an agent makes containers, and so needs root: run it with sudo, or as a system service")]
    NotRoot,
    #[error(transparent)]
    Dir(#[from] DirError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error("{0}")]
    Token(#[from] BadToken),
    #[error("to join a cell this node needs a token: `covey token` on a member prints one (--token)")]
    NoToken,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot open the ledger: {0}")]
    Ledger(#[from] ProposeError),
    #[error(
        "the ledger of this node is gone: {0} is empty or new, and yet tasks were placed here. Put the file back from a \
         copy; or start with a new directory, after ending what still runs here"
    )]
    LedgerGone(PathBuf),
    #[error(transparent)]
    Registries(#[from] RegistriesError),
    #[error("cannot open the images: {0}")]
    Images(#[from] oci::content::Error),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("cannot {what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    ForkServer(Box<oci::container::Error>),
    #[error("cannot name the image of covey's own: {0}")]
    Hello(#[source] oci::reference::ParseError),
    #[error(transparent)]
    Scan(#[from] ScanError),
    #[error("the agent's start broke off")]
    Broken,
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] io::Error),
    #[error("{source}. Name another address or port (--listen IP:PORT), or end what uses it")]
    Listen { source: driver::StartError },
    #[error("cannot keep a copy of the ledger: {0}")]
    Copy(#[from] crate::ledger::CopyError),
    #[error("this node's certificate: {0}")]
    Credentials(#[from] gossip::tls::TlsError),
}

/// What an agent says of itself once it answers.
#[derive(Debug, Clone)]
pub struct Ready {
    pub node: NodeInfo,
    pub cell: String,
    pub socket: PathBuf,
    /// What will not work as it should here, and what to do.
    pub warnings: Vec<String>,
}

/// Runs an agent until SIGTERM or SIGINT, or until it cannot go on. `ready` is called once it answers on its socket.
/// Containers go on without it, but for those of a throw-away cell.
pub async fn run(config: Config, ready: impl FnOnce(Ready)) -> Result<(), AgentError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(AgentError::NotRoot);
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(AgentError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AgentError::Signals)?;
    memory::prepare();
    let mut warnings = limits::prepare();
    let dir = DataDir::open(&config.data)?;
    let identity = enter(&config, &dir).await?;
    twin::refuse(&dir, &identity).await?;
    // Before anything is made that a refused start would leave behind: another agent may hold the socket.
    let listener = server::listen(&config.socket).await?;
    let (tree, problems) = Tree::open(&identity.node.to_string());
    warnings.extend(problems.iter().map(|w| format!("{}: {} ({})", w.problem, w.effect, w.hint)));
    warnings.extend(measure::warnings());
    let content = content(&config, &dir).await?;
    let (to_node, from_all) = unbounded_channel();
    let node = NodeHandle::new(to_node);
    let teller = node.clone();
    let stored = Box::new(move |ticket, result| teller.tell(Event::Stored { ticket, result }));
    let life = twin::Life::of(&config, &identity);
    let known = life.as_ref().map_or(0, twin::Life::known);
    let (store, held) = Store::open(&dir.join("agent.redb"), !config.dev, known, stored)?;
    if let Some(Err(error)) = life.map(|life| life.remember(held.life)) {
        warnings.push(format!(
            "{error}: a data directory that is put back from a copy will not be recognised as one"
        ));
    }
    let (mut driver, addr) = driver(&config, &dir, &identity, held.life)?;
    let (news, arrived) = driver.hear();
    let peers = Peers::new(identity.node, driver.transport.clone(), driver.members.clone());
    peers.remember(identity.node, addr);
    twin::remember(&dir, addr)?;
    let ledger =
        LedgerHandle::open_among(&dir.join("ledger.redb"), identity.node, ways::ask(peers.clone())).await?;
    found(&ledger, &dir, &identity, held.promise).await?;
    let kept = ledger.copy(&dir.join("copy.redb")).await?;
    let cell = Cell::new(peers, ledger.clone());
    let journal = Journal::new(&identity.name, held.events, store.clone());
    if held.restored {
        warnings.push(RESTORED.to_string());
    }
    for (key, why) in &held.quarantined {
        warnings.push(format!("the record of task {key} cannot be read and was put aside: {why}"));
    }

    let mut info = info(&config, &identity, &tree, addr);
    let registries = Registries::open(config.registries.clone(), &dir.join("registries.json"))?;
    let images = Images::new(content, node.clone(), journal.clone(), cell.clone(), registries);
    let ground = ground(&config, &dir, &identity, images.clone(), tree, store.clone(), &mut warnings)?;
    let volumes = ground.volumes.clone();
    info.volumes = volumes.list();
    info.bad = held.bad;
    let runner = Runner::new(ground.clone(), node.clone());
    let found = runner.scan()?;
    let promise = held.promise.max(identity.admitted.unwrap_or_default());
    let about = core::Config {
        node: info.clone(),
        cell: identity.cell_name.clone(),
        life: held.life,
        promise,
        ports: PORTS,
        first_port: first_port(identity.node),
        claims: held.restored,
        estimate: measure::learned::read(config.estimate, held.learned, &mut warnings),
    };
    let (mut core, first) = Core::restore(about, held.records, found, clock::now());
    core.resume(history::keep::read(held.history, held.endings, &mut warnings));
    let (placer, placer_handle) = PlacerLoop::new(cell.clone(), node.clone(), journal.clone());

    let (cell_name, members) = (identity.cell_name.clone(), company::path(&dir));
    let who = Held::new(&dir, identity)?;
    let left = Arc::new(Notify::new());
    let (twin, mut meets_twin) = watch::channel(None);
    let services = Services {
        node: node.clone(),
        placer: placer_handle.clone(),
        cell: cell.clone(),
        identity: who.clone(),
        ledger: ledger.clone(),
        journal: journal.clone(),
        images: images.clone(),
        volumes: volumes.clone(),
        bundles: ground.bundles.clone(),
        tree: ground.tree.clone(),
        logs: ground.logs.clone(),
        left_files: ground.left.clone(),
        exe: ground.exe.clone(),
        left: left.clone(),
    };
    let services = Arc::new(services);
    tokio::spawn(measure::learned::keep(node.clone(), store.clone(), journal.clone()));
    tokio::spawn(history::keep::keep(node.clone(), store.clone(), journal.clone()));
    tokio::spawn(NodeLoop::new(core, store.clone(), runner, journal.clone()).run(first, from_all));
    tokio::spawn(placer.run());
    tokio::spawn(voters::run(cell.clone(), placer_handle, who.clone(), journal.clone()));
    tokio::spawn(voters::stand(cell.clone()));
    tokio::spawn(voters::let_go(cell.clone(), who.clone()));
    tokio::spawn(copy::keep(cell.clone(), kept));
    tokio::spawn(company::note(news, cell.clone(), journal.clone(), twin));
    tokio::spawn(company::follow(cell.clone(), journal.clone()));
    tokio::spawn(certificates::keep(cell.clone(), who.clone(), |why| tracing::warn!("{why}")));
    tokio::spawn(company::keep(cell.clone(), members));
    tokio::spawn(images::keep(images.clone()));
    tokio::spawn(images::tidy(images.clone(), config.collect, ground.logs.clone(), ground.left.clone()));
    tokio::spawn(images::report(images, node.clone()));
    tokio::spawn(volumes::report(volumes.clone(), node.clone()));
    tokio::spawn(volumes::keep(volumes, ground.bundles.clone(), cell.clone(), journal.clone()));
    tokio::spawn(anonymous::let_go(ground.anonymous.clone(), ground.bundles.clone(), node.clone()));
    tokio::spawn(memory::keep());
    let bounds = guard::Bounds { data: config.data.clone(), most: config.capacity.clone() };
    guard::start(ground.clone(), node.clone(), journal.clone(), bounds);
    tokio::spawn(guard::disk::run(ground.clone(), node.clone()));
    tokio::spawn(guard::signals::run(ground.clone(), node.clone(), journal.clone()));
    tokio::spawn(measure::guard::run(ground.clone(), node.clone()));
    tokio::spawn(measure::run(ground.clone(), node.clone(), journal.clone()));
    tokio::spawn(ground.clone().keep_server());
    tokio::spawn(streams::serve(arrived, services.clone()));
    let serving = tokio::spawn(server::serve(listener, services));

    journal.node("agent_started", format!("covey {} started", env!("CARGO_PKG_VERSION")));
    for warning in &warnings {
        journal.warn(warning.clone());
    }
    ready(Ready { node: info, cell: cell_name, socket: config.socket.clone(), warnings });

    let (mut gone, mut twin) = (false, None);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = left.notified() => gone = true,
        Ok(met) = meets_twin.wait_for(Option::is_some) => twin = *met,
    }
    serving.abort();
    let _ = fs::remove_file(&config.socket);
    let why = match twin {
        _ if gone => "this node has left the cell",
        Some(_) => "another agent with this node's key was here first; the containers here are ended",
        None => "told to end; containers go on",
    };
    measure::learned::keep_now(&node, &store).await;
    history::keep::keep_now(&node, &store).await;
    journal.node("agent_stopped", why.to_string());
    ledger.shutdown().await;
    if let Some(addr) = twin {
        // The cell knows nothing of what runs here, and starts it elsewhere. The next start looks there first.
        let _ = spawn_blocking(move || ground.end_all(DEV_GRACE)).await;
        twin::remember(&dir, addr)?;
        return Err(AgentError::Twin { dir: dir.path().to_path_buf(), addr });
    }
    if gone {
        let _ = spawn_blocking(move || driver.leave()).await;
        let _ = spawn_blocking(move || ground.end_all(DEV_GRACE)).await;
        dir.forget_cell()?;
    } else if config.dev {
        let _ = spawn_blocking(move || ground.end_all(DEV_GRACE)).await;
    } else if ground.tree.list().is_empty()
        && let Err(error) = ground.clear()
    {
        // Nothing runs, so nothing needs them; the next agent makes them again.
        tracing::debug!("the node's cgroups stay: {error}");
    }
    Ok(())
}

/// This node in its cell: the one of its directory, else the cell that it is to join, else a new one.
async fn enter(config: &Config, dir: &DataDir) -> Result<Identity, AgentError> {
    let (name, cell) = (config.name.as_deref(), config.cell.as_deref());
    if config.join.is_empty() || Identity::read(dir)?.is_some() {
        return Ok(Identity::open(dir, name, cell)?);
    }
    let token: Token = config.token.as_deref().ok_or(AgentError::NoToken)?.parse()?;
    let setback = |why: &str| tracing::warn!("not in the cell yet, trying again: {why}");
    Ok(join::join(dir, &config.join, &token, name, cell, setback).await?)
}

/// Opens the port, and looks for the others where they were.
fn driver(
    config: &Config,
    dir: &DataDir,
    identity: &Identity,
    life: u64,
) -> Result<(Driver, SocketAddr), AgentError> {
    let mut greet = company::kept(dir);
    greet.extend(identity.members.iter().copied());
    greet.extend(addresses(&config.join));
    let advertise = config.advertise.unwrap_or_else(|| reachable(config.listen, &greet));
    let settings = Settings {
        me: identity.credentials()?,
        listen: config.listen,
        advertise: (advertise.port() != 0).then_some(advertise),
        life,
        seed: session::fresh(),
        greet,
    };
    let driver = driver::start(settings).map_err(|source| AgentError::Listen { source })?;
    let port = driver.transport.local_addr().map_or(advertise.port(), |bound| bound.port());
    let addr = SocketAddr::new(advertise.ip(), if advertise.port() == 0 { port } else { advertise.port() });
    Ok((driver, addr))
}

/// Where names lead; what leads nowhere now is left out.
fn addresses(names: &[String]) -> Vec<SocketAddr> {
    names.iter().filter_map(|name| name.to_socket_addrs().ok()).flatten().collect()
}

/// An agent that listens on all addresses is reached by the one that leads to the others.
fn reachable(listen: SocketAddr, others: &[SocketAddr]) -> SocketAddr {
    if !listen.ip().is_unspecified() {
        return listen;
    }
    // Connecting a datagram socket sends nothing: it only asks the kernel for the way.
    let way = |to: &SocketAddr| {
        let socket = UdpSocket::bind((listen.ip(), 0)).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let anywhere: SocketAddr = ([192, 0, 2, 1], 9).into();
    let ip = others.iter().chain([&anywhere]).find_map(way).unwrap_or(Ipv4Addr::LOCALHOST.into());
    SocketAddr::new(ip, listen.port())
}

/// The content store, with `hello:1` made from this very binary if there is none yet.
async fn content(config: &Config, dir: &DataDir) -> Result<Arc<oci::content::Store>, AgentError> {
    let (exe, path) = (config.exe.clone(), dir.join("content"));
    let opened = spawn_blocking(move || {
        let store = oci::content::Store::open(&path)?;
        let name = HELLO.parse().map_err(AgentError::Hello)?;
        let hello = oci::binary::Binary { exe: &exe, name: "hello", cmd: &[] };
        oci::binary::image_from_binary(&store, &hello, &name)?;
        Ok(Arc::new(store))
    });
    opened.await.unwrap_or(Err(AgentError::Broken))
}

/// Founds the ledger if it is new: this node is then its cell's first member and sole voter. A node that has answered a
/// placer had a ledger: founding another in its place would disown all that runs and forget all that was asked for.
async fn found(
    ledger: &LedgerHandle,
    dir: &DataDir,
    identity: &Identity,
    promise: Activation,
) -> Result<(), AgentError> {
    if ledger.state().cell.is_some() {
        return Ok(());
    }
    if identity.admitted.is_some() {
        // It is another's ledger, of which a copy comes by and by.
        return Ok(());
    }
    if promise != Activation::default() {
        return Err(AgentError::LedgerGone(dir.join("ledger.redb")));
    }
    let entry = |command| Entry { request: None, at_ms: clock::now().wall_ms, command };
    let found =
        Command::Found { cell: identity.cell.clone(), name: identity.cell_name.clone(), generation: 1 };
    let admit = Command::Admit { node: identity.node, name: identity.name.clone() };
    Ok(ledger.found(vec![entry(found), entry(admit)]).await?)
}

/// Spread over the range by the node's id.
fn first_port(node: NodeId) -> u16 {
    let span = u64::from(PORTS.end() - PORTS.start()) + 1;
    PORTS.start() + u16::try_from(node.0 % span).unwrap_or(0)
}

fn info(config: &Config, identity: &Identity, tree: &Tree, addr: SocketAddr) -> NodeInfo {
    let detected = tree.capacity();
    let capacity = guard::capacity::of(tree, &config.data, &config.capacity);
    let mut labels = labels::detect(&Resources::new(detected.cpu_milli, detected.memory_bytes));
    labels.extend(config.labels.clone());
    NodeInfo {
        id: identity.node,
        name: identity.name.clone(),
        addr: addr.to_string(),
        version: env!("CARGO_PKG_VERSION").to_string(),
        labels,
        capacity,
        images: Default::default(),
        volumes: Default::default(),
        bad: Vec::new(),
    }
}

fn ground(
    config: &Config,
    dir: &DataDir,
    identity: &Identity,
    images: Images,
    tree: Tree,
    store: Store,
    warnings: &mut Vec<String>,
) -> Result<Arc<Ground>, AgentError> {
    let (bundles, logs) = (dir.join("bundles"), dir.join("logs"));
    for path in [&bundles, &logs] {
        fs::create_dir_all(path).map_err(|source| AgentError::Io {
            what: "create",
            path: path.clone(),
            source,
        })?;
    }
    let stock = dir.join("stock");
    let stock =
        Stock::open(stock.clone()).map_err(|source| AgentError::Io { what: "empty", path: stock, source })?;
    let idmaps = oci::rootfs::can_map_ids(images.store().root());
    if let Err(error) = &idmaps {
        warnings.push(format!("containers run without a user namespace of their own: {error}"));
    }
    let server = ForkServer::start(&config.exe, &tree).map_err(|e| AgentError::ForkServer(Box::new(e)))?;
    Ok(Arc::new(Ground {
        exe: config.exe.clone(),
        server,
        quotas: Quotas::of(&bundles),
        bundles,
        stock,
        logs,
        left: Left::new(dir.join("left")),
        images,
        tree,
        host: oci::spec::Host::detect(),
        store,
        networks: Networks::new(identity.node.0, config.subnet),
        spares: Spares::default(),
        limited_starts: Notify::default(),
        volumes: Volumes::new(dir.join("volumes")),
        anonymous: Anonymous::new(dir.join("anonymous")),
        idmaps: idmaps.is_ok(),
    }))
}
