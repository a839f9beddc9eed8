//! What `hello` answers, path by path.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use tokio::sync::watch;

use super::{Ending, unkind};

const HEALTHY: u8 = 0;
const FAILING: u8 = 1;
const HANGING: u8 = 2;
const MIB: usize = 1 << 20;
/// Length of a line that `/log` writes, its newline included.
const LOG_LINE: usize = 100;

/// Everything that outlives a request.
pub(super) struct State {
    end: watch::Sender<Option<Ending>>,
    health: AtomicU8,
    kept: Mutex<Vec<Vec<u8>>>,
    hidden: Mutex<Vec<File>>,
    started: Instant,
    /// Requests being answered now.
    pub(super) open: AtomicU64,
    requests: AtomicU64,
    kept_bytes: AtomicU64,
    burns: AtomicU64,
    log_bytes: AtomicU64,
    log_lines: AtomicU64,
}

impl State {
    pub(super) fn new(end: watch::Sender<Option<Ending>>) -> Self {
        Self {
            end,
            health: AtomicU8::new(HEALTHY),
            kept: Mutex::new(Vec::new()),
            hidden: Mutex::new(Vec::new()),
            started: Instant::now(),
            open: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            kept_bytes: AtomicU64::new(0),
            burns: AtomicU64::new(0),
            log_bytes: AtomicU64::new(0),
            log_lines: AtomicU64::new(0),
        }
    }

    /// Requests begun since the start.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Writes one whole line to stdout and counts its bytes.
    pub(super) fn write_line(&self, line: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(format!("{line}\n").as_bytes())?;
        out.flush()?;
        self.log_bytes.fetch_add(line.len() as u64 + 1, Ordering::Relaxed);
        Ok(())
    }
}

type Answer = Response<Full<Bytes>>;

/// Answers one request; errors are answers too.
pub(super) async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    state.requests.fetch_add(1, Ordering::Relaxed);
    state.open.fetch_add(1, Ordering::Relaxed);
    // A dropped future (the client went away) must not stay counted as open.
    let _open = Open(&state);
    let query = Query(request.uri().query().unwrap_or_default());
    let answered = match request.uri().path() {
        "/" => Ok(text(greeting())),
        "/healthz" => Ok(health(&state).await),
        "/env" => Ok(environment()),
        "/vars" => Ok(text(vars(&state))),
        "/burn" => burn(&state, query),
        "/wave" => wave(query),
        "/work" => work(query),
        "/write" => unkindly(query, "mib", unkind::write),
        "/send" => unkindly(query, "port", unkind::send),
        "/fork" => unkind::fork().map(|()| text("forking\n".to_owned())).map_err(|why| why.to_string()),
        "/hide" => hide(&state, query).await,
        "/reveal" => reveal(&state).await,
        "/alloc" => alloc(&state, query).await,
        "/log" => log(&state, query).await,
        "/sleep" => sleep(query).await,
        "/fail" => Ok(fall_ill(&state, FAILING, "health fails from now on\n")),
        "/hang" => Ok(fall_ill(&state, HANGING, "health hangs from now on\n")),
        "/exit" => exit(&state, query),
        path => Ok(with_status(StatusCode::NOT_FOUND, format!("hello knows no {path}\n"))),
    };
    Ok(answered.unwrap_or_else(|wrong| with_status(StatusCode::BAD_REQUEST, format!("{wrong}\n"))))
}

struct Open<'a>(&'a State);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn greeting() -> String {
    let of = |name| std::env::var(name).unwrap_or_else(|_| "-".to_owned());
    let greeting = std::env::var("GREETING").unwrap_or_else(|_| "hello".to_owned());
    format!("{greeting} from {}/{} on {}\n", of("COVEY_JOB"), of("COVEY_INDEX"), of("COVEY_NODE"))
}

async fn health(state: &State) -> Answer {
    match state.health.load(Ordering::Relaxed) {
        HEALTHY => text("ok\n".to_owned()),
        FAILING => with_status(StatusCode::INTERNAL_SERVER_ERROR, "failing since /fail\n".to_owned()),
        _ => {
            // Hangs, but not in the way of an ending: else only SIGKILL would be left.
            let _ = state.end.subscribe().wait_for(Option::is_some).await;
            with_status(StatusCode::SERVICE_UNAVAILABLE, "hung since /hang, ending now\n".to_owned())
        }
    }
}

fn fall_ill(state: &State, health: u8, said: &str) -> Answer {
    state.health.store(health, Ordering::Relaxed);
    text(said.to_owned())
}

fn environment() -> Answer {
    let all: BTreeMap<String, String> = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect();
    match serde_json::to_vec(&all) {
        Ok(json) => typed(StatusCode::OK, "application/json", json),
        Err(why) => with_status(StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")),
    }
}

/// Prometheus' text format, version 0.0.4.
fn vars(state: &State) -> String {
    let healthy = u64::from(state.health.load(Ordering::Relaxed) == HEALTHY);
    let rows = [
        ("hello_requests_total", "counter", "Requests begun.", state.requests()),
        ("hello_requests_open", "gauge", "Requests being answered.", state.open.load(Ordering::Relaxed)),
        ("hello_burns_total", "counter", "Burns begun.", state.burns.load(Ordering::Relaxed)),
        (
            "hello_log_bytes_total",
            "counter",
            "Bytes written by /log.",
            state.log_bytes.load(Ordering::Relaxed),
        ),
        ("hello_kept_bytes", "gauge", "Bytes kept by /alloc.", state.kept_bytes.load(Ordering::Relaxed)),
        ("hello_healthy", "gauge", "1 until /fail or /hang.", healthy),
        ("hello_uptime_seconds", "gauge", "Since the start.", state.started.elapsed().as_secs()),
    ];
    let mut text = String::new();
    for (name, kind, help, value) in rows {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    }
    text
}

/// Burns in the background, so that the asker can watch; a fraction of a CPU is a share of each 10 ms.
fn burn(state: &State, query: Query) -> Result<Answer, String> {
    const SLICE: Duration = Duration::from_millis(10);
    let cpu: f64 = query.number("cpu", Some(1.0))?;
    let seconds: f64 = query.number("seconds", Some(1.0))?;
    if !(0.0..=1024.0).contains(&cpu) || !(0.0..=86_400.0).contains(&seconds) {
        return Err("cpu is from 0 to 1024, seconds from 0 to 86400".to_owned());
    }
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let mut rest = cpu;
    while rest > 0.0 {
        let share = rest.min(1.0);
        rest -= share;
        std::thread::Builder::new()
            .name("burn".to_owned())
            .spawn(move || {
                while Instant::now() < until {
                    let slice = Instant::now();
                    while slice.elapsed() < SLICE.mul_f64(share) {
                        std::hint::spin_loop();
                    }
                    std::thread::sleep(SLICE.mul_f64(1.0 - share));
                }
            })
            .map_err(|why| format!("cannot start a thread to burn: {why}"))?;
    }
    state.burns.fetch_add(1, Ordering::Relaxed);
    Ok(text(format!("burning {cpu} cpu for {seconds} s\n")))
}

/// Burns in the background between `low` and `high` of a CPU, there and back in `period` seconds, as the load of a day does.
fn wave(query: Query) -> Result<Answer, String> {
    const SLICE: Duration = Duration::from_millis(10);
    let (low, high): (f64, f64) = (query.number("low", Some(0.0))?, query.number("high", Some(1.0))?);
    let (period, seconds): (f64, f64) = (query.number("period", Some(60.0))?, query.number("seconds", None)?);
    if !(0.0..=1.0).contains(&low)
        || !(low..=1.0).contains(&high)
        || period <= 0.0
        || !(0.0..=86_400.0).contains(&seconds)
    {
        return Err("low and high are from 0 to 1, period above 0, seconds from 0 to 86400".to_owned());
    }
    let run = move || {
        let begun = Instant::now();
        while begun.elapsed().as_secs_f64() < seconds {
            let slice = Instant::now();
            let turn = begun.elapsed().as_secs_f64() / period * std::f64::consts::TAU;
            let share = low + (high - low) * (1.0 - turn.cos()) / 2.0;
            while slice.elapsed() < SLICE.mul_f64(share) {
                std::hint::spin_loop();
            }
            std::thread::sleep(SLICE.mul_f64(1.0 - share));
        }
    };
    std::thread::Builder::new().spawn(run).map_err(|why| format!("cannot start a thread: {why}"))?;
    Ok(text(format!("between {low} and {high} cpu for {seconds} s\n")))
}

/// An answer that takes so much CPU time, before any other is begun.
fn work(query: Query) -> Result<Answer, String> {
    let micros: u64 = query.number("us", Some(1000))?;
    let time = || nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
    let wrong = |why| format!("the kernel counts no CPU time: {why}");
    let until = time().map_err(wrong)? + Duration::from_micros(micros.min(1_000_000));
    while time().map_err(wrong)? < until {
        (0..1000).for_each(|_| std::hint::spin_loop());
    }
    Ok(text(format!("worked {micros} us\n")))
}

async fn alloc(state: &Arc<State>, query: Query<'_>) -> Result<Answer, String> {
    let mib: usize = query.number("mib", None)?;
    let state = state.clone();
    // Touching takes a while, and longer where memory is short; the health check goes on meanwhile.
    aside(move || {
        for _ in 0..mib {
            let mut block = Vec::new();
            block.try_reserve_exact(MIB).map_err(|why| format!("no memory: {why}"))?;
            block.resize(MIB, 1u8);
            state.kept.lock().unwrap_or_else(PoisonError::into_inner).push(block);
            state.kept_bytes.fetch_add(MIB as u64, Ordering::Relaxed);
        }
        Ok(format!("{} MiB kept\n", state.kept_bytes.load(Ordering::Relaxed) / MIB as u64))
    })
    .await
}

/// Starts what troubles others in the background, for `seconds`; `name` is the number that it takes.
fn unkindly<N: std::str::FromStr + Copy + Send + 'static>(
    query: Query,
    name: &str,
    what: fn(N, Instant) -> io::Result<()>,
) -> Result<Answer, String> {
    let (number, seconds) = (query.number(name, None)?, query.number("seconds", Some(1))?);
    let until = Instant::now() + Duration::from_secs(seconds);
    let run = move || {
        if let Err(why) = what(number, until) {
            eprintln!("hello: cannot go on: {why}");
        }
    };
    std::thread::Builder::new().spawn(run).map_err(|why| format!("cannot start a thread: {why}"))?;
    Ok(text(format!("for {seconds} s\n")))
}

/// Keeps memory in a file without a name in the directory `at`.
async fn hide(state: &Arc<State>, query: Query<'_>) -> Result<Answer, String> {
    let (mib, at) = (query.number("mib", None)?, query.given("at").unwrap_or("/dev/shm").to_owned());
    let state = state.clone();
    aside(move || {
        let file = unkind::hide(mib, &at).map_err(|why| format!("cannot write {mib} MiB in {at}: {why}"))?;
        state.hidden.lock().unwrap_or_else(PoisonError::into_inner).push(file);
        Ok(format!("{mib} MiB hidden in {at}\n"))
    })
    .await
}

/// Gives it all back.
async fn reveal(state: &Arc<State>) -> Result<Answer, String> {
    let state = state.clone();
    aside(move || {
        let files = std::mem::take(&mut *state.hidden.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(format!("{} files given back\n", files.len()))
    })
    .await
}

/// Writes exactly `bytes` bytes in numbered lines; the number runs on over requests.
async fn log(state: &Arc<State>, query: Query<'_>) -> Result<Answer, String> {
    let bytes: usize = query.number("bytes", None)?;
    let state = state.clone();
    aside(move || {
        let mut rest = bytes;
        while rest > 0 {
            let number = state.log_lines.fetch_add(1, Ordering::Relaxed) + 1;
            let length = rest.min(LOG_LINE);
            let mut line = format!("log {number} {:.<LOG_LINE$}", "");
            line.truncate(length - 1);
            state.write_line(&line).map_err(|why| format!("cannot write to stdout: {why}"))?;
            rest -= length;
        }
        Ok(format!("{bytes} bytes written\n"))
    })
    .await
}

/// An answer that takes its time, to see that an ending waits for it.
async fn sleep(query: Query<'_>) -> Result<Answer, String> {
    let seconds: f64 = query.number("seconds", Some(1.0))?;
    let length = Duration::try_from_secs_f64(seconds).map_err(|why| format!("seconds={seconds}: {why}"))?;
    tokio::time::sleep(length).await;
    Ok(text(format!("slept {seconds} s\n")))
}

fn exit(state: &State, query: Query) -> Result<Answer, String> {
    let code = query.number("code", Some(0))?;
    state.end.send_replace(Some(Ending::Code(code)));
    Ok(text(format!("exiting with {code}\n")))
}

/// Runs what may block on another thread.
async fn aside(work: impl FnOnce() -> Result<String, String> + Send + 'static) -> Result<Answer, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(said) => said.map(text),
        Err(why) => Err(why.to_string()),
    }
}

/// The part of a URL after `?`.
#[derive(Clone, Copy)]
struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    fn given(self, name: &str) -> Option<&'a str> {
        self.0
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    fn number<T: std::str::FromStr + Copy>(self, name: &str, default: Option<T>) -> Result<T, String> {
        match (self.given(name), default) {
            (Some(value), _) => {
                value.parse().map_err(|_| format!("{name}={value} is not a number that fits"))
            }
            (None, Some(default)) => Ok(default),
            (None, None) => Err(format!("{name}=N is missing")),
        }
    }
}

fn text(body: String) -> Answer {
    with_status(StatusCode::OK, body)
}

fn with_status(status: StatusCode, body: String) -> Answer {
    typed(status, "text/plain; charset=utf-8", body.into_bytes())
}

fn typed(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
