//! What others begin: their connections, streams and datagrams.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use placement::ids::{CellId, NodeId, Principal};
use quinn::{Connection, Incoming, RecvStream, SendStream, VarInt, crypto::rustls::HandshakeData};
use rustls::pki_types::CertificateDer;
use tokio::{sync::Semaphore, time::timeout};

use super::{Closed, Event, Lane, Refused, Stream, Transport, binding, limit::Limit, twin};
use crate::tls::{ALPN, ALPN_JOIN, BadSubject, Subject, Who};

/// Handshakes under way at once. Beyond, an address must first show that it is not made up (QUIC's Retry).
const HANDSHAKES: usize = 64;
/// Of one principal's connection at once.
const REQUESTS: u32 = 64;
/// For a handshake, and for a new stream's first byte.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves the endpoint until it is closed.
pub(super) async fn all(transport: Transport) {
    let begun = Instant::now();
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let limit = Arc::new(std::sync::Mutex::new(Limit::default()));
    while let Some(incoming) = transport.shared.endpoint.accept().await {
        let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else {
            // One that has shown its address comes back by itself after a refusal.
            if incoming.may_retry() {
                let _ = incoming.retry();
            } else {
                incoming.refuse();
            }
            continue;
        };
        let (transport, limit) = (transport.clone(), Arc::clone(&limit));
        tokio::spawn(async move {
            let from = incoming.remote_address();
            let attempt = || {
                let mut limit = limit.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                limit.attempt(from.ip().to_canonical(), begun.elapsed())
            };
            let shaken = handshake(&transport.shared.cell, incoming, attempt).await;
            drop(permit);
            match shaken {
                Ok((connection, Some(Who::Node(subject)))) if transport.is_revoked(subject.node) => {
                    turn_away(&connection);
                    let why = Refused::Removed(subject.node);
                    transport.tell(Event::Refused { from, why }).await;
                }
                Ok((connection, Some(Who::Node(Subject { node, .. }))))
                    if node == transport.shared.links.me() =>
                {
                    twin::turn_away(&connection, transport.shared.begun.elapsed());
                    transport.tell(Event::Refused { from, why: Refused::Twin }).await;
                }
                Ok((connection, Some(Who::Node(Subject { node, .. })))) => {
                    transport.shared.links.add(node, connection.clone(), false);
                    member(transport, node, connection).await;
                }
                Ok((connection, Some(Who::Principal(who)))) => principal(transport, who, connection).await,
                Ok((connection, None)) => stranger(&transport, connection).await,
                Err(why) => transport.tell(Event::Refused { from, why }).await,
            }
        });
    }
}

/// Who is it: a member, a principal, or a stranger on the protocol for joining (none)?
async fn handshake(
    cell: &CellId,
    incoming: Incoming,
    attempt: impl FnOnce() -> Result<(), Duration>,
) -> Result<(Connection, Option<Who>), Refused> {
    let timed_out = |_| Refused::Handshake(quinn::ConnectionError::TimedOut);
    let connecting = incoming.accept().map_err(Refused::Handshake)?;
    let connection = timeout(PATIENCE, connecting).await.map_err(timed_out)?.map_err(Refused::Handshake)?;
    let close = |code: Closed, why: &str| connection.close(VarInt::from_u32(code as u32), why.as_bytes());
    match (protocol(&connection).as_deref(), who(&connection, cell)) {
        (Some(ALPN), Some(Ok(who))) => Ok((connection, Some(who))),
        (Some(ALPN), Some(Err(why))) => {
            close(Closed::NotAMember, &why.to_string());
            Err(Refused::Subject(why))
        }
        (Some(ALPN_JOIN), _) => match attempt() {
            Ok(()) => Ok((connection, None)),
            Err(wait) => {
                close(
                    Closed::TooOften,
                    &format!("too many attempts to join: again in {} s", wait.as_secs() + 1),
                );
                Err(Refused::TooOften(wait))
            }
        },
        _ => {
            close(Closed::NotAMember, "no certificate of this cell: join it first");
            Err(Refused::NotAMember)
        }
    }
}

fn protocol(connection: &Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}

/// Whom the other side's certificate is about; none if it has shown none. rustls has checked it.
pub(super) fn who(connection: &Connection, cell: &CellId) -> Option<Result<Who, BadSubject>> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    chain.first().map(|certificate| Who::read(certificate, cell))
}

/// A removed node learns that it is one.
pub(super) fn turn_away(connection: &Connection) {
    let why = b"this node was removed from the cell: to join again, give its agent an empty data directory";
    connection.close(VarInt::from_u32(Closed::Removed as u32), why);
}

/// Serves a member's connection, whoever dialled it, until it ends or the member is one no more.
pub(super) async fn member(transport: Transport, node: NodeId, connection: Connection) {
    let mut revoked = transport.shared.revoked.subscribe();
    let removed = async { drop(revoked.wait_for(|nodes| nodes.contains(&node)).await) };
    tokio::pin!(removed);
    loop {
        tokio::select! {
            biased;
            () = &mut removed => return turn_away(&connection),
            datagram = connection.read_datagram() => match datagram {
                Ok(bytes) => transport.tell(Event::Datagram { from: node, bytes }).await,
                Err(_) => return,
            },
            stream = connection.accept_bi() => match stream {
                Ok((send, recv)) => {
                    let (transport, from) = (transport.clone(), connection.remote_address());
                    tokio::spawn(async move {
                        let event = match first_byte(send, recv).await {
                            Ok((lane, stream)) if lane != Lane::Join => Event::Stream { from: node, lane, stream },
                            Ok((lane, stream)) => {
                                stream.refuse();
                                Event::Refused { from, why: Refused::Lane(lane as u8) }
                            }
                            Err(why) => Event::Refused { from, why },
                        };
                        transport.tell(event).await;
                    });
                }
                Err(_) => return,
            },
        }
    }
}

/// Serves a principal's connection: requests, and nothing else.
async fn principal(transport: Transport, who: Principal, connection: Connection) {
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(REQUESTS));
    let from = connection.remote_address();
    while let Ok((send, recv)) = connection.accept_bi().await {
        let (transport, who) = (transport.clone(), who.clone());
        tokio::spawn(async move {
            let event = match first_byte(send, recv).await {
                Ok((Lane::Request, stream)) => Event::Request { from: who, stream },
                Ok((lane, stream)) => {
                    stream.refuse();
                    Event::Refused { from, why: Refused::Lane(lane as u8) }
                }
                Err(why) => Event::Refused { from, why },
            };
            transport.tell(event).await;
        });
    }
}

/// Takes one stream of the one kind.
async fn stranger(transport: &Transport, connection: Connection) {
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(1));
    let from = connection.remote_address();
    let opened = match timeout(PATIENCE, connection.accept_bi()).await {
        Ok(Ok((send, recv))) => first_byte(send, recv).await,
        Ok(Err(_)) => return,
        Err(_) => Err(Refused::Silent),
    };
    let event = match (opened, binding(&connection)) {
        (Ok((Lane::Join, stream)), Some(binding)) => Event::Joining { from, stream, binding },
        (Ok((lane, stream)), _) => {
            stream.refuse();
            connection.close(VarInt::from_u32(Closed::NotAMember as u32), b"a stranger may only join");
            Event::Refused { from, why: Refused::Lane(lane as u8) }
        }
        (Err(why), _) => Event::Refused { from, why },
    };
    transport.tell(event).await;
}

async fn first_byte(send: SendStream, recv: RecvStream) -> Result<(Lane, Stream), Refused> {
    let mut stream = Stream { outgoing: send, incoming: recv };
    let mut byte = [0];
    match timeout(PATIENCE, stream.incoming.read_exact(&mut byte)).await {
        Ok(Ok(())) => match Lane::read(byte[0]) {
            Some(lane) => Ok((lane, stream)),
            None => {
                stream.refuse();
                Err(Refused::Lane(byte[0]))
            }
        },
        _ => {
            stream.refuse();
            Err(Refused::Silent)
        }
    }
}

impl Transport {
    /// If nobody listens any more, the node is stopping.
    async fn tell(&self, event: Event) {
        let _ = self.shared.events.send(event).await;
    }
}
