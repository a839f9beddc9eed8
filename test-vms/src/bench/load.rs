//! Clients that ask servers again and again at a steady rate, whether they get answers or not.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

const THREADS: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs until it is asked for what came of it.
pub(crate) struct Load {
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Outcome>>,
    begun: Instant,
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) a_second: f64,
    pub(crate) failed: Vec<String>,
    pub(crate) slowest: Duration,
}

impl Load {
    /// So many requests a second to servers on these ports of this machine in turn: half of them on connections that are
    /// kept, each other on one of its own.
    pub(crate) fn start(a_second: u32, ports: &[u16]) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let gap = Duration::from_secs(1) * THREADS / a_second;
        let thread = |number| {
            let (end, ports) = (end.clone(), ports.to_vec());
            spawn(move || client(&ports, gap, gap * number / THREADS, &end))
        };
        Self { threads: (0..THREADS).map(thread).collect(), end, begun: Instant::now() }
    }

    pub(crate) fn stop(self) -> Outcome {
        self.end.store(true, Ordering::Relaxed);
        let mut all = Outcome::default();
        for thread in self.threads {
            match thread.join() {
                Ok(one) => {
                    all.requests += one.requests;
                    all.failed.extend(one.failed);
                    all.slowest = all.slowest.max(one.slowest);
                }
                Err(_) => all.failed.push("a client panicked".to_owned()),
            }
        }
        all.a_second = all.requests as f64 / self.begun.elapsed().as_secs_f64();
        all
    }
}

fn client(ports: &[u16], gap: Duration, after: Duration, end: &AtomicBool) -> Outcome {
    let mut all = Outcome::default();
    let mut kept = BTreeMap::new();
    let mut due = Instant::now() + after;
    for (round, port) in ports.iter().cycle().enumerate() {
        if end.load(Ordering::Relaxed) {
            break;
        }
        // Whoever is late asks at once, until he is not late any more.
        sleep(due.saturating_duration_since(Instant::now()));
        due += gap;
        let begun = Instant::now();
        // The ports take turns with both kinds.
        let asked = match (round / ports.len()) % 2 {
            0 => connect(*port).and_then(|mut stream| ask(&mut stream)),
            _ => match kept.remove(port).map_or_else(|| connect(*port), Ok) {
                Ok(mut stream) => ask(&mut stream).map(|()| drop(kept.insert(*port, stream))),
                Err(why) => Err(why),
            },
        };
        all.requests += 1;
        all.slowest = all.slowest.max(begun.elapsed());
        if let Err(why) = asked {
            all.failed.push(format!("port {port}: {why}"));
        }
    }
    all
}

type Stream = BufReader<TcpStream>;

fn connect(port: u16) -> std::io::Result<Stream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(BufReader::new(stream))
}

/// One request, and its whole answer.
fn ask(stream: &mut Stream) -> std::io::Result<()> {
    stream.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: task\r\n\r\n")?;
    let (mut status, mut length) = (String::new(), 0);
    stream.read_line(&mut status)?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    std::io::copy(&mut stream.by_ref().take(length), &mut std::io::sink())?;
    match status.starts_with("HTTP/1.1 200 ") && length > 0 {
        true => Ok(()),
        false => Err(std::io::Error::other(format!("it answered {status:?}"))),
    }
}
