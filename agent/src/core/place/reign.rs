//! When this node acts as the placer (PROTOCOL 3, 5, 6): it leads the ledger, its own activation is applied, and a majority
//! of the voters answered just now. Pure; the shell looks before it hands the placer's core anything, and whenever its role,
//! the ledger or the quorum may have changed (a look four times a second catches the last), and does what the step says.

use placement::ids::{Activation, NodeId};

/// E of PROTOCOL 6, in milliseconds: a majority has answered what was sent no longer ago. Below the 500 ms for which voters
/// refuse others their vote after they heard a leader, so that a predecessor is silent before its successor can be elected.
pub const QUORUM_MS: u64 = 400;

/// A placer that no majority has answered for so long ends, and readers are told that none acts. Until then it holds its
/// tongue: if it leads the same term again, nobody else has led since.
pub const ALONE_MS: u64 = 2_000;

/// What this node sees of the ledger now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// The term that it leads, and the start of the Raft core that does: a core that was started again leads in the same
    /// term, and needs an activation of its own all the same.
    pub leads: Option<(u64, u64)>,
    /// How long ago, in milliseconds, the newest heartbeats were sent that a majority has answered.
    pub quorum_age_ms: Option<u64>,
    /// Of the ledger as applied here.
    pub activation: Activation,
    pub placer: Option<NodeId>,
}

impl Sight {
    /// The term and start in which it may act.
    fn lease(&self) -> Option<(u64, u64)> {
        self.leads.filter(|_| self.quorum_age_ms.is_some_and(|age| age < QUORUM_MS))
    }

    /// Whether it has been without a majority for so long that nobody should take it for the placer.
    fn alone(&self) -> bool {
        self.quorum_age_ms.is_none_or(|age| age >= ALONE_MS)
    }
}

/// What follows from a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Propose `Command::Activate`, and tell `Reign::answered` what came of it.
    Propose,
    /// The core is to hear `Activated`; then members are reached.
    Begin(Activation),
    /// The core is to hear `Deposed`; sessions end, and what is still on its way in them is dropped.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Idle,
    Proposing {
        term: (u64, u64),
    },
    Acting {
        term: (u64, u64),
        activation: Activation,
    },
}

/// Of one node, from its start.
#[derive(Debug, Clone)]
pub struct Reign {
    me: NodeId,
    phase: Phase,
}

impl Reign {
    pub fn new(me: NodeId) -> Reign {
        Reign { me, phase: Phase::Idle }
    }

    /// The activation under which it acts.
    pub fn acts(&self) -> Option<Activation> {
        match self.phase {
            Phase::Acting { activation, .. } => Some(activation),
            Phase::Idle | Phase::Proposing { .. } => None,
        }
    }

    /// Whether it may speak now: until then the shell tells its core nothing, and so sends nothing.
    pub fn speaks(&self, sight: &Sight) -> bool {
        matches!(self.phase, Phase::Acting { term, .. } if sight.lease() == Some(term))
    }

    pub fn look(&mut self, sight: &Sight) -> Option<Step> {
        match self.phase {
            Phase::Idle => {
                let term = sight.lease()?;
                self.phase = Phase::Proposing { term };
                Some(Step::Propose)
            }
            Phase::Proposing { .. } => None,
            Phase::Acting { term, activation } => {
                let on = sight.leads == Some(term) && !sight.alone() && sight.activation == activation;
                (!on).then(|| {
                    self.phase = Phase::Idle;
                    Step::End
                })
            }
        }
    }

    /// The activation proposed last is applied here (`done`), or may not be. If nothing follows, a later look begins anew;
    /// leave some time before it.
    pub fn answered(&mut self, done: bool, sight: &Sight) -> Option<Step> {
        let Phase::Proposing { term } = self.phase else { return None };
        self.phase = Phase::Idle;
        if !done || sight.lease() != Some(term) || sight.placer != Some(self.me) {
            return None;
        }
        self.phase = Phase::Acting { term, activation: sight.activation };
        Some(Step::Begin(sight.activation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(1);
    const LEADS: Sight = Sight {
        leads: Some((4, 1)),
        quorum_age_ms: Some(100),
        activation: Activation { cell: 1, index: 7 },
        placer: Some(ME),
    };

    fn acting() -> Reign {
        let mut reign = Reign::new(ME);
        assert_eq!(reign.look(&LEADS), Some(Step::Propose));
        assert_eq!(reign.look(&LEADS), None, "one proposal at a time");
        assert_eq!(reign.answered(true, &LEADS), Some(Step::Begin(LEADS.activation)));
        assert_eq!(reign.acts(), Some(LEADS.activation));
        assert_eq!(reign.look(&LEADS), None);
        reign
    }

    #[test]
    fn it_acts_only_while_a_majority_answers() {
        let mut reign = acting();
        let late = Sight { quorum_age_ms: Some(QUORUM_MS), ..LEADS };
        assert_eq!((reign.look(&late), reign.speaks(&late), reign.speaks(&LEADS)), (None, false, true));
        let alone = Sight { quorum_age_ms: Some(ALONE_MS), ..LEADS };
        assert_eq!(reign.look(&alone), Some(Step::End));
        assert_eq!((reign.acts(), reign.look(&alone)), (None, None));
        // Once it is there again, it needs a new activation: what went wrong meanwhile is not known.
        assert_eq!(reign.look(&LEADS), Some(Step::Propose));
    }

    #[test]
    fn it_ends_with_its_term_its_core_or_its_activation() {
        let newer = Activation { cell: 1, index: 9 };
        let ends = [
            Sight { leads: None, ..LEADS },
            Sight { leads: Some((5, 1)), ..LEADS },
            Sight { leads: Some((4, 2)), ..LEADS },
            Sight { quorum_age_ms: None, ..LEADS },
            Sight { activation: newer, ..LEADS },
        ];
        for sight in ends {
            assert_eq!(acting().look(&sight), Some(Step::End), "{sight:?}");
        }
    }

    #[test]
    fn an_activation_that_is_not_its_own_or_came_too_late_is_none() {
        let nothing = [
            (false, LEADS),
            (true, Sight { placer: Some(NodeId(2)), ..LEADS }),
            (true, Sight { quorum_age_ms: Some(QUORUM_MS), ..LEADS }),
            (true, Sight { leads: Some((4, 2)), ..LEADS }),
        ];
        for (done, sight) in nothing {
            let mut reign = Reign::new(ME);
            assert_eq!(reign.look(&LEADS), Some(Step::Propose));
            assert_eq!(reign.answered(done, &sight), None, "{sight:?}");
            assert_eq!(reign.acts(), None);
            assert_eq!(reign.look(&LEADS), Some(Step::Propose), "it tries again");
        }
    }
}
