//! In a network namespace that stands for the host: real links, rules and connections, none of them this machine's.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use netlink_packet_netfilter::nftables::{NfTablesMessage, TableMessage};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use nix::sched::{CloneFlags, setns, unshare};

use super::*;

const NODE: u64 = 0x1234_5678_9abc_def0;

/// From here on the calling thread is on a host of its own.
fn host() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    links::loopback(&mut socket(NETLINK_ROUTE).unwrap()).unwrap();
}

fn tables() -> usize {
    let header = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
    let all = NfTablesMessage::GetTable(TableMessage { attributes: Vec::new() });
    let mut rules = Socket::open(NETLINK_NETFILTER).unwrap();
    rules.dump(NetfilterMessage::new(header, all)).unwrap().len()
}

fn links() -> Vec<String> {
    let mut names = links::names(&mut socket(NETLINK_ROUTE).unwrap()).unwrap();
    // Some kernels put tunnels into every namespace.
    names.retain(|name| name.starts_with("cv"));
    names
}

/// Does something in the namespace at `path`.
fn within<T: Send>(path: &PathBuf, act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let there = scope.spawn(|| {
            setns(File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            act()
        });
        there.join().unwrap()
    })
}

/// A container that answers on a TCP port with a letter and then says back what it hears, line by line.
fn serve(path: &PathBuf, port: u16, letter: u8) {
    let listener = within(path, || TcpListener::bind(("0.0.0.0", port)).unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let _ = stream.write_all(&[letter]);
                let mut byte = [0];
                while stream.read(&mut byte).is_ok_and(|n| n == 1) && stream.write_all(&byte).is_ok() {}
            });
        }
    });
}

fn connect(to: impl Into<IpAddr>, port: u16) -> Result<(TcpStream, u8), ErrorKind> {
    let to = SocketAddr::new(to.into(), port);
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2)).map_err(|e| e.kind())?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut letter = [0];
    stream.read_exact(&mut letter).map_err(|e| e.kind())?;
    Ok((stream, letter[0]))
}

fn says(to: impl Into<IpAddr>, port: u16) -> Result<u8, ErrorKind> {
    connect(to, port).map(|(_, letter)| letter)
}

fn echoes((stream, _): &mut (TcpStream, u8)) {
    stream.write_all(b"x").unwrap();
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
}

fn published(port: u16, inside: u16) -> Vec<Published> {
    vec![Published { port, inside }]
}

#[test]
fn what_is_published_is_reached_from_everywhere_and_nothing_else_is() {
    host();
    let networks = Networks::new(NODE, None);
    networks.adopt([]).unwrap();
    assert_eq!((links(), tables()), (vec![], 0), "made before it is needed");

    let (mut a, mut b) = (Namespace::make().unwrap(), Namespace::make().unwrap());
    let at_a = networks.attach("a", &mut a, published(20000, 20000), 20000).unwrap();
    let at_b = networks.attach("b", &mut b, published(20001, 80), 20001).unwrap();
    assert_eq!(at_b.address.to_bits(), at_a.address.to_bits() + 1);
    let (a, b) = (a.path().to_path_buf(), b.path().to_path_buf());
    let (a, b) = (&a, &b);
    serve(a, 20000, b'a');
    serve(a, 9999, b'!');
    serve(b, 80, b'b');
    let gateway = at_a.subnet().gateway();

    for to in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 8, 8, 8), gateway] {
        assert_eq!(says(to, 20000), Ok(b'a'), "from the node to {to}");
        assert_eq!(says(to, 20001), Ok(b'b'), "from the node to {to}");
    }
    assert_eq!(says(at_b.address, 80), Ok(b'b'), "from the node to the address itself");
    within(a, || {
        assert_eq!(says(gateway, 20001), Ok(b'b'), "from another container");
        assert_eq!(says(gateway, 20000), Ok(b'a'), "from itself, through the node");
        assert_eq!(says(Ipv4Addr::LOCALHOST, 20000), Ok(b'a'), "its own loopback");
        assert!(TcpListener::bind(("0.0.0.0", 443)).is_ok());
    });
    within(b, || {
        assert!(says(at_a.address, 9999).is_err(), "a port that is not published");
        assert!(says(at_a.address, 20000).is_err(), "past what is published");
        assert!(says(gateway, 9999).is_err());
    });

    // Over UDP as well.
    let udp = within(b, || UdpSocket::bind("0.0.0.0:80").unwrap());
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect("127.0.0.1:20001").unwrap();
    client.send(b"over").unwrap();
    let mut heard = [0; 8];
    udp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let (n, from) = udp.recv_from(&mut heard).unwrap();
    assert_eq!((&heard[..n], from.ip()), (&b"over"[..], IpAddr::V4(gateway)));
    udp.send_to(b"back", from).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let n = client.recv(&mut heard).unwrap();
    assert_eq!(&heard[..n], b"back");

    networks.detach("a").unwrap();
    networks.detach("a").unwrap();
    assert_eq!(says(Ipv4Addr::LOCALHOST, 20000), Err(ErrorKind::ConnectionRefused));
    assert_eq!(says(Ipv4Addr::LOCALHOST, 20001), Ok(b'b'));
    networks.detach("b").unwrap();
    assert_eq!((links(), tables()), (vec![], 0), "left over");
}

#[test]
fn the_nodes_own_loopback_is_out_of_a_containers_reach() {
    host();
    let networks = Networks::new(NODE, None);
    let mut a = Namespace::make().unwrap();
    let attached = networks.attach("a", &mut a, Vec::new(), 0).unwrap();
    let listener = UdpSocket::bind("127.0.0.1:7000").unwrap();
    listener.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let open = UdpSocket::bind((attached.subnet().gateway(), 7001)).unwrap();
    open.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // A container with rights over its links could send to 127.0.0.1 by way of the gateway.
    let path = a.path();
    within(&path, || {
        let ip = |args: &str| {
            let done = Command::new("ip").args(args.split(' ')).status().unwrap();
            assert!(done.success(), "ip {args}");
        };
        fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").unwrap();
        ip("route del table local 127.0.0.0/8 dev lo");
        ip("route del table local 127.0.0.1 dev lo");
        ip(&format!("route add 127.0.0.1 via {} dev eth0", attached.subnet().gateway()));
        let socket = UdpSocket::bind((attached.address, 0)).unwrap();
        socket.send_to(b"in", "127.0.0.1:7000").unwrap();
        socket.send_to(b"in", (attached.subnet().gateway(), 7001)).unwrap();
    });
    let mut heard = [0; 8];
    assert!(open.recv(&mut heard).is_ok(), "the gateway itself is reached");
    assert_eq!(listener.recv(&mut heard).unwrap_err().kind(), ErrorKind::WouldBlock);
    networks.detach("a").unwrap();
}

#[test]
fn a_killed_agents_successor_goes_on_and_cleans_up() {
    host();
    let earlier = Networks::new(NODE, None);
    let (mut a, mut dead) = (Namespace::make().unwrap(), Namespace::make().unwrap());
    let at_a = earlier.attach("a", &mut a, published(20000, 20000), 20000).unwrap();
    let at_dead = earlier.attach("dead", &mut dead, published(20005, 20005), 20005).unwrap();
    let path = a.path();
    serve(&path, 20000, b'a');
    let mut open = connect(Ipv4Addr::LOCALHOST, 20000).unwrap();
    echoes(&mut open);
    drop(earlier);
    echoes(&mut open);

    let later = Networks::new(NODE, None);
    later.adopt([("a".into(), at_a.clone(), true), ("dead".into(), at_dead.clone(), false)]).unwrap();
    echoes(&mut open);
    assert_eq!(says(Ipv4Addr::LOCALHOST, 20000), Ok(b'a'));
    assert_eq!(links().len(), 1, "{:?}", links());
    assert_eq!(later.address("a"), Some(at_a.address));
    // An address is nobody else's until its last holder is known to be gone.
    let mut b = Namespace::make().unwrap();
    let at_b = later.attach("b", &mut b, Vec::new(), 20005).unwrap();
    assert_ne!(at_b.address, at_dead.address);
    later.detach("dead").unwrap();
    let mut c = Namespace::make().unwrap();
    assert_eq!(later.attach("c", &mut c, Vec::new(), 20005).unwrap().address, at_dead.address);
    for run in ["a", "b", "c"] {
        later.detach(run).unwrap();
    }
    assert_eq!((links(), tables()), (vec![], 0));

    // Nobody is left: all goes.
    let killed = Networks::new(NODE, None);
    killed.attach("a", &mut Namespace::make().unwrap(), published(20000, 80), 0).unwrap();
    drop(killed);
    assert_eq!(tables(), 1);
    let gone = Networks::new(NODE, None);
    gone.adopt([("a".into(), at_a, false)]).unwrap();
    assert_eq!((links(), tables()), (vec![], 0));
    gone.detach("a").unwrap();
}

#[test]
fn two_agents_on_one_machine_do_not_meet() {
    host();
    // Their ids lead to the same part of the range.
    let (one, two) = (Networks::new(NODE, None), Networks::new(NODE + (1 << 32) + (1 << 11), None));
    let (mut a, mut b) = (Namespace::make().unwrap(), Namespace::make().unwrap());
    let at_a = one.attach("a", &mut a, published(20000, 80), 0).unwrap();
    let at_b = two.attach("a", &mut b, published(20001, 80), 0).unwrap();
    assert!(at_a.subnet().clash(&[at_b.subnet()]).is_none());
    serve(&a.path(), 80, b'a');
    serve(&b.path(), 80, b'b');
    assert_eq!(says(Ipv4Addr::LOCALHOST, 20000), Ok(b'a'));
    assert_eq!(says(Ipv4Addr::LOCALHOST, 20001), Ok(b'b'));
    let gateway = at_b.subnet().gateway();
    within(&a.path(), || assert_eq!(says(gateway, 20001), Ok(b'b')));
    one.adopt([]).unwrap();
    assert_eq!(says(Ipv4Addr::LOCALHOST, 20001), Ok(b'b'), "the other's");
    two.detach("a").unwrap();
    assert_eq!((links(), tables()), (vec![], 0));
}

#[test]
fn a_subnet_may_be_chosen_and_may_be_full() {
    host();
    let networks = Networks::new(NODE, Some("10.77.0.0/29".parse().unwrap()));
    let mut held = Vec::new();
    for n in 0..5 {
        let mut namespace = Namespace::make().unwrap();
        networks.attach(&n.to_string(), &mut namespace, Vec::new(), 3).unwrap();
        held.push(namespace);
    }
    let mut late = Namespace::make().unwrap();
    let full = networks.attach("late", &mut late, Vec::new(), 3).unwrap_err();
    assert_eq!(
        full.to_string(),
        "all 5 addresses of 10.77.0.0/29 are in use: give this agent a larger `subnet`"
    );
    let other = Networks::new(NODE + 1, Some("10.0.0.0/8".parse().unwrap()));
    let clash = other.attach("a", &mut late, Vec::new(), 3).unwrap_err();
    let said = clash.to_string();
    assert!(said.starts_with("the subnet 10.0.0.0/8 overlaps 10.77.0."), "{said}");
    (0..5).for_each(|n| networks.detach(&n.to_string()).unwrap());
    assert_eq!(links().len() + tables(), 0);
}

#[test]
fn many_at_once_and_none_is_mixed_up() {
    host();
    let networks = Networks::new(NODE, None);
    let (tell, hear) = mpsc::channel();
    let here = File::open("/proc/thread-self/ns/net").unwrap();
    thread::scope(|scope| {
        for n in 0..8u16 {
            let (networks, tell, here) = (&networks, tell.clone(), &here);
            scope.spawn(move || {
                setns(here, CloneFlags::CLONE_NEWNET).unwrap();
                for round in 0..10 {
                    let run = format!("{n}.{round}");
                    let port = 20000 + n;
                    let mut namespace = Namespace::make().unwrap();
                    let at = networks.attach(&run, &mut namespace, published(port, 80), port.into()).unwrap();
                    serve(&namespace.path(), 80, n as u8);
                    tell.send((says(Ipv4Addr::LOCALHOST, port), says(at.address, 80), n as u8)).unwrap();
                    networks.detach(&run).unwrap();
                }
            });
        }
    });
    drop(tell);
    let seen: Vec<_> = hear.iter().collect();
    assert_eq!(seen.len(), 80);
    for (published, direct, n) in seen {
        assert_eq!((published, direct), (Ok(n), Ok(n)));
    }
    assert_eq!(links().len() + tables(), 0);
}
