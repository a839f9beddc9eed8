//! Checks of tasks, from the node itself: they go on when the node is cut off. A timer for each, no thread.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use oci::{
    bundle::Bundle,
    exec::{self, Exec},
};
use placement::job::{Check, Health, Probe, expand::expand};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::spawn_blocking,
    time::{Instant, sleep_until, timeout},
};

/// What is checked.
#[derive(Debug, Clone)]
pub enum Target {
    Port(SocketAddr),
    /// The container of this bundle, in which commands are run; by this covey binary.
    Container {
        exe: PathBuf,
        bundle: Bundle,
    },
}

/// The first wait after a failed check of a task that has not been healthy yet; it doubles up to the interval.
const FIRST: Duration = Duration::from_millis(10);
/// The same of a command, which costs more.
const FIRST_COMMAND: Duration = Duration::from_millis(100);
/// A status line is not longer; nor is what is kept of a command's output.
const ANSWER: usize = 4096;
/// Characters of a line that are shown.
const SHOWN: usize = 100;

/// Checks, one after the other, each `interval` from begin to begin; the startup check until its first success. `tell` gets
/// each result, of successes in a row the first, and ends the checking by answering false. `good`: that was a success
/// before, so that another is no news.
pub async fn watch(
    check: Check,
    health: Health,
    of: Target,
    mut good: bool,
    mut tell: impl FnMut(bool, String) -> bool,
) {
    let interval = Duration::from_millis(health.interval_ms.max(1));
    let command = match (&of, &health.probe) {
        (Target::Container { exe, bundle }, Probe::Command { command }) => {
            Some(Command::new(exe.clone(), bundle.clone(), command.clone()).await)
        }
        _ => None,
    };
    // A task that is ready quickly should be seen ready quickly: until the first success checks come faster.
    let mut pause = match &command {
        _ if good => interval,
        Some(_) => FIRST_COMMAND,
        None => FIRST,
    };
    loop {
        let begun = Instant::now();
        let (ok, text) = match (&of, &command) {
            (_, Some(Ok(command))) => command.once(health.timeout_ms).await,
            (_, Some(Err(why))) => (false, why.clone()),
            (Target::Port(to), None) => once(&health, *to).await,
            (Target::Container { .. }, None) => (false, "there is no port to check".to_string()),
        };
        let known = ok && good;
        let go_on = known || tell(ok, text);
        if !go_on || ok && check == Check::Startup {
            return;
        }
        good = ok;
        if ok {
            pause = interval;
        }
        sleep_until(begun + pause.min(interval)).await;
        pause = pause.saturating_mul(2);
    }
}

/// A command to run in the container, again and again.
struct Command {
    exe: PathBuf,
    bundle: Bundle,
    exec: Arc<Exec>,
    /// As people know it.
    shown: String,
}

impl Command {
    /// Its variables are the container's.
    async fn new(exe: PathBuf, bundle: Bundle, words: Vec<String>) -> Result<Command, String> {
        let shown = words.join(" ");
        let of = bundle.clone();
        let args = spawn_blocking(move || {
            let spec = of.spec().map_err(|e| e.to_string())?;
            let env = spec.process().as_ref().and_then(|p| p.env().clone()).unwrap_or_default();
            let env = env.iter().filter_map(|pair| pair.split_once('='));
            let env: BTreeMap<String, String> = env.map(|(n, v)| (n.to_string(), v.to_string())).collect();
            words.iter().map(|word| expand(word, &env).map_err(|e| e.to_string())).collect::<Result<_, _>>()
        });
        let args: Vec<String> = args.await.map_err(|e| e.to_string())??;
        Ok(Command { exe, bundle, exec: Arc::new(Exec { args, ..Exec::default() }), shown })
    }

    /// One check. Ends with the command, which is killed when its time is over: checks never overlap.
    async fn once(&self, timeout_ms: u64) -> (bool, String) {
        let (exe, bundle, exec) = (self.exe.clone(), self.bundle.clone(), self.exec.clone());
        let most = Duration::from_millis(timeout_ms);
        let ran = spawn_blocking(move || exec::run(&exe, &bundle, &exec, most, ANSWER as u64)).await;
        let shown = &self.shown;
        let output = match ran {
            Ok(Ok(output)) => output,
            Ok(Err(why)) => return (false, format!("`{shown}` was not run: {why}")),
            Err(why) => return (false, format!("`{shown}` was not run: {why}")),
        };
        let text = String::from_utf8_lossy(&output.text);
        let line: String = text.lines().next().unwrap_or_default().chars().take(SHOWN).collect();
        let said = if line.is_empty() { String::new() } else { format!(": {line}") };
        match output.status {
            None => (false, format!("`{shown}` did not end within {timeout_ms} ms{said}")),
            Some(status) => match (status.code, status.signal) {
                (Some(code), _) => (code == 0, format!("`{shown}` exited with code {code}{said}")),
                (None, signal) => {
                    (false, format!("`{shown}` was ended by signal {}{said}", signal.unwrap_or_default()))
                }
            },
        }
    }
}

/// One check of a port: whether it is good, and what was seen.
async fn once(health: &Health, to: SocketAddr) -> (bool, String) {
    let (most, ms) = (Duration::from_millis(health.timeout_ms), health.timeout_ms);
    let Probe::Http { http, .. } = &health.probe else {
        return match timeout(most, TcpStream::connect(to)).await {
            Ok(Ok(_)) => (true, format!("{to} accepts connections")),
            Ok(Err(why)) => (false, format!("no connection to {to}: {why}")),
            Err(_) => (false, format!("no connection to {to} within {ms} ms")),
        };
    };
    match timeout(most, get(to, http)).await {
        Ok(Ok(status)) => ((200..400).contains(&status), format!("GET http://{to}{http} answered {status}")),
        Ok(Err(why)) => (false, format!("GET http://{to}{http} failed: {why}")),
        Err(_) => (false, format!("GET http://{to}{http} did not answer within {ms} ms")),
    }
}

/// The answer's status. By hand: for hundreds of checks a second a client that keeps nothing and allocates little.
async fn get(to: SocketAddr, path: &str) -> Result<u16, String> {
    let mut stream = TcpStream::connect(to).await.map_err(|e| e.to_string())?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {to}\r\nuser-agent: covey-health\r\naccept: */*\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(|e| e.to_string())?;
    let (mut answer, mut len) = ([0; ANSWER], 0);
    loop {
        let n = stream.read(&mut answer[len..]).await.map_err(|e| e.to_string())?;
        len += n;
        if let Some(end) = answer[..len].iter().position(|b| *b == b'\n') {
            return status(&answer[..end]);
        }
        if n == 0 {
            return Err(format!("the answer ended after {len} bytes without a status line"));
        }
    }
}

/// Of `HTTP/1.1 200 OK`.
fn status(line: &[u8]) -> Result<u16, String> {
    let text = String::from_utf8_lossy(line.trim_ascii());
    let mut words = text.split_ascii_whitespace();
    let version = words.next().filter(|word| word.starts_with("HTTP/1."));
    let code = words.next().filter(|word| word.len() == 3).and_then(|word| word.parse().ok());
    version
        .and(code)
        .ok_or_else(|| format!("it does not speak HTTP: {:?}", text.chars().take(40).collect::<String>()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    fn health() -> Health {
        Health {
            probe: Probe::Http { http: "/healthz".into(), port: "http".into() },
            interval_ms: 1,
            timeout_ms: 300,
            failures: 3,
            start_ms: 0,
        }
    }

    /// Serves the given answers, one connection each; an empty one hangs.
    async fn server(answers: Vec<&'static str>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut kept = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 512];
                let n = stream.read(&mut request).await.unwrap();
                assert!(request[..n].starts_with(b"GET /healthz HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).await.unwrap();
                if answer.is_empty() {
                    kept.push(stream);
                }
            }
            std::future::pending::<()>().await;
        });
        address
    }

    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

    #[tokio::test]
    async fn says_what_it_saw_and_of_successes_in_a_row_the_first() {
        let no = "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n";
        let to = server(vec![OK, OK, no, "nonsense\r\n\r\n", ""]).await;
        let mut seen = Vec::new();
        watch(Check::Live, health(), Target::Port(to), false, |ok, text| {
            seen.push((ok, text.replace(&to.to_string(), "TO")));
            seen.len() < 4
        })
        .await;
        assert_eq!(seen[0], (true, "GET http://TO/healthz answered 200".to_string()));
        assert_eq!(seen[1], (false, "GET http://TO/healthz answered 500".to_string()));
        let nonsense = "GET http://TO/healthz failed: it does not speak HTTP: \"nonsense\"";
        assert_eq!(seen[2], (false, nonsense.to_string()));
        let hung = "GET http://TO/healthz did not answer within 300 ms";
        assert_eq!(seen[3], (false, hung.to_string()));
    }

    #[tokio::test]
    async fn what_was_good_is_checked_no_faster_and_its_first_success_is_no_news() {
        let to = server(vec![OK, "", ""]).await;
        let patient = Health { interval_ms: 200, timeout_ms: 50, ..health() };
        let (mut seen, begun) = (Vec::new(), Instant::now());
        watch(Check::Live, patient, Target::Port(to), true, |ok, _| {
            seen.push((ok, begun.elapsed() >= Duration::from_millis(200 * (seen.len() as u64 + 1))));
            seen.len() < 2
        })
        .await;
        assert_eq!(seen, [(false, true), (false, true)]);
    }

    #[tokio::test]
    async fn the_startup_check_ends_with_its_success() {
        let to = server(vec!["HTTP/1.1 404 No\r\n\r\n", OK]).await;
        let mut seen = Vec::new();
        watch(Check::Startup, health(), Target::Port(to), false, |ok, _| {
            seen.push(ok);
            true
        })
        .await;
        assert_eq!(seen, [false, true]);
    }

    #[tokio::test]
    async fn a_port_is_open_or_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        for (probe, word) in [
            (Probe::Tcp { tcp: "http".into() }, "no connection"),
            (Probe::Http { http: "/".into(), port: "http".into() }, "refused"),
        ] {
            let health = Health { probe, ..health() };
            if word == "no connection" {
                assert_eq!(once(&health, to).await, (true, format!("{to} accepts connections")));
            }
            let nobody = "127.0.0.1:1".parse().unwrap();
            let (ok, text) = once(&health, nobody).await;
            assert!(!ok && text.contains(word), "{text}");
        }
    }
}
