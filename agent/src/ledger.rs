//! The ledger on this node: a Raft log (openraft) on redb, applied to [`placement::ledger::Ledger`].
//!
//! `handle` is all that the daemon sees; `keeper` runs behind it. Below them `log` and `state` give openraft what it asks
//! for, over a `disk`: `file` is the one that lasts, the simulation has one of its own. `record` is what stands on disk.
//! Beside them `seats` changes who votes, `network` says to other voters what `rpc` puts in words, and `heard` notes who answers.
//! Nothing here decides anything about jobs or nodes.

mod batch;
mod copy;
mod disk;
mod file;
mod handle;
mod heard;
mod keeper;
mod log;
mod network;
pub mod record;
mod rpc;
mod seats;
mod state;
#[cfg(test)]
mod tests;

use std::io::Cursor;

use openraft::{EmptyNode, RaftTypeConfig, SnapshotPolicy, impls::OneshotResponder};
use placement::{ids::NodeId, ledger::Answer};

pub use batch::Batch;
pub use copy::{Copy, CopyError};
pub use disk::{Change, Disk, DiskError, Note};
pub use file::File;
pub use handle::{LedgerHandle, ProposeError, Role};
#[cfg(test)]
pub(crate) use heard::{Heard, noted};
pub use log::Log;
#[cfg(test)]
pub(crate) use network::Ways;
pub use network::{Ask, Asked, Unreached, alone};
pub use rpc::{Call, CallError, MAX_CALL, Reply, answer};
pub use seats::{StepError, seats, take};
pub use state::{Machine, Since, View};

/// What this ledger makes of openraft's many parameters. The runtime is left open: tokio's here, a seeded one in the
/// simulation.
pub trait Types:
    RaftTypeConfig<
        D = Batch,
        R = Vec<Answer>,
        NodeId = NodeId,
        Node = EmptyNode,
        Entry = openraft::Entry<Self>,
        SnapshotData = Cursor<Vec<u8>>,
        Responder = OneshotResponder<Self>,
    >
{
}

openraft::declare_raft_types!(
    /// The ledger under tokio.
    pub Daemon:
        D = Batch,
        R = Vec<Answer>,
        NodeId = NodeId,
        Node = EmptyNode,
        Entry = openraft::Entry<Daemon>,
        SnapshotData = Cursor<Vec<u8>>,
        Responder = OneshotResponder<Daemon>,
        AsyncRuntime = openraft::TokioRuntime,
);

impl Types for Daemon {}

/// Log entries between two snapshots.
pub const SNAPSHOT_EVERY: u64 = 5_000;
/// Log entries kept behind a snapshot, for voters that lag a little.
const KEPT_BEHIND_SNAPSHOT: u64 = 1_000;

/// Timing for a LAN. Voters refuse others for 500 ms after they heard the leader, then wait 300 to 500 ms more: a new
/// leader stands 0.8 to 1.2 s after the old one fell silent. A sole voter waits for nobody.
pub fn config() -> openraft::Config {
    openraft::Config {
        cluster_name: "covey".into(),
        heartbeat_interval: 100,
        election_timeout_min: 300,
        election_timeout_max: 500,
        snapshot_max_chunk_size: 1 << 20,
        install_snapshot_timeout: 10_000,
        replication_lag_threshold: SNAPSHOT_EVERY + KEPT_BEHIND_SNAPSHOT,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
        max_in_snapshot_log_to_keep: KEPT_BEHIND_SNAPSHOT,
        // Each purge is a durable write of its own.
        purge_batch_size: 256,
        ..openraft::Config::default()
    }
}
