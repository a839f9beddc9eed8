//! Handshakes in memory: who gets through, and what the others are told.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cell;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use cell::Cell;
use gossip::tls::{self, Authority, Credentials, Key, LIFETIME, Subject, TlsError};
use rustls::{
    ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection, pki_types::ServerName,
};

/// Passes bytes to and fro until both are done; the error of whoever refused, and the certificate that the server saw.
fn handshake(client: ClientConfig, server: ServerConfig, name: &str) -> Result<bool, String> {
    let name = ServerName::try_from(name.to_string()).unwrap();
    let mut client = Connection::from(ClientConnection::new(Arc::new(client), name).unwrap());
    let mut server = Connection::from(ServerConnection::new(Arc::new(server)).unwrap());
    for _ in 0..10 {
        for who in ["server", "client"] {
            let (from, to) =
                if who == "server" { (&mut client, &mut server) } else { (&mut server, &mut client) };
            let mut bytes = Vec::new();
            while from.wants_write() {
                from.write_tls(&mut bytes).unwrap();
            }
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                to.read_tls(&mut rest).unwrap();
                to.process_new_packets().map_err(|error| format!("{who}: {error}"))?;
            }
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(server.peer_certificates().is_some())
}

fn node_at(cell: &Cell, name: &str, now: SystemTime) -> Credentials {
    cell.credentials(&Key::generate().unwrap(), name, now)
}

fn by_id(to: &Credentials) -> String {
    Subject::server_name(to.subject.node, &to.cell)
}

#[test]
fn members_know_each_other() {
    let cell = Cell::new("covey");
    let (a, b) = (cell.node("n1"), cell.node("n2"));
    assert_eq!(a.subject.name, "n1");
    assert_eq!(handshake(a.client().unwrap(), b.server().unwrap(), &by_id(&b)), Ok(true));
    assert_eq!(
        handshake(a.client().unwrap(), b.server().unwrap(), &tls::any_server_name(&cell.id())),
        Ok(true)
    );
}

#[test]
fn another_node_is_not_taken_for_the_wanted_one() {
    let cell = Cell::new("covey");
    let (a, b, c) = (cell.node("n1"), cell.node("n2"), cell.node("n3"));
    let error = handshake(a.client().unwrap(), b.server().unwrap(), &by_id(&c)).unwrap_err();
    assert!(error.starts_with("client: "), "{error}");
    assert!(
        error.contains(&b.subject.node.to_string()) && error.contains(&c.subject.node.to_string()),
        "{error}"
    );
}

#[test]
fn another_cell_is_refused_by_both() {
    let (ours, theirs) = (Cell::new("covey"), Cell::new("covey"));
    let (a, b) = (ours.node("n1"), theirs.node("n2"));
    let error = handshake(a.client().unwrap(), b.server().unwrap(), &by_id(&b)).unwrap_err();
    assert!(
        error.starts_with("client: ") && error.contains("Unknown") || error.contains("BadSignature"),
        "{error}"
    );
    // A client that does not look: the server does.
    let blind = forger(&theirs, &ours);
    let error = handshake(blind, a.server().unwrap(), &by_id(&a)).unwrap_err();
    assert!(error.starts_with("server: "), "{error}");
}

/// A client with a certificate of `own`, who trusts `trusted`.
fn forger(own: &Cell, trusted: &Cell) -> ClientConfig {
    let mut config = own.node("n1").client().unwrap();
    config.dangerous().set_certificate_verifier(Arc::new(tls::Pinned::new(trusted.id())));
    config
}

#[test]
fn expired_and_not_yet_good_certificates_are_named() {
    let cell = Cell::new("covey");
    let now = SystemTime::now();
    let good = cell.node("n1");
    let old = node_at(&cell, "n2", now - LIFETIME - Duration::from_secs(60));
    let early = node_at(&cell, "n3", now + Duration::from_secs(2 * 3600));
    for (bad, word) in [(&old, "expired"), (&early, "not valid yet")] {
        let error = handshake(good.client().unwrap(), bad.server().unwrap(), &by_id(bad)).unwrap_err();
        assert!(error.starts_with("client: ") && error.contains(word), "{error}");
        let error = handshake(bad.client().unwrap(), good.server().unwrap(), &by_id(&good)).unwrap_err();
        assert!(error.starts_with("server: ") && error.contains(word), "{error}");
    }
}

#[test]
fn clocks_an_hour_apart_do_not_matter() {
    let cell = Cell::new("covey");
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    let good = cell.node("n1");
    // Made by a clock an hour ahead of those who check, and, about to be renewed, checked by one that is an hour ahead.
    for made in [now + hour, now - hour, now - LIFETIME / 2 - LIFETIME / 10 - hour] {
        let other = node_at(&cell, "n2", made);
        assert_eq!(handshake(good.client().unwrap(), other.server().unwrap(), &by_id(&other)), Ok(true));
        assert_eq!(handshake(other.client().unwrap(), good.server().unwrap(), &by_id(&good)), Ok(true));
    }
}

#[test]
fn a_certificate_is_renewed_long_before_it_expires() {
    let cell = Cell::new("covey");
    let now = SystemTime::now();
    let days = |n: u64| Duration::from_secs(n * 24 * 3600);
    let mut times = std::collections::BTreeSet::new();
    for _ in 0..8 {
        let node = node_at(&cell, "n1", now);
        let (from, until) = node.validity().unwrap();
        assert!(from < now - Duration::from_secs(3600) && until > now + LIFETIME - Duration::from_secs(2));
        let at = node.renew_at().unwrap();
        assert!(at > now + days(3) && at < now + days(5), "{:?}", at.duration_since(now));
        times.insert(at);
    }
    assert!(times.len() > 4, "all at once: {times:?}");
}

#[test]
fn a_stranger_pins_the_authority() {
    let (cell, other) = (Cell::new("covey"), Cell::new("covey"));
    let member = cell.node("n1");
    let any = tls::any_server_name(&cell.id());
    assert_eq!(handshake(tls::joining(&cell.id()).unwrap(), member.server().unwrap(), &any), Ok(false));
    let error = handshake(tls::joining(&other.id()).unwrap(), member.server().unwrap(), &any).unwrap_err();
    assert!(error.starts_with("client: ") && error.contains("of another cell"), "{error}");
}

#[test]
fn no_common_protocol_no_connection() {
    let cell = Cell::new("covey");
    let (a, b) = (cell.node("n1"), cell.node("n2"));
    let mut client = a.client().unwrap();
    client.alpn_protocols = vec![b"h3".to_vec()];
    let error = handshake(client, b.server().unwrap(), &by_id(&b)).unwrap_err();
    assert!(error.contains("protocol"), "{error}");
}

#[test]
fn an_authority_must_be_whole() {
    let one = Key::generate().unwrap();
    let cell = Cell::new("covey");
    let opened = |name: &str| Authority::open(&one.pem(), &cell.certificate, name).map(|_| ());
    assert!(matches!(opened("covey"), Err(TlsError::OtherAuthority)));
    let key = Key::generate().unwrap();
    let certificate = cell.authority.issue(key.public(), "n1", SystemTime::now()).unwrap();
    let other = Cell::new("covey");
    let mixed = Credentials::new(&key.pem(), &certificate, &other.certificate);
    assert!(matches!(mixed, Err(TlsError::Subject(tls::BadSubject::OtherCell(_)))), "{mixed:?}");
}
