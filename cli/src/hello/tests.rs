#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;

/// A server on a free loopback port.
struct Server {
    at: SocketAddr,
    end: watch::Sender<Option<Ending>>,
    state: Arc<State>,
    done: JoinHandle<Ending>,
}

async fn server() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (end, ending) = watch::channel(None);
    let state = Arc::new(State::new(end.clone()));
    let done = tokio::spawn(serve(listener, state.clone(), ending));
    Server { at, end, state, done }
}

/// Status and body of one request on a connection of its own.
async fn get(at: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn args(given: &[&str]) -> Result<Args, String> {
    Args::parse(given.iter().map(ToString::to_string), None)
}

#[test]
fn listens_where_it_is_told() {
    for (given, listen) in [
        (":8081", "0.0.0.0:8081"),
        ("127.0.0.1:1", "127.0.0.1:1"),
        ("localhost:2", "127.0.0.1:2"),
        ("[::1]:3", "[::1]:3"),
    ] {
        let expected = Args { listen: listen.parse().unwrap(), tick: None, exit_after: None };
        assert_eq!(args(&["--listen", given]), Ok(expected));
        assert!(args(&[&format!("--listen={given}")]).is_ok());
    }
    let port = Args::parse([], Some("20001".to_owned())).unwrap();
    assert_eq!(port.listen, "0.0.0.0:20001".parse().unwrap());
    let batch = args(&["--exit-after", "500"]).unwrap();
    assert_eq!((batch.listen.port(), batch.exit_after), (0, Some(Duration::from_millis(500))));
    assert_eq!(args(&["--tick", "5"]).unwrap().tick, Some(Duration::from_millis(5)));
}

#[test]
fn wrong_arguments_are_named() {
    for (given, named) in [
        (&["--listen"][..], "--listen needs a value"),
        (&["--listen", "web"], "\"web\""),
        (&["--listen", ":http"], "\":http\""),
        (&["--tick", "0"], "\"0\""),
        (&["--port"], "\"--port\""),
    ] {
        assert!(args(given).unwrap_err().contains(named), "{given:?}");
    }
}

#[tokio::test]
async fn answers() {
    let server = server().await;
    assert_eq!(get(server.at, "/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(get(server.at, "/").await.0, 200);
    assert_eq!(get(server.at, "/nothing").await.0, 404);
    let environment: BTreeMap<String, String> =
        serde_json::from_str(&get(server.at, "/env").await.1).unwrap();
    assert_eq!(environment.get("PATH"), env::var("PATH").ok().as_ref());
    let (status, vars) = get(server.at, "/vars").await;
    assert_eq!(status, 200);
    assert!(vars.contains("\nhello_requests_total 5\n"), "{vars}");
    assert!(vars.contains("\nhello_healthy 1\n"), "{vars}");
}

#[tokio::test]
async fn keeps_what_it_allocates() {
    let server = server().await;
    assert_eq!(get(server.at, "/alloc?mib=2").await, (200, "2 MiB kept\n".to_owned()));
    assert_eq!(get(server.at, "/alloc?mib=1").await, (200, "3 MiB kept\n".to_owned()));
    assert!(get(server.at, "/vars").await.1.contains("\nhello_kept_bytes 3145728\n"));
    assert_eq!(get(server.at, "/alloc").await.0, 400);
}

#[tokio::test]
async fn burns_and_logs_as_asked() {
    let server = server().await;
    assert_eq!(get(server.at, "/burn?cpu=0.5&seconds=0.02").await.0, 200);
    assert_eq!(get(server.at, "/burn?cpu=minus").await.0, 400);
    assert_eq!(get(server.at, "/wave?high=0.5&period=1&seconds=0.02").await.0, 200);
    assert_eq!(get(server.at, "/wave?high=0.5&period=0&seconds=1").await.0, 400);
    assert_eq!(get(server.at, "/work?us=100").await, (200, "worked 100 us\n".to_owned()));
    assert_eq!(get(server.at, "/burn?cpu=NaN").await.0, 400);
    assert_eq!(get(server.at, "/log?bytes=250").await, (200, "250 bytes written\n".to_owned()));
    assert!(get(server.at, "/vars").await.1.contains("\nhello_log_bytes_total 250\n"));
}

#[tokio::test]
async fn is_unkind_as_asked() {
    let server = server().await;
    assert_eq!(get(server.at, "/send?port=9&seconds=0").await.0, 200);
    assert_eq!(get(server.at, "/send?seconds=1").await, (400, "port=N is missing\n".to_owned()));
    let (hidden, at) =
        (get(server.at, "/hide?mib=1&at=/dev/shm").await, get(server.at, "/hide?mib=1&at=/no").await);
    assert_eq!((hidden.0, at.0), (200, 400));
    assert_eq!(get(server.at, "/reveal").await, (200, "1 files given back\n".to_owned()));
}

#[tokio::test]
async fn falls_ill_on_request() {
    let failing = server().await;
    assert_eq!(get(failing.at, "/fail").await.0, 200);
    assert_eq!(get(failing.at, "/healthz").await.0, 500);
    assert_eq!(get(failing.at, "/").await.0, 200);

    let hanging = server().await;
    assert_eq!(get(hanging.at, "/hang").await.0, 200);
    let probe = tokio::spawn(get(hanging.at, "/healthz"));
    while hanging.state.open.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    assert!(!probe.is_finished());
    // An ending frees the probe, so that a hung task needs no SIGKILL.
    hanging.end.send_replace(Some(Ending::Signal("SIGTERM")));
    assert_eq!(probe.await.unwrap().0, 503);
    assert_eq!(hanging.done.await.unwrap(), Ending::Signal("SIGTERM"));
}

#[tokio::test]
async fn ends_after_open_requests() {
    let server = server().await;
    // A connection that is open but idle must not hold it up.
    let idle = TcpStream::connect(server.at).await.unwrap();
    let slow = tokio::spawn(get(server.at, "/sleep?seconds=0.2"));
    while server.state.open.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    server.end.send_replace(Some(Ending::Signal("SIGTERM")));
    assert_eq!(slow.await.unwrap(), (200, "slept 0.2 s\n".to_owned()));
    assert_eq!(server.done.await.unwrap(), Ending::Signal("SIGTERM"));
    assert!(TcpStream::connect(server.at).await.is_err());
    drop(idle);
}

#[tokio::test]
async fn exits_with_the_code() {
    let server = server().await;
    assert_eq!(get(server.at, "/exit?code=300").await.0, 400);
    assert_eq!(get(server.at, "/exit?code=7").await, (200, "exiting with 7\n".to_owned()));
    assert_eq!(server.done.await.unwrap(), Ending::Code(7));
}
