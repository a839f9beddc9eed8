//! A cell in one thread: virtual time, seeded chance, disks and a network that fail. The same seed gives the same run,
//! poll by poll.
//!
//! `runtime` is the executor and knows nothing of covey; `disk`, `net` and `cell` put ledgers of several nodes on it;
//! `raft` runs them through crashes and splits, `voters` through nodes that come and go, and `whole` puts all the rest of
//! the cell round them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cell;
mod disk;
mod net;
mod raft;
mod runtime;
mod seeded;
mod seeds;
mod voters;
mod whole;
