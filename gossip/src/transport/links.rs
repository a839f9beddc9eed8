//! Which connection leads to whom.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use placement::ids::NodeId;
use quinn::{ClientConfig, Connection, VarInt};

use super::Closed;
use crate::peer::Peer;

/// Two connections that are both younger were made by both sides at the same time.
const YOUNG: Duration = Duration::from_secs(3);

struct Link {
    connection: Connection,
    dialled: bool,
    since: Instant,
}

/// One connection for each peer. Locked for map look-ups only, never across an await.
pub(super) struct Links {
    me: NodeId,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    links: BTreeMap<NodeId, Link>,
    /// Whoever wants a connection to the same peer waits for the first one's attempt.
    attempts: BTreeMap<(Option<NodeId>, SocketAddr), Arc<tokio::sync::Mutex<()>>>,
    renewed: Option<ClientConfig>,
}

impl Links {
    pub(super) fn new(me: NodeId) -> Links {
        Links { me, table: Mutex::default() }
    }

    pub(super) fn me(&self) -> NodeId {
        self.me
    }

    /// A panic elsewhere leaves the maps whole.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open connection to `to`, at that address: at another one, it was another life.
    pub(super) fn get(&self, to: &Peer) -> Option<Connection> {
        let table = self.table();
        let open = |link: &&Link| {
            link.connection.close_reason().is_none() && same(link.connection.remote_address(), to.addr)
        };
        let link = match to.known() {
            Some(node) => table.links.get(&node).filter(open),
            None => table.links.values().find(open),
        };
        link.map(|link| link.connection.clone())
    }

    /// Uses `connection` from now on, unless both sides have just dialled each other: then both keep the one that the
    /// smaller id dialled. The other is left to end by idleness: something may be on it.
    pub(super) fn add(&self, node: NodeId, connection: Connection, dialled: bool) {
        let mut table = self.table();
        table.links.retain(|_, link| link.connection.close_reason().is_none());
        if let Some(old) = table.links.get(&node)
            && old.since.elapsed() < YOUNG
            && old.dialled != dialled
            && same(old.connection.remote_address(), connection.remote_address())
            && old.dialled == (self.me < node)
        {
            return;
        }
        table.links.insert(node, Link { connection, dialled, since: Instant::now() });
    }

    pub(super) fn forget(&self, node: NodeId) {
        if let Some(link) = self.table().links.remove(&node) {
            link.connection.close(VarInt::from_u32(Closed::Dead as u32), b"declared dead");
        }
    }

    pub(super) fn attempt(&self, to: &Peer) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.table().attempts.entry((to.known(), to.addr)).or_default())
    }

    /// It is over; who waits for it still holds it.
    pub(super) fn attempted(&self, to: &Peer) {
        self.table().attempts.remove(&(to.known(), to.addr));
    }

    pub(super) fn renew(&self, config: ClientConfig) {
        self.table().renewed = Some(config);
    }

    pub(super) fn renewed(&self) -> Option<ClientConfig> {
        self.table().renewed.clone()
    }
}

/// A socket for both families sees IPv4 addresses inside IPv6 ones.
fn same(a: SocketAddr, b: SocketAddr) -> bool {
    a.ip().to_canonical() == b.ip().to_canonical() && a.port() == b.port()
}
