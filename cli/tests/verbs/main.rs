//! The built command against an agent that answers by script.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod advise;
mod cell;
mod context;
mod fake;
mod follow;
mod run;
mod show;
mod simulate;
mod wait;
