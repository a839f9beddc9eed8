//! What membership takes, as numbers, one a line, for `make bench`:
//!
//! - `figures death MEMBERS COUNT`: seconds until all others know of a death; real endpoints, one thread each
//! - `figures wire MEMBERS`: bytes a second that each sends when nothing happens, as the loopback device counts them
//! - `figures simulated MEMBERS`: bytes a second of membership's own datagrams for each, in virtual time
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code)]
#[path = "../tests/cell/mod.rs"]
mod cell;
#[allow(dead_code)]
#[path = "../tests/sim/mod.rs"]
mod sim;

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use cell::Cell;
use gossip::driver::{self, Driver, Settings};
use gossip::tls::Key;
use placement::ids::NodeId;
use sim::{LAN, Net, Sim, ms};

/// Many times what anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);
/// What is exchanged only once, after a start, is over then.
const QUIET: Duration = Duration::from_secs(20);
/// Long enough for connections that are seldom used to be given up and made anew.
const WINDOW: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| args.get(at).and_then(|arg| arg.parse::<usize>().ok());
    match (args.first().map(String::as_str), number(1), number(2)) {
        (Some("death"), Some(members), Some(count)) => death(members, count).await,
        (Some("wire"), Some(members), None) => wire(members).await,
        (Some("simulated"), Some(members), None) => simulated(members),
        _ => {
            eprintln!("usage: figures death MEMBERS COUNT | wire MEMBERS | simulated MEMBERS");
            std::process::exit(2);
        }
    }
}

/// A member that can fall silent and come back.
struct Host {
    key: Key,
    name: String,
    life: u64,
    id: NodeId,
    running: Option<Driver>,
}

impl Host {
    fn new(cell: &Cell, number: usize) -> Host {
        let (key, name) = (Key::generate().unwrap(), format!("n{number}"));
        let id = cell.credentials(&key, &name, SystemTime::now()).subject.node;
        Host { key, name, life: 0, id, running: None }
    }

    fn start(&mut self, cell: &Cell, greet: Vec<SocketAddr>) {
        self.life += 1;
        let me = cell.credentials(&self.key, &self.name, SystemTime::now());
        let listen = "127.0.0.1:0".parse().unwrap();
        let seed = self.id.0 ^ self.life;
        let settings = Settings { me, listen, advertise: None, life: self.life, seed, greet };
        self.running = Some(driver::start(settings).unwrap());
    }

    fn addr(&self) -> SocketAddr {
        self.running.as_ref().unwrap().transport.local_addr().unwrap()
    }
}

/// So many, who all see all others.
async fn formed(members: usize) -> (Cell, Vec<Host>) {
    let cell = Cell::new("figures");
    let mut hosts: Vec<Host> = (0..members).map(|number| Host::new(&cell, number)).collect();
    let mut greet = vec![];
    for host in &mut hosts {
        host.start(&cell, greet.clone());
        greet = if greet.is_empty() { vec![host.addr()] } else { greet };
    }
    complete(&mut hosts).await;
    (cell, hosts)
}

async fn complete(hosts: &mut [Host]) {
    let others = hosts.len() - 1;
    for host in hosts {
        let members = &mut host.running.as_mut().unwrap().members;
        let all = members.wait_for(|members| members.len() == others);
        tokio::time::timeout(PATIENCE, all).await.expect("all see all others").unwrap();
    }
}

async fn death(members: usize, count: usize) {
    let (cell, mut hosts) = formed(members).await;
    for round in 0..count {
        // Not at the same moment of everybody's probes.
        sleep(ms(5_000 + 300 * round as u64));
        let victim = round * 7 % members;
        let gone = hosts[victim].id;
        // Falls silent; whoever ends it has no time to tell.
        drop(hosts[victim].running.take());
        let begun = Instant::now();
        for host in hosts.iter_mut().filter(|host| host.id != gone) {
            let members = &mut host.running.as_mut().unwrap().members;
            let known = members.wait_for(|members| !members.contains_key(&gone));
            tokio::time::timeout(PATIENCE, known).await.expect("all know of a death").unwrap();
        }
        println!("{:.3}", begun.elapsed().as_secs_f64());
        let greet = vec![hosts[(victim + 1) % members].addr()];
        hosts[victim].start(&cell, greet);
        complete(&mut hosts).await;
    }
}

async fn wire(members: usize) {
    let (_cell, _hosts) = formed(members).await;
    sleep(QUIET);
    let (before, begun) = (loopback(), Instant::now());
    sleep(WINDOW);
    let sent = (loopback() - before) as f64;
    println!("{:.1}", sent / begun.elapsed().as_secs_f64() / members as f64);
}

/// Bytes sent over `lo`, which is this program's alone when it runs in a network namespace of its own.
fn loopback() -> u64 {
    let devices = std::fs::read_to_string("/proc/self/net/dev").unwrap();
    let line =
        devices.lines().find_map(|line| line.trim().strip_prefix("lo:")).expect("there is a loopback device");
    line.split_whitespace().nth(8).and_then(|bytes| bytes.parse().ok()).expect("it counts what it sends")
}

fn simulated(members: usize) {
    // A hundredth of all datagrams is lost, as on a bad day.
    let mut sim = Sim::start(1, Net { lost: 10, ..LAN }, members);
    sim.until(PATIENCE, Sim::complete).expect("all see all others");
    sim.run(QUIET);
    let before = sim.bytes;
    sim.run(QUIET);
    println!("{:.1}", (sim.bytes - before) as f64 / QUIET.as_secs_f64() / members as f64);
}
