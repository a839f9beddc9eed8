//! Connections of who is no node: a stranger who wants to join, and a principal with a request.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use placement::ids::CellId;
use quinn::{Connection, Endpoint};
use tokio::time::timeout;

use super::{BindError, ConnectError, DIAL, IDLE, JoinError, Lane, Stream, binding, client, settings, twin};
use crate::tls::{self, Binding, ClientCredentials, Credentials, Pinned, Subject};

/// For an agent with the same key to show itself. A node that has moved waits so long at its start.
const TWIN: Duration = Duration::from_secs(1);

/// A stranger's stream to a member, for a token's holder: no `Transport` yet, and no certificate.
/// Only a member of that cell gets one byte of it.
pub async fn join(to: SocketAddr, cell: &CellId) -> Result<(Stream, Binding), JoinError> {
    let pinned = Arc::new(Pinned::new(cell.clone()));
    let connection = alone(to, tls::pinned(Arc::clone(&pinned))?, cell).await;
    let connection = connection.map_err(|error| match (error, pinned.other()) {
        (JoinError::Connect(ConnectError::Lost { to, .. }), Some(other)) => {
            ConnectError::Subject { to, source: other.clone() }.into()
        }
        (error, _) => error,
    })?;
    let broken = || ConnectError::Stream { to: to.to_string() };
    let binding = binding(&connection).ok_or_else(broken)?;
    Ok((begin(to, &connection, Lane::Join).await?, binding))
}

/// A principal's stream for one request to a member.
pub async fn request(to: SocketAddr, me: &ClientCredentials) -> Result<Stream, JoinError> {
    let connection = alone(to, me.client()?, &me.cell).await?;
    begin(to, &connection, Lane::Request).await
}

/// A connection without a `Transport`; it ends with the last of its streams.
async fn alone(to: SocketAddr, tls: rustls::ClientConfig, cell: &CellId) -> Result<Connection, JoinError> {
    let anywhere: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let endpoint = Endpoint::client(anywhere).map_err(|source| BindError::Port { addr: anywhere, source })?;
    let mut config = client(tls)?;
    let mut settings = settings();
    // An answer that follows something may be silent for long.
    settings.keep_alive_interval(Some(IDLE / 3));
    config.transport_config(Arc::new(settings));
    let connecting = endpoint
        .connect_with(config, to, &tls::any_server_name(cell))
        .map_err(|source| ConnectError::Dial { to: to.to_string(), source })?;
    let connected = timeout(DIAL, connecting).await;
    let connected = connected.map_err(|_| ConnectError::Silent { to: to.to_string() })?;
    Ok(connected.map_err(|source| ConnectError::Lost { to: to.to_string(), source })?)
}

/// Whether an agent with this node's own key answers there already, and for how long it has been there: before the node
/// itself begins. Only then, and not if anybody else is there.
pub async fn twin_at(to: SocketAddr, me: &Credentials) -> Result<Option<Duration>, BindError> {
    let anywhere: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let endpoint = Endpoint::client(anywhere).map_err(|source| BindError::Port { addr: anywhere, source })?;
    let config = client(me.client()?)?;
    let name = Subject::server_name(me.subject.node, &me.cell);
    let Ok(connecting) = endpoint.connect_with(config, to, &name) else { return Ok(None) };
    let Ok(Ok(connection)) = timeout(TWIN, connecting).await else { return Ok(None) };
    Ok(Some(twin::age(&connection).await))
}

async fn begin(to: SocketAddr, connection: &Connection, lane: Lane) -> Result<Stream, JoinError> {
    let lost = |source| ConnectError::Lost { to: to.to_string(), source };
    let (send, recv) = connection.open_bi().await.map_err(lost)?;
    let stream = Stream::begin(send, recv, lane).await;
    stream.map_err(|_| ConnectError::Stream { to: to.to_string() }.into())
}
