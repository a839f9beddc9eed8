//! What membership tells: noted for people, and kept on disk so that the members can be found again at the next start.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, time::Duration};

use gossip::driver::News;
use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
    time::sleep,
};

use crate::{
    cell::Cell,
    dir::{self, DataDir},
    journal::Journal,
};

/// Many come at once: the file is written once for all.
const GATHER: Duration = Duration::from_millis(500);
/// A node that leaves is still told that it is forgotten.
const GOOD_BYE: Duration = Duration::from_secs(1);
/// Addresses that are kept.
const KEPT: usize = 1_000;

/// `DIR/members.json`: where the others were.
pub(super) fn path(dir: &DataDir) -> PathBuf {
    dir.join("members.json")
}

/// Where the others were when this node last ran. A file that cannot be read is as good as none: the ledger's roster and
/// the others' greetings bring them back.
pub(super) fn kept(dir: &DataDir) -> Vec<SocketAddr> {
    dir::read_json(&path(dir), "a list of members").ok().flatten().unwrap_or_default()
}

/// Notes what happens to the others.
/// `twin`: whoever runs with this node's key, and did before it: this agent has to end.
pub(super) async fn note(
    mut news: mpsc::Receiver<News>,
    cell: Cell,
    journal: Journal,
    twin: watch::Sender<Option<SocketAddr>>,
) {
    while let Some(one) = news.recv().await {
        match one {
            News::Up(peer) => {
                cell.peers.remember(peer.id, peer.addr);
                journal.node("node_alive", format!("{} is here, at {}", cell.name(peer.id), peer.addr));
            }
            News::Down(peer) => {
                cell.peers.remember(peer.id, peer.addr);
                journal.node("node_gone", format!("{} at {} is gone", cell.name(peer.id), peer.addr));
            }
            News::Twin { addr, first } => {
                copied(&cell, &journal, addr);
                if first {
                    twin.send_replace(Some(addr));
                }
            }
            News::Garbled(why) => tracing::debug!("membership: {why}"),
            News::Active | News::Idle => {}
        }
    }
}

/// Another agent has this node's key.
pub(super) fn copied(cell: &Cell, journal: &Journal, addr: SocketAddr) {
    if cell.saw_twin() {
        let text = format!(
            "another agent has this node's key: the one at {addr}. One of the two was started from a copy of the other's \
             data directory, and is turned away: start it with an empty one"
        );
        tracing::error!("{text}");
        journal.node("twin", text);
    }
}

/// Follows the roster: who was removed is cut off, and who is not here is sought where he was.
pub(super) async fn follow(cell: Cell, journal: Journal) {
    let mut applied = cell.ledger.applied();
    let mut told = false;
    let mut cut_off = cell.state().removed.clone();
    cell.peers.transport().revoke(cut_off.clone());
    loop {
        let state = cell.state();
        if state.removed != cut_off {
            cut_off.clone_from(&state.removed);
            let (transport, removed) = (cell.peers.transport().clone(), state.removed.clone());
            tokio::spawn(async move {
                sleep(GOOD_BYE).await;
                transport.revoke(removed);
            });
        }
        for (node, member) in state.roster.iter().filter(|(node, _)| !cell.peers.is_alive(**node)) {
            if let Some(addr) = member.addr.as_deref().and_then(|text| text.parse().ok())
                && cell.peers.address(*node).is_none()
            {
                cell.peers.remember(*node, addr);
            }
        }
        if state.removed.contains(&cell.me()) && !std::mem::replace(&mut told, true) {
            let text = "this node was removed from its cell: start its agent with an empty data directory to join again";
            tracing::error!("{text}");
            journal.node("removed", text.to_string());
        }
        drop(state);
        if applied.changed().await.is_err() {
            return;
        }
    }
}

/// Writes down where the others are, whenever that has changed.
pub(super) async fn keep(cell: Cell, path: PathBuf) {
    let mut members = cell.peers.watch();
    let mut written: BTreeSet<SocketAddr> = BTreeSet::new();
    while members.changed().await.is_ok() {
        sleep(GATHER).await;
        let now: BTreeSet<SocketAddr> = members.borrow_and_update().values().map(|peer| peer.addr).collect();
        // Whoever is gone now may be the only one left next time.
        let all: BTreeSet<SocketAddr> = now.union(&written).copied().take(KEPT).collect();
        let next = if now.len() < written.len() { all } else { now };
        if next == written {
            continue;
        }
        let (path, addrs) = (path.clone(), next.clone());
        match spawn_blocking(move || dir::write_json(&path, &addrs, 0o600)).await {
            Ok(Ok(())) => written = next,
            Ok(Err(error)) => tracing::warn!("{error}"),
            Err(_) => return,
        }
    }
}
