//! The command line of `hello`. By hand: a parser's tables would be a good part of its start.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

const DEFAULT_PORT: u16 = 8080;

/// What `hello` was asked to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Args {
    /// Where to listen; without an address, on all of IPv4.
    pub(super) listen: SocketAddr,
    /// Write a numbered line to stdout this often.
    pub(super) tick: Option<Duration>,
    /// End with exit code 0 after so long, as a batch task would.
    pub(super) exit_after: Option<Duration>,
}

impl Args {
    /// Reads the arguments after the program's name. Without `--listen` the port allotted as `http` is taken
    /// (`$PORT_http`), else 8080; but what ends by itself listens where it is in nobody's way.
    pub(super) fn parse(
        args: impl IntoIterator<Item = String>,
        port: Option<String>,
    ) -> Result<Self, String> {
        let mut listen = None;
        let mut tick = None;
        let mut exit_after = None;
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let (name, given) = match arg.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (arg, None),
            };
            let mut value = || given.clone().or_else(|| args.next()).ok_or(format!("{name} needs a value"));
            match name.as_str() {
                "--listen" => listen = Some(address(&value()?)?),
                "--tick" => tick = Some(millis(&name, &value()?)?),
                "--exit-after" => exit_after = Some(millis(&name, &value()?)?),
                _ => return Err(format!("unknown argument {name:?}")),
            }
        }
        let listen = match (listen, port) {
            (Some(listen), _) => listen,
            (None, Some(port)) => address(&format!(":{port}"))?,
            (None, None) if exit_after.is_some() => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            (None, None) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT)),
        };
        Ok(Self { listen, tick, exit_after })
    }
}

/// `[ADDRESS]:PORT`. Names are not looked up: there may be no resolver in the container.
fn address(text: &str) -> Result<SocketAddr, String> {
    let full =
        if text.starts_with(':') { format!("{}{text}", Ipv4Addr::UNSPECIFIED) } else { text.to_owned() };
    full.replacen("localhost", "127.0.0.1", 1)
        .parse()
        .map_err(|_| format!("--listen {text:?} is not [ADDRESS]:PORT with a numeric address"))
}

fn millis(name: &str, text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(millis @ 1..) => Ok(Duration::from_millis(millis)),
        _ => Err(format!("{name} {text:?} is not a number of milliseconds from 1")),
    }
}
