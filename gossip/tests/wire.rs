//! The wire's encoding, frozen: a change of a field or a name is noticed here. `UPDATE=1` rewrites the golden file; a
//! diff that is more than an addition is a new protocol version.
#![allow(clippy::unwrap_used)]

mod golden;

use std::collections::BTreeMap;

use golden::{frozen, lines};
use gossip::{
    frame::{self, FrameError},
    membership::{Health as SeenAs, Seen},
    peer::Peer,
    wire::{
        Call, Delta, Exchange, FromAgent, Hello, JobName, LogPlace, LogStream, News, NotAmended, Offer,
        Order, PROTOCOL, ReadVersion, RefusedOffer, Reply, Request, Secret, SessionId, ToAgent, Welcome,
        lesson::{IndexLesson, JobLesson},
        stream::TerminalSize,
    },
};
use placement::{
    ids::{Activation, Generation, JobKey, NodeId, Principal, RequestId, TaskKey, Uid, Version},
    job::{Band, Health, Kind, Probe},
    ledger::{Refusal, Role},
    node::{Books, NodeInfo},
    resources::Resources,
    task::{Cause, Exit, Report, State, TaskSpec},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

const KEY: TaskKey = TaskKey { uid: Uid { cell: 1, index: 7 }, index: 2 };
const GENERATION: Generation = Generation { cell: 1, activation: 3, seq: 5 };
const SESSION: SessionId = SessionId { placer: 11, agent: 12 };
const VERSION: Version = Version { cell: 1, number: 4 };

fn job() -> JobKey {
    JobKey { owner: "root".into(), name: "web".into() }
}

fn name() -> JobName {
    JobName { owner: None, name: "web".into() }
}

fn exchanges() -> Vec<Exchange> {
    let peer = Peer { renewal: 2, ..Peer::new(NodeId(0xab), "10.0.0.1:7946".parse().unwrap(), 3) };
    let members =
        [SeenAs::Alive, SeenAs::Suspect, SeenAs::Dead].map(|health| Seen { peer, incarnation: 4, health });
    vec![
        Exchange::Compare { digest: "00000000000000ab".into() },
        Exchange::Same,
        Exchange::Members { members: members.to_vec() },
    ]
}

fn requests() -> Vec<Request> {
    let calls = vec![
        Call::Nodes,
        Call::Jobs,
        Call::Job { job: JobName { owner: Some("ann".into()), name: "web".into() } },
        Call::Tasks { job: None },
        Call::Task { job: name(), index: 1 },
        Call::Why { job: name(), index: Some(1) },
        Call::Events { job: None, node: Some("n1".into()), since_ms: Some(5), follow: true },
        Call::Run {
            document: json!({"name": "web", "task": {"image": "hello:1"}, "later": true}),
            owner: None,
            create: false,
            read: Some(ReadVersion { uid: KEY.uid, version: VERSION }),
            keep_images: false,
        },
        Call::Stop { job: name(), index: None },
        Call::Restart { job: name(), index: Some(0) },
        Call::Scale { job: name(), count: 3 },
        Call::Watch { job: name() },
        Call::Logs {
            job: name(),
            index: 0,
            follow: true,
            previous: false,
            tail: Some(10),
            from: Some(LogPlace { run: "1.7.2-1.3.5-0".into(), stdout: 10, stderr: 0 }),
            since_ms: None,
        },
        Call::Exec {
            job: name(),
            index: 0,
            command: vec!["sh".into(), "-c".into(), "id".into()],
            env: [("TERM".to_owned(), "xterm".to_owned())].into(),
            user: Some("0".into()),
            workdir: Some("/tmp".into()),
            terminal: Some(TerminalSize { rows: 24, columns: 80 }),
        },
        Call::Forward { job: name(), index: 0, port: "http".into() },
        Call::CopyOut { job: name(), index: 0, path: "/etc/hosts".into(), previous: false },
        Call::CopyOut { job: name(), index: 0, path: "/var/log".into(), previous: true },
        Call::CopyIn { job: name(), index: 0, path: "/tmp".into(), all: true },
        Call::Logs {
            job: name(),
            index: 0,
            follow: false,
            previous: true,
            tail: None,
            from: None,
            since_ms: Some(1_790_000_000_000),
        },
        Call::ImageLoad { path: "/a.tar".into(), name: Some("a:1".into()) },
        Call::ImageLs,
        Call::ImageRm { reference: "a:1".into() },
        Call::ImagePull { reference: "a:1".into() },
        Call::ImagePrune { unused_ms: 604_800_000 },
        Call::ImageLogin {
            registry: "r.example.org".into(),
            user: "ann".into(),
            password: Secret("p".into()),
        },
        Call::ImageLogout { registry: "r.example.org".into() },
        Call::VolumeRm { job: name(), index: 2, name: Some("data".into()), on: None },
        Call::Doctor,
        Call::Cell,
        Call::CellSet { lost_after_ms: Some(1000) },
        Call::Token {
            hash: "ab".repeat(32),
            role: Role::User,
            name: Some("ann".into()),
            uses: 1,
            ttl_ms: 86_400_000,
        },
        Call::Grant {
            principal: Principal("ann".into()),
            give: ["admin.jobs".to_string()].into(),
            take: ["host.path:/etc".to_string()].into(),
        },
        Call::Principals,
        Call::Label {
            node: "n1".into(),
            labels: [("rack".to_owned(), Some("r1".to_owned())), ("disk".to_owned(), None)].into(),
        },
        Call::NodeRemove { node: "n2".into(), leaves: false },
        Call::NodeRemove { node: "n2".into(), leaves: true },
        Call::Drain { node: "n2".into(), on: true },
        Call::Leave { deadline_ms: Some(60_000) },
    ];
    let request = |call| Request {
        protocol: PROTOCOL.into(),
        principal: Some(Principal("root".into())),
        id: RequestId("0123456789abcdef0123456789abcdef".into()),
        call,
    };
    calls.into_iter().map(request).collect()
}

fn replies() -> Vec<Reply> {
    vec![
        Reply::Item(json!({"name": "web"})),
        Reply::Progress { what: "loading".into(), done: 1, total: 2 },
        Reply::Log {
            run: "1.7.2-1.3.5-0".into(),
            stream: LogStream::Stderr,
            offset: 7,
            text: "a\n".into(),
            bytes: Vec::new(),
            lost: 3,
        },
        Reply::End,
        Reply::Error(Refusal {
            code: "conflict".into(),
            message: "it is version 4 now".into(),
            hint: Some("read it again".into()),
        }),
        Reply::NotPlacer { placer: Some(NodeId(0xab)) },
    ]
}

fn spec() -> TaskSpec {
    TaskSpec {
        job: job(),
        kind: Kind::Service,
        band: Band::Production,
        priority: 250,
        image: "hello:1".into(),
        digest: format!("sha256:{}", "ab".repeat(32)),
        command: Some(vec!["/hello".into()]),
        env: BTreeMap::from([("A".into(), "b".into())]),
        limit: Resources::new(250, 64 << 20),
        ports: vec!["http".into()],
        grace_ms: 10_000,
        health: Some(Health {
            probe: Probe::Http { http: "/healthz".into(), port: "http".into() },
            interval_ms: 2_000,
            timeout_ms: 1_000,
            failures: 3,
            start_ms: 30_000,
        }),
        ready: None,
        startup: None,
        container: Default::default(),
        estimate: true,
        restart_at: 0,
        retries: 3,
    }
}

fn report() -> Report {
    Report {
        key: KEY,
        job: job(),
        kind: Kind::Service,
        band: Band::Production,
        priority: 250,
        generation: GENERATION,
        version: VERSION,
        state: State::Running,
        image: "hello:1".into(),
        digest: format!("sha256:{}", "ab".repeat(32)),
        pid: Some(99),
        ports: BTreeMap::from([("http".into(), 20_000)]),
        address: None,
        restarts: 1,
        restart_at: 0,
        healthy: Some(true),
        ready: true,
        since_ms: 1_000,
        reason: None,
        exit: Some(Exit { code: None, signal: Some(9), cause: Cause::OomLimit }),
        limit: Resources::new(250, 64 << 20),
        reservation: Resources::new(250, 64 << 20),
        usage: Resources::default(),
        strain: None,
    }
}

fn lesson() -> JobLesson {
    let index = IndexLesson { peak: [240_000, 500_000], level: [90_000, 410_000], age_s: 60, seen_s: 7_200 };
    JobLesson {
        job: job(),
        peak: [250_000, 510_000],
        level: [100_000, 400_000],
        together: 20_000,
        age_s: 5,
        seen_s: 86_400,
        ended: 2,
        lived_s: 9_000,
        indexes: BTreeMap::from([(3, index)]),
    }
}

fn orders() -> Vec<ToAgent> {
    let (key, generation) = (KEY, GENERATION);
    let offer = |lesson: Option<JobLesson>| {
        let (version, spec, lesson) = (VERSION, spec(), lesson.map(Box::new));
        Box::new(Offer { key, generation, version, spec, remark: None, lesson })
    };
    let orders = vec![
        Order::Offer(offer(None)),
        Order::Stop { key, generation, reason: "the job was stopped".into() },
        Order::Keep { key, generation },
        Order::Forget { key },
        Order::Restart { key, generation, at: 9 },
        Order::Beat,
        Order::Amend(offer(None)),
        Order::Offer(offer(Some(lesson()))),
    ];
    let mut orders: Vec<ToAgent> = orders.into_iter().map(|order| ToAgent::new(SESSION, order)).collect();
    orders.push(ToAgent { lessons: vec![lesson()], ..ToAgent::new(SESSION, Order::Beat) });
    orders
}

fn news() -> Vec<FromAgent> {
    let mut books = Books::default();
    books.add(Band::Production, &Resources::new(250, 64 << 20), &Resources::new(250, 64 << 20));
    let node = NodeInfo {
        id: NodeId(0xfeed),
        name: "n1".into(),
        addr: "10.0.0.1:7411".into(),
        version: "0.1.0".into(),
        labels: BTreeMap::from([("arch".into(), "x86_64".into())]),
        capacity: Resources::new(2_000, 1 << 30),
        images: Default::default(),
        volumes: Default::default(),
        bad: Vec::new(),
    };
    let delta = || Delta { books: books.clone(), tasks: vec![report()], gone: vec![KEY], ..Delta::default() };
    let (key, generation) = (KEY, GENERATION);
    let refused = [
        RefusedOffer::Short { resource: "cpu_milli".into(), wanted: 250, free: 100 },
        RefusedOffer::NoPort { free: 0 },
        RefusedOffer::Stale { seen: GENERATION },
        RefusedOffer::Busy { generation: GENERATION },
        RefusedOffer::Succeeded { exit: Exit { code: Some(0), signal: None, cause: Cause::Exited } },
        RefusedOffer::Store { why: "the disk is full".into() },
    ];
    let full = News::Full { node, books: books.clone(), usage: Resources::default(), tasks: vec![report()] };
    let mut all = vec![full, News::Delta(delta()), News::Accepted { key, generation, delta: delta() }];
    all.extend(refused.map(|refused| News::Refused { key, generation, refused, delta: Delta::default() }));
    let not_amended = [
        NotAmended::Short { resource: "cpu_milli".into(), wanted: 250, free: 100 },
        NotAmended::Store { why: "the disk is full".into() },
        NotAmended::Rigid { why: "it uses more memory than that".into() },
    ];
    let version = VERSION;
    all.extend(not_amended.map(|why| News::NotAmended {
        key,
        generation,
        version,
        why,
        delta: Delta::default(),
    }));
    let number = |(n, news)| FromAgent { session: SESSION, number: n as u64, news, lessons: Vec::new() };
    let mut all: Vec<FromAgent> = all.into_iter().enumerate().map(number).collect();
    let news = News::Delta(Delta::default());
    all.push(FromAgent { session: SESSION, number: all.len() as u64, news, lessons: vec![lesson()] });
    let short = Books { short: [("disk_bytes", 1 << 29)].into_iter().collect(), ..Books::default() };
    let news = News::Delta(Delta { books: short, ..Delta::default() });
    all.push(FromAgent { session: SESSION, number: all.len() as u64, news, lessons: Vec::new() });
    all
}

fn hello() -> Hello {
    let activation = Activation { cell: 1, index: 3 };
    Hello { protocol: PROTOCOL.into(), placer: NodeId(0xfeed), activation, fresh: 11 }
}

fn welcomes() -> Vec<Welcome> {
    vec![Welcome::Open { session: SESSION, life: 2 }, Welcome::Promised(Activation { cell: 1, index: 4 })]
}

/// One of each, as a line of JSON.
fn all() -> Vec<String> {
    let old = [
        lines(requests()),
        lines(replies()),
        lines(vec![hello()]),
        lines(welcomes()),
        lines(orders()),
        lines(news()),
        lines(exchanges()),
    ];
    old.concat()
}

#[test]
fn the_wire_is_as_it_was() {
    frozen("wire", &all());
}

/// Writes, adds a field that nobody knows to every object, and reads: nothing is lost and nothing refused.
fn survives<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(messages: Vec<T>) {
    for message in messages {
        let mut value = serde_json::to_value(&message).unwrap();
        if let Value::Object(fields) = &mut value
            && fields.len() > 1
        {
            fields.insert("of_a_later_version".into(), json!({"x": 1}));
        }
        assert_eq!(serde_json::from_value::<T>(value).unwrap(), message);
    }
}

#[test]
fn unknown_fields_do_no_harm() {
    survives(exchanges());
    survives(requests());
    survives(vec![hello()]);
    survives(orders());
    survives(news());
}

#[tokio::test]
async fn frames_come_back_whole_and_end_cleanly() {
    let mut stream = Vec::new();
    for message in requests() {
        frame::write(&mut stream, &message).await.unwrap();
    }
    let mut rest = stream.as_slice();
    for message in requests() {
        assert_eq!(frame::read::<Request>(&mut rest).await.unwrap(), Some(message));
    }
    assert_eq!(frame::read::<Request>(&mut rest).await.unwrap(), None);
}

#[tokio::test]
async fn a_stream_cut_anywhere_inside_a_frame_is_broken_and_never_a_message() {
    let bytes = frame::encode(&hello()).unwrap();
    assert_eq!(&bytes[..4], u32::try_from(bytes.len() - 4).unwrap().to_be_bytes());
    for cut in 1..bytes.len() {
        let read = frame::read::<Hello>(&mut &bytes[..cut]).await;
        assert!(matches!(read, Err(FrameError::Broken(_))), "cut at {cut}: {read:?}");
    }
}

#[tokio::test]
async fn an_oversized_frame_is_refused_before_it_is_read() {
    let mut bytes = (frame::MAX as u32 + 1).to_be_bytes().to_vec();
    bytes.extend([b' '; 64]);
    let read = frame::read::<Hello>(&mut bytes.as_slice()).await;
    assert!(matches!(read, Err(FrameError::TooLong(n)) if n == frame::MAX + 1), "{read:?}");
    let long = "x".repeat(frame::MAX);
    assert!(matches!(frame::encode(&long), Err(FrameError::TooLong(_))));
}

#[tokio::test]
async fn garbage_is_named_as_such() {
    for garbage in ["", "{", "[]", "{\"protocol\":1}", "\u{0}\u{1}"] {
        let mut bytes = u32::try_from(garbage.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend(garbage.as_bytes());
        let read = frame::read::<Hello>(&mut bytes.as_slice()).await;
        assert!(matches!(read, Err(FrameError::Garbled(_))), "{garbage:?}: {read:?}");
    }
}
