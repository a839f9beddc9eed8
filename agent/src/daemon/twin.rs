//! One directory, one agent, one life at a time (PROTOCOL 22). A copy of a directory that is started while its node runs
//! is refused; one that could not know is ended once it finds out; and a directory that was put back from a copy under
//! its own running containers is recognised by its life, which the machine remembers until it is switched off.

use std::{
    fs, io,
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
};

use gossip::transport;

use super::AgentError;
use crate::{
    config::Config,
    dir::{self, DataDir},
    identity::Identity,
};

/// `DIR/address.json`: where this node, or the one that its directory is a copy of, was last reached.
fn path(dir: &DataDir) -> PathBuf {
    dir.join("address.json")
}

/// Refuses to begin while an agent with the same key answers where the directory's node was last.
pub(super) async fn refuse(dir: &DataDir, identity: &Identity) -> Result<(), AgentError> {
    // One that cannot be read is as good as none: the others tell, though later.
    let Some(last) = dir::read_json::<SocketAddr>(&path(dir), "an address").ok().flatten() else {
        return Ok(());
    };
    if is_free(last) {
        return Ok(());
    }
    match transport::twin_at(last, &identity.credentials()?).await {
        Ok(Some(_)) => Err(AgentError::Twin { dir: dir.path().to_path_buf(), addr: last }),
        Ok(None) => Ok(()),
        Err(error) => {
            tracing::debug!("whether this node runs elsewhere: {error}");
            Ok(())
        }
    }
}

/// An address of this very machine on which nobody listens.
fn is_free(addr: SocketAddr) -> bool {
    UdpSocket::bind(addr).is_ok()
}

/// Where to look at the next start: this agent's address, or that of the twin it gave way to.
pub(super) fn remember(dir: &DataDir, addr: SocketAddr) -> Result<(), AgentError> {
    Ok(dir::write_json(&path(dir), &addr, 0o600)?)
}

/// `/run/covey/NODE.life`, beside the socket: gone when the machine is switched off, as are the containers.
pub(super) struct Life(PathBuf);

impl Life {
    /// None for a throw-away cell: there is no next start.
    pub(super) fn of(config: &Config, identity: &Identity) -> Option<Life> {
        let run = config.socket.parent().unwrap_or(Path::new("."));
        (!config.dev).then(|| Life(run.join(format!("{}.life", identity.node))))
    }

    /// The last that the machine knows of; 0: none.
    pub(super) fn known(&self) -> u64 {
        fs::read_to_string(&self.0).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    pub(super) fn remember(&self, life: u64) -> Result<(), AgentError> {
        let (new, path) = (self.0.with_extension("new"), self.0.clone());
        let write = || fs::write(&new, format!("{life}\n")).and_then(|()| fs::rename(&new, &path));
        write().map_err(|source: io::Error| AgentError::Io { what: "write", path: path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_life_is_known_until_the_machine_is_switched_off() {
        let run = tempfile::tempdir().unwrap();
        let life = Life(run.path().join("0.life"));
        assert_eq!(life.known(), 0);
        life.remember(7).unwrap();
        assert_eq!(life.known(), 7);
        fs::write(run.path().join("0.life"), "garbage").unwrap();
        assert_eq!(life.known(), 0);
    }

    #[tokio::test]
    async fn a_copy_does_not_begin_while_its_node_runs() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        let identity = Identity::open(&dir, Some("n1"), Some("c")).unwrap();
        refuse(&dir, &identity).await.unwrap();

        let listen = "127.0.0.1:0".parse().unwrap();
        let (running, _events) =
            transport::Transport::bind(listen, &identity.credentials().unwrap()).unwrap();
        let addr = running.local_addr().unwrap();
        remember(&dir, addr).unwrap();
        let error = refuse(&dir, &identity).await.unwrap_err().to_string();
        assert!(
            error.contains(&addr.to_string()) && error.contains("is a copy of its data directory"),
            "{error}"
        );

        // Another node is there by now.
        let elsewhere = tempfile::tempdir().unwrap();
        let other = Identity::open(&DataDir::open(elsewhere.path()).unwrap(), Some("n2"), Some("d")).unwrap();
        let (there, _events) = transport::Transport::bind(listen, &other.credentials().unwrap()).unwrap();
        remember(&dir, there.local_addr().unwrap()).unwrap();
        refuse(&dir, &identity).await.unwrap();
    }
}
