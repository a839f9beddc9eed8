//! Verbs that need no agent: what would have happened.

mod overcommit;
pub(crate) mod trace;

pub(super) use self::overcommit::overcommit;
