//! Health checks over HTTP, from the node itself: they go on when the node is cut off.

use std::{net::Ipv4Addr, time::Duration};

use http_body_util::Empty;
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use placement::job::{Health, Probe};
use tokio::{
    net::TcpStream,
    time::{MissedTickBehavior, interval, timeout},
};

/// Checks for ever, each `interval`; `tell` gets each result and ends the checking by answering false.
pub async fn watch(health: Health, port: u16, mut tell: impl FnMut(bool, String) -> bool) {
    // A task that is ready quickly should be seen ready quickly: until the first success checks come faster.
    let mut eager = FIRST;
    loop {
        let (ok, text) = check(&health, port).await;
        if !tell(ok, text) {
            return;
        }
        if ok {
            break;
        }
        tokio::time::sleep(eager.min(Duration::from_millis(health.interval_ms))).await;
        eager = eager.saturating_mul(2);
    }
    let mut ticks = interval(Duration::from_millis(health.interval_ms.max(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let (ok, text) = check(&health, port).await;
        if !tell(ok, text) {
            return;
        }
    }
}

/// The first wait after a failed check of a task that has not been healthy yet; it doubles up to the interval.
const FIRST: Duration = Duration::from_millis(10);

/// One check: whether it is healthy, and what was seen.
async fn check(health: &Health, port: u16) -> (bool, String) {
    let Probe::Http { http, .. } = &health.probe else { return (true, "is not checked".into()) };
    let url = format!("http://127.0.0.1:{port}{http}");
    match timeout(Duration::from_millis(health.timeout_ms), get(&url, http, port)).await {
        Ok(Ok(status)) => ((200..400).contains(&status), format!("GET {url} answered {status}")),
        Ok(Err(why)) => (false, format!("GET {url} failed: {why}")),
        Err(_) => (false, format!("GET {url} did not answer within {} ms", health.timeout_ms)),
    }
}

async fn get(url: &str, path: &str, port: u16) -> Result<u16, String> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.map_err(|e| e.to_string())?;
    let (mut sender, connection) =
        http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let request = Request::get(path)
        .header("host", format!("127.0.0.1:{port}"))
        .header("user-agent", "covey-health")
        .header("connection", "close")
        .body(Empty::new())
        .map_err(|e| format!("{url}: {e}"))?;
    let answer = sender.send_request(request);
    tokio::pin!(answer);
    // The connection must be driven while the answer is awaited; both may end in the same instant.
    let answer = tokio::select! {
        answer = &mut answer => answer,
        ended = connection => match ended {
            Ok(()) => answer.await,
            Err(why) => Err(why),
        },
    };
    answer.map(|a| a.status().as_u16()).map_err(|e| e.to_string())
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
    async fn server(answers: Vec<&'static str>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
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
        port
    }

    #[tokio::test]
    async fn says_what_it_saw() {
        let port = server(vec![
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
            "nonsense\r\n\r\n",
            "",
        ])
        .await;
        let mut seen = Vec::new();
        watch(health(), port, |ok, text| {
            seen.push((ok, text.replace(&port.to_string(), "PORT")));
            seen.len() < 4
        })
        .await;
        assert_eq!(seen[0], (true, "GET http://127.0.0.1:PORT/healthz answered 200".to_string()));
        assert_eq!(seen[1], (false, "GET http://127.0.0.1:PORT/healthz answered 500".to_string()));
        assert!(!seen[2].0 && seen[2].1.contains("failed: "), "{:?}", seen[2]);
        let hung = "GET http://127.0.0.1:PORT/healthz did not answer within 300 ms";
        assert_eq!(seen[3], (false, hung.to_string()));
    }

    #[tokio::test]
    async fn nobody_there_is_unhealthy() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let mut seen = None;
        watch(health(), port, |ok, text| {
            seen = Some((ok, text));
            false
        })
        .await;
        let (ok, text) = seen.unwrap();
        assert!(!ok && text.contains("refused"), "{text}");
    }
}
