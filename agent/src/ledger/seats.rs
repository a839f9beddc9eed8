//! Who holds which part in the ledger, and changing it by one small step.
//!
//! openraft changes voters by two entries: both sets have to agree, then only the new one counts. A leader that falls
//! between the two leaves the change half done: [`VoterStep::Finish`] is for the next. A step is refused, rather than
//! queued, while the last one is not applied, or a majority has not answered just now.

use std::{collections::BTreeSet, time::Duration};

use openraft::{
    AsyncRuntime, ChangeMembers, EmptyNode, LogId, LogIdOptionExt, Raft, RaftMetrics, ServerState,
    error::{ClientWriteError, Fatal, RaftError},
};
use placement::{
    ids::NodeId,
    voters::{Seats, VoterStep},
};

use super::Types;

/// A learner with no more than so many entries to go has caught up: the rest comes with the next message.
const CAUGHT_UP: u64 = 32;
/// A majority that answered no later than this many milliseconds ago is there: some heartbeats.
const HEALTHY: u64 = 300;
/// How long a step may take. Beyond it the change may still come about, as an entry of the log may.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why a step was not made, or not seen to be.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StepError {
    #[error("this node does not lead the ledger{}", leader.map(|id| format!("; node {id} does")).unwrap_or_default())]
    NotLeader { leader: Option<NodeId> },
    /// Ask again when it is over.
    #[error("cannot {step} yet: the last change of voters is not settled, or no majority answers")]
    Unsettled { step: VoterStep },
    /// The seats are not those that the step was chosen for.
    #[error("cannot {step}: {why}")]
    Impossible { step: VoterStep, why: String },
    /// It may come about all the same.
    #[error("{step}: not done within {} s", PATIENCE.as_secs())]
    Late { step: VoterStep },
    /// As with `Late`.
    #[error("the ledger stopped: {why}; it is being started again")]
    Core { why: String },
    #[error("the ledger is shut down")]
    Closed,
}

/// The seats, if this node leads, is healthy, and no change of them is under way.
pub fn seats(metrics: &RaftMetrics<NodeId, EmptyNode>) -> Option<Seats> {
    let set_at = metrics.membership_config.log_id();
    let membership = metrics.membership_config.membership();
    let alone = membership.voter_ids().all(|id| id == metrics.id);
    let healthy = alone || metrics.millis_since_quorum_ack.is_some_and(|ago| ago <= HEALTHY);
    let leads = metrics.state == ServerState::Leader && metrics.running_state.is_ok();
    if !leads || !healthy || metrics.last_applied < *set_at {
        return None;
    }
    let (voters, older) = membership.get_joint_config().split_last()?;
    let last = metrics.last_log_index.unwrap_or(0);
    let caught_up = |id: &NodeId| {
        let matched = metrics.replication.as_ref().and_then(|all| all.get(id).copied().flatten());
        matched.is_some() && matched.index().unwrap_or(0) + CAUGHT_UP >= last
    };
    Some(Seats {
        leader: metrics.id,
        voters: voters.clone(),
        leaving: older.iter().flatten().copied().collect(),
        learners: membership.learner_ids().map(|id| (id, caught_up(&id))).collect(),
    })
}

/// Makes one step, if it is possible now; done when it is committed. Only one at a time may be asked for.
pub async fn take<C: Types>(raft: &Raft<C>, step: VoterStep) -> Result<(), StepError> {
    let now = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow();
        if metrics.state != ServerState::Leader {
            return Err(StepError::NotLeader { leader: metrics.current_leader });
        }
        seats(&metrics).ok_or(StepError::Unsettled { step })?
    };
    let change = change(&now, step)?;
    // Who votes no more goes on listening: so it hears of it, and does not stand for election.
    let change = async {
        let changed = raft.change_membership(change, true).await?;
        // The answer comes before the metrics: who looks again must not see the seats of before.
        let shown = raft.metrics().wait_for(|now| shows(now, changed.log_id)).await.map(drop);
        shown.map_err(|_| RaftError::Fatal(Fatal::Stopped))
    };
    match C::AsyncRuntime::timeout(PATIENCE, change).await.map_err(|_| StepError::Late { step })? {
        Ok(()) => Ok(()),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
            Err(StepError::NotLeader { leader: to.leader_id })
        }
        Err(RaftError::APIError(e)) => Err(StepError::Impossible { step, why: e.to_string() }),
        Err(RaftError::Fatal(e)) => Err(StepError::Core { why: e.to_string() }),
    }
}

fn shows(metrics: &RaftMetrics<NodeId, EmptyNode>, change: LogId<NodeId>) -> bool {
    let shown = *metrics.membership_config.log_id() >= Some(change) && metrics.last_applied >= Some(change);
    shown || metrics.running_state.is_err()
}

/// The step in openraft's words, if it fits the seats.
fn change(now: &Seats, step: VoterStep) -> Result<ChangeMembers<NodeId, EmptyNode>, StepError> {
    let impossible = |why: &str| StepError::Impossible { step, why: why.into() };
    let half_done = !now.leaving.is_empty();
    if half_done != (step == VoterStep::Finish) {
        return Err(impossible(if half_done { "a change is half done" } else { "no change is half done" }));
    }
    Ok(match step {
        VoterStep::Finish => ChangeMembers::ReplaceAllVoters(now.voters.clone()),
        VoterStep::Learn(id) if now.voters.contains(&id) => return Err(impossible("it votes")),
        VoterStep::Learn(id) => ChangeMembers::AddNodes([(id, EmptyNode {})].into()),
        VoterStep::Promote(id) if now.learners.get(&id) != Some(&true) => {
            return Err(impossible("it has not caught up"));
        }
        VoterStep::Promote(id) => ChangeMembers::AddVoterIds(BTreeSet::from([id])),
        VoterStep::Demote(id) if id == now.leader => return Err(impossible("it leads")),
        VoterStep::Demote(id) if !now.voters.contains(&id) => return Err(impossible("it does not vote")),
        VoterStep::Demote(id) => ChangeMembers::RemoveVoters(BTreeSet::from([id])),
        VoterStep::Forget(id) if !now.learners.contains_key(&id) => {
            return Err(impossible("it is no learner"));
        }
        VoterStep::Forget(id) => ChangeMembers::RemoveNodes(BTreeSet::from([id])),
    })
}
