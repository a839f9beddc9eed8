//! The lab's side. Whoever calls this is in the network of the guest's host: its end of their cable is there.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::terminal::{self, Raw};
use super::wire::{self, Answer, Kind, Request};
use super::{INSIDE, wire::read_word};

/// An emulated kernel on a busy machine takes its time to say that it is there.
const CONNECTS: Duration = Duration::from_secs(20);
/// Between two looks at the size of the terminal.
const LOOK: u16 = 250;

fn request(request: &Request) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(INSIDE), CONNECTS)?;
    stream.set_nodelay(true)?;
    wire::write_word(&mut stream, request)?;
    Ok(stream)
}

/// Asks what is answered in one word.
pub(crate) fn ask(question: &Request) -> io::Result<Answer> {
    let mut stream = request(question)?;
    stream.set_read_timeout(Some(CONNECTS))?;
    read_word(&mut stream)
}

/// The environment that a command would have as a child of this process.
pub(crate) fn environment(command: &Command) -> Vec<(OsString, OsString)> {
    let mut all: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => all.insert(name.to_owned(), value.to_owned()),
            None => all.remove(name),
        };
    }
    all.into_iter().collect()
}

/// Runs a command on the guest with this process' environment, directory, stdin, stdout and stderr (its terminal, if it
/// has one), and ends as the command did; 125 if it could not be run.
pub fn exec(argv: Vec<OsString>) -> ExitCode {
    let program = argv.first().cloned().unwrap_or_default();
    let code = passed_on(argv).unwrap_or_else(|why| {
        eprintln!("covey-lab: cannot run {}: {why}", program.display());
        125
    });
    ExitCode::from(code)
}

fn passed_on(argv: Vec<OsString>) -> io::Result<u8> {
    let terminal = terminal::size();
    let (env, dir) = (std::env::vars_os().collect(), std::env::current_dir().unwrap_or_else(|_| "/".into()));
    let mut stream = request(&Request::Run { argv, env, dir, terminal })?;
    let raw = terminal.map(|_| Raw::set()).transpose()?;
    let keys = stream.try_clone()?;
    // It ends with this process, wherever it waits.
    thread::spawn(move || feed(keys, terminal));
    let ended = loop {
        match wire::read(&mut stream)? {
            (Kind::Data, bytes) => say(&mut io::stdout(), &bytes)?,
            (Kind::Error, bytes) => say(&mut io::stderr(), &bytes)?,
            (Kind::Word, bytes) => break serde_json::from_slice(&bytes)?,
            (kind, _) => {
                return Err(io::Error::other(format!("the guest sent a frame of the kind {kind:?}")));
            }
        }
    };
    drop(raw);
    match ended {
        Answer::Ended { code: Some(code), .. } => Ok(u8::try_from(code).unwrap_or(u8::MAX)),
        // As shells have it.
        Answer::Ended { signal, .. } => Ok(u8::try_from(128 + signal.unwrap_or_default()).unwrap_or(u8::MAX)),
        Answer::No(why) => Err(io::Error::other(why)),
        other => Err(io::Error::other(format!("the guest answered {other:?}"))),
    }
}

fn say(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

/// Passes on stdin, and the size of the terminal when it changes.
fn feed(mut stream: TcpStream, mut size: Option<(u16, u16)>) -> io::Result<()> {
    let mut stdin = io::stdin();
    let mut bytes = vec![0; 64 << 10];
    loop {
        let wait = if size.is_some() { PollTimeout::from(LOOK) } else { PollTimeout::NONE };
        let ready = poll(&mut [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)], wait)?;
        let now = size.and_then(|_| terminal::size());
        if now.is_some() && now != size {
            size = now;
            wire::write(&mut stream, Kind::Size, &serde_json::to_vec(&now)?)?;
        }
        if ready == 0 {
            continue;
        }
        match stdin.read(&mut bytes)? {
            0 => return wire::write(&mut stream, Kind::End, &[]),
            read => wire::write(&mut stream, Kind::Data, &bytes[..read])?,
        }
    }
}
