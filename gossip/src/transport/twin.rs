//! Two agents with one key: one of them runs from a copy of the other's data directory. Whoever holds the key is asked
//! where it is said to be, and says for how long it has been there; clocks are not compared.

use std::{net::SocketAddr, time::Duration};

use quinn::{Connection, ConnectionError, VarInt};
use tokio::time::timeout;

use super::{Closed, Transport, accept};
use crate::tls::{Subject, Who};

/// For the word that follows the handshake.
const PATIENCE: Duration = Duration::from_secs(1);

/// Says to the other one how long this one has been here.
pub(super) fn turn_away(connection: &Connection, here_for: Duration) {
    let text = here_for.as_millis().to_string();
    connection.close(VarInt::from_u32(Closed::Twin as u32), text.as_bytes());
}

/// How long the other end, whose key is this node's own, has been there. One that does not say was there first.
pub(super) async fn age(connection: &Connection) -> Duration {
    match timeout(PATIENCE, connection.closed()).await {
        Ok(ConnectionError::ApplicationClosed(close))
            if close.error_code == VarInt::from_u32(Closed::Twin as u32) =>
        {
            let said = std::str::from_utf8(&close.reason).ok().and_then(|text| text.parse().ok());
            said.map_or(Duration::MAX, Duration::from_millis)
        }
        _ => Duration::MAX,
    }
}

impl Transport {
    /// For how long this end has listened.
    pub fn age(&self) -> Duration {
        self.shared.begun.elapsed()
    }

    /// Whether an agent with this node's own key answers there, and for how long it has been there.
    pub async fn twin_at(&self, addr: SocketAddr) -> Option<Duration> {
        let name = Subject::server_name(self.shared.links.me(), &self.shared.cell);
        let connecting = match self.shared.links.renewed() {
            Some(config) => self.shared.endpoint.connect_with(config, addr, &name),
            None => self.shared.endpoint.connect(addr, &name),
        };
        let connection = timeout(super::DIAL, connecting.ok()?).await.ok()?.ok()?;
        match accept::who(&connection, &self.shared.cell) {
            Some(Ok(Who::Node(subject))) if subject.node == self.shared.links.me() => {
                Some(age(&connection).await)
            }
            _ => None,
        }
    }
}
