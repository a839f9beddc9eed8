//! Five nodes on loopback, each with its thread and its port.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cell;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use cell::Cell;
use gossip::tls::Key;
use gossip::{
    driver::{self, Driver, News, Settings},
    transport::{Event, Lane},
};
use placement::ids::NodeId;

/// Generous: a busy machine is slow, and the test ends as soon as it is done.
const PATIENCE: Duration = Duration::from_secs(60);

struct Host {
    key: Key,
    name: String,
    life: u64,
}

impl Host {
    fn start(&mut self, cell: &Cell, greet: Vec<SocketAddr>) -> Driver {
        self.life += 1;
        let me = cell.credentials(&self.key, &self.name, std::time::SystemTime::now());
        assert_eq!(me.cell, cell.id());
        let listen = "127.0.0.1:0".parse().unwrap();
        driver::start(Settings { me, listen, advertise: None, life: self.life, seed: self.life, greet })
            .unwrap()
    }
}

/// Waits until `driver` sees exactly so many others.
async fn sees(driver: &mut Driver, others: usize) {
    let seen = driver.members.wait_for(|members| members.len() == others);
    let waited = tokio::time::timeout(PATIENCE, seen).await.is_ok();
    assert!(waited, "sees {} others, not {others}", driver.members.borrow().len());
}

fn addr(driver: &Driver) -> SocketAddr {
    driver.transport.local_addr().unwrap()
}

#[tokio::test]
async fn five_find_each_other_miss_one_and_take_it_back() {
    let cell = Cell::new("covey");
    let mut hosts: Vec<Host> =
        (1..=5).map(|n| Host { key: Key::generate().unwrap(), name: format!("n{n}"), life: 0 }).collect();
    let begun = Instant::now();
    let mut drivers = vec![hosts[0].start(&cell, vec![])];
    let first = addr(&drivers[0]);
    for host in &mut hosts[1..] {
        drivers.push(host.start(&cell, vec![first]));
    }
    for driver in &mut drivers {
        sees(driver, 4).await;
    }
    println!("5 nodes see each other after {:.2} s", begun.elapsed().as_secs_f64());

    // Falls silent without a word.
    let last = drivers.pop().unwrap();
    let (gone, old) = (id(&cell, &hosts[4]), addr(&last));
    drop(last);
    let begun = Instant::now();
    for driver in &mut drivers {
        sees(driver, 3).await;
    }
    println!("its death is known to all after {:.2} s", begun.elapsed().as_secs_f64());
    let mut heard = false;
    while let Ok(news) = drivers[0].news.try_recv() {
        heard |= matches!(news, News::Down(peer) if peer.id == gone && peer.addr == old);
    }
    assert!(heard, "the agent is told");

    // Back on another port; it knows only what it knew.
    let begun = Instant::now();
    let second = addr(&drivers[1]);
    drivers.push(hosts[4].start(&cell, vec![second]));
    for driver in &mut drivers {
        sees(driver, 4).await;
    }
    println!("it is back everywhere after {:.2} s", begun.elapsed().as_secs_f64());
    let back = drivers[0].members.borrow().get(&gone).copied().unwrap();
    assert_eq!((back.addr, back.life), (addr(&drivers[4]), 2));
    assert_ne!(back.addr, old);

    // The agent's own streams, from its own runtime.
    let mut stream = drivers[0].transport.open(back, Lane::Request).await.unwrap();
    stream.write(&"hello").await.unwrap();
    let arrived = tokio::time::timeout(PATIENCE, drivers[4].arrived.recv()).await.unwrap();
    assert!(matches!(arrived, Some(Event::Stream { lane: Lane::Request, .. })), "{arrived:?}");

    // Leaves with a word.
    let begun = Instant::now();
    let leaver = drivers.pop().unwrap();
    tokio::task::spawn_blocking(move || leaver.leave()).await.unwrap();
    for driver in &mut drivers {
        sees(driver, 3).await;
    }
    println!("who leaves is gone after {:.2} s", begun.elapsed().as_secs_f64());
}

fn id(cell: &Cell, host: &Host) -> NodeId {
    cell.credentials(&host.key, &host.name, std::time::SystemTime::now()).subject.node
}

#[test]
fn a_taken_port_is_named() {
    let cell = Cell::new("covey");
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let settings = Settings { me: cell.node("n1"), listen, advertise: None, life: 1, seed: 1, greet: vec![] };
    let error = driver::start(settings).err().unwrap().to_string();
    assert!(error.contains(&listen.to_string()), "{error}");
}

#[tokio::test]
async fn a_copy_that_begins_later_hears_that_it_is_one() {
    let cell = Cell::new("covey");
    let mut other = Host { key: Key::generate().unwrap(), name: "n1".into(), life: 0 };
    let mut host = Host { key: Key::generate().unwrap(), name: "n2".into(), life: 0 };
    let mut n1 = other.start(&cell, vec![]);
    let first = addr(&n1);
    let mut n2 = host.start(&cell, vec![first]);
    sees(&mut n1, 1).await;
    // Its life is the later one: the others take it for the node.
    let mut copy = host.start(&cell, vec![first]);
    let told = async {
        loop {
            match copy.news.recv().await.expect("news") {
                News::Twin { addr, first } => return (addr, first),
                _ => continue,
            }
        }
    };
    let told = tokio::time::timeout(PATIENCE, told).await.expect("it hears of the first");
    assert_eq!(told, (addr(&n2), true));
    drop(copy);
    // And the first is what the others see again, with a life later still.
    sees(&mut n1, 1).await;
    sees(&mut n2, 1).await;
    let back = n1.members.wait_for(|all| all.values().any(|peer| peer.addr == addr(&n2)));
    tokio::time::timeout(PATIENCE, back).await.expect("the first is back").unwrap();
}
