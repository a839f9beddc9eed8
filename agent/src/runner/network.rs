//! The network of a run: made before its container, unmade after it.

use std::net::Ipv4Addr;

use oci::network::{Attachment, Error, Namespace, Published, files::Whose};
use placement::job::container::Network;

use super::{Ground, prepare::Failure};
use crate::event::{RunId, StartRun};

/// What a container that does not use the node's network is to have.
#[derive(Default)]
pub(super) struct Wired {
    /// To be held until the container runs.
    pub(super) namespace: Option<Namespace>,
    pub(super) attachment: Option<Attachment>,
}

impl Wired {
    pub(super) fn whose(&self) -> Whose {
        match (&self.attachment, &self.namespace) {
            (Some(attachment), _) => Whose::Private(attachment.address),
            (None, Some(_)) => Whose::None,
            (None, None) => Whose::Host,
        }
    }
}

impl Ground {
    /// `Ground::remove` undoes it.
    pub(super) fn wire(&self, start: &StartRun) -> Result<Wired, Failure> {
        if start.container.network.is_host() {
            return Ok(Wired::default());
        }
        let failed = |error: Error| Failure { transient: error.is_transient(), why: error.to_string() };
        let mut namespace = self.spares.take().map_err(failed)?;
        let attachment = match start.container.network {
            Network::Host | Network::None => None,
            Network::Private => {
                let inside =
                    |name: &String, port: u16| start.container.inside.get(name).copied().unwrap_or(port);
                let ports: Vec<Published> = start
                    .ports
                    .iter()
                    .map(|(name, &port)| Published { port, inside: inside(name, port) })
                    .collect();
                // Ports stay with a task over its restarts in place, and so, nearly always, does the address.
                let near = ports.first().map_or(start.run.key.index, |first| u32::from(first.port));
                let run = start.run.to_string();
                Some(self.networks.attach(&run, &mut namespace, ports, near).map_err(failed)?)
            }
        };
        Ok(Wired { namespace: Some(namespace), attachment })
    }

    /// Where the node's own programs reach a run: all of its ports at the address of its own, if it has one, else the
    /// allotted ones at 127.0.0.1. (A published port is reached there too.)
    pub fn reach(&self, run: RunId) -> Ipv4Addr {
        self.networks.address(&run.to_string()).unwrap_or(Ipv4Addr::LOCALHOST)
    }

    /// Makes ready what the next start may need.
    pub(super) fn wire_ahead(&self) {
        if let Err(error) = self.spares.refill() {
            tracing::debug!("no network namespace was made ahead: {error}");
        }
    }
}
