//! Requests that come when they come, whether or not those before are answered, as those of many users do: a slow answer delays
//! no later question, and each one's time counts from when it was due.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use test_vms::{Error, Result};

use crate::cores;
use crate::dice::Dice;

/// How long the last answers are waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one waits for a connection: on this machine it takes no time, and meanwhile nobody else asks.
const CONNECTS: Duration = Duration::from_secs(1);
/// A connection that nobody has asked over for so long is not asked over again: servers close those (`hello` after half a
/// minute), and may do so while the question is on its way.
const FRESH: Duration = Duration::from_secs(10);
/// A task has begun to listen by then.
const LISTENS: Duration = Duration::from_secs(10);

/// What a service is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) at: SocketAddr,
    pub(crate) path: String,
}

impl Asked {
    /// Asks once and waits for the answer. A task runs a moment before it listens.
    pub(crate) fn once(&self) -> Result<()> {
        let begun = Instant::now();
        let open = || loop {
            match Connection::open(self) {
                Err(why) if why.kind() == io::ErrorKind::ConnectionRefused && begun.elapsed() < LISTENS => {
                    thread::sleep(Duration::from_millis(5));
                }
                opened => return opened,
            }
        };
        let ask = || {
            let mut connection = open()?.ask(self, Instant::now())?;
            loop {
                match connection.take()? {
                    Some(true) => return Ok(()),
                    Some(false) => return Err(io::Error::other("it refused")),
                    None => {}
                }
            }
        };
        ask().map_err(|why: io::Error| {
            Error::Missing(format!("cannot ask {} for {}: {why}", self.at, self.path))
        })
    }
}

/// What came of a while of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answered {
    /// Sorted.
    times: Vec<Duration>,
    /// How late the questions went out: what of the times is the asker's own. Sorted.
    late: Vec<Duration>,
    /// When and why.
    pub(crate) failed: Vec<String>,
    pub(crate) a_second: f64,
}

impl Answered {
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        of_sorted(&self.times, share)
    }

    pub(crate) fn p99(&self) -> Duration {
        self.quantile(0.99)
    }

    /// Of how late the questions went out.
    pub(crate) fn p99_late(&self) -> Duration {
        of_sorted(&self.late, 0.99)
    }

    fn fail(&mut self, after: Duration, why: &io::Error) {
        self.failed.push(format!("after {:.1} s: {why}", after.as_secs_f64()));
    }
}

/// Asks at random moments (Poisson), so often on the mean, for so long.
pub(crate) fn poisson(asked: &Asked, a_second: f64, length: Duration, dice: &mut Dice) -> Result<Answered> {
    varying(asked, |_| a_second, length, dice)
}

/// The same, as often as `a_second` says of each moment.
pub(crate) fn varying(
    asked: &Asked,
    a_second: impl Fn(Duration) -> f64,
    length: Duration,
    dice: &mut Dice,
) -> Result<Answered> {
    let mut due = Duration::ZERO;
    let mut moments = Vec::new();
    while due < length {
        moments.push(due);
        due += Duration::from_secs_f64(-dice.share().ln() / a_second(due));
    }
    on_a_thread(|| open_loop(asked, &moments, length))
}

/// So many clients who each ask again as soon as they are answered, for so long: what the service can do.
pub(crate) fn flat_out(asked: &Asked, clients: usize, length: Duration) -> Result<Answered> {
    on_a_thread(|| {
        let (begun, mut all) = (Instant::now(), Answered::default());
        let mut busy = Vec::new();
        for _ in 0..clients {
            busy.push(Connection::open(asked)?.ask(asked, Instant::now())?);
        }
        while begun.elapsed() < length && !busy.is_empty() {
            for idle in answers(&mut busy, PATIENCE, &mut all, begun)? {
                busy.push(idle.ask(asked, Instant::now())?);
            }
        }
        Ok(all.over(begun.elapsed()))
    })
}

fn on_a_thread(run: impl FnOnce() -> io::Result<Answered> + Send) -> Result<Answered> {
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            cores::pin_client()?;
            run().map_err(|why| Error::Missing(format!("cannot ask the service: {why}")))
        });
        client.join().unwrap_or_else(|_| Err(Error::Missing("the client panicked".to_owned())))
    })
}

fn open_loop(asked: &Asked, moments: &[Duration], length: Duration) -> io::Result<Answered> {
    let begun = Instant::now();
    let (mut all, mut idle, mut busy) = (Answered::default(), Vec::new(), Vec::new());
    let mut moments = moments.iter().map(|due| begun + *due).peekable();
    loop {
        let now = Instant::now();
        while let Some(due) = moments.next_if(|due| *due <= now) {
            let fresh = idle.pop().filter(Connection::is_fresh);
            let connection = fresh.map_or_else(|| Connection::open(asked), Ok);
            all.late.push(due.elapsed());
            match connection.and_then(|connection| connection.ask(asked, due)) {
                Ok(asked) => busy.push(asked),
                Err(why) => all.fail(begun.elapsed(), &why),
            }
        }
        let pause = match moments.peek() {
            Some(due) => due.saturating_duration_since(Instant::now()),
            None if busy.is_empty() => break,
            None => (begun + length + PATIENCE).saturating_duration_since(now),
        };
        if pause.is_zero() && moments.peek().is_none() {
            busy.iter().for_each(|_| all.fail(begun.elapsed(), &io::ErrorKind::TimedOut.into()));
            break;
        }
        idle.extend(answers(&mut busy, pause, &mut all, begun)?);
    }
    Ok(all.over(length))
}

impl Answered {
    fn over(mut self, length: Duration) -> Self {
        self.times.sort_unstable();
        self.late.sort_unstable();
        self.a_second = self.times.len() as f64 / length.as_secs_f64();
        self
    }
}

struct Connection {
    stream: TcpStream,
    due: Instant,
    answered: Instant,
    read: Vec<u8>,
}

impl Connection {
    fn open(asked: &Asked) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&asked.at, CONNECTS)?;
        stream.set_nodelay(true)?;
        let now = Instant::now();
        Ok(Self { stream, due: now, answered: now, read: Vec::new() })
    }

    fn is_fresh(&self) -> bool {
        self.answered.elapsed() < FRESH
    }

    fn ask(mut self, asked: &Asked, due: Instant) -> io::Result<Self> {
        self.due = due;
        self.read.clear();
        let Asked { path, .. } = asked;
        self.stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: task\r\n\r\n").as_bytes())?;
        Ok(self)
    }

    /// Takes what has come; the answer's status once it is whole.
    fn take(&mut self) -> io::Result<Option<bool>> {
        let mut buffer = [0; 4096];
        let length = self.stream.read(&mut buffer)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read.extend_from_slice(&buffer[..length]);
        let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
        let head = String::from_utf8_lossy(&self.read[..end]).to_ascii_lowercase();
        let body =
            head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        let whole = self.read.len() >= end + 4 + body.unwrap_or(0);
        Ok(whole.then(|| head.starts_with("http/1.1 200 ")))
    }
}

/// Waits for answers, but no longer than `pause`; whose has come is idle again.
fn answers(
    busy: &mut Vec<Connection>,
    pause: Duration,
    all: &mut Answered,
    begun: Instant,
) -> io::Result<Vec<Connection>> {
    let mut fds: Vec<_> = busy.iter().map(|one| PollFd::new(one.stream.as_fd(), PollFlags::POLLIN)).collect();
    ppoll(&mut fds, Some(TimeSpec::from(pause)), None)?;
    let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
    let mut idle = Vec::new();
    for place in (0..busy.len()).rev().filter(|place| ready[*place]) {
        let why = match busy[place].take() {
            Ok(None) => continue,
            Ok(Some(true)) => {
                let mut done = busy.swap_remove(place);
                done.answered = Instant::now();
                all.times.push(done.answered - done.due);
                idle.push(done);
                continue;
            }
            Ok(Some(false)) => io::Error::other("it refused"),
            Err(why) => why,
        };
        all.fail(begun.elapsed(), &why);
        busy.swap_remove(place);
    }
    Ok(idle)
}

fn of_sorted(times: &[Duration], share: f64) -> Duration {
    let place = (share * times.len().saturating_sub(1) as f64).round() as usize;
    times.get(place).copied().unwrap_or_default()
}
