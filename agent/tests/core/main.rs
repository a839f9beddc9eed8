//! The node's core, from outside: scripts with golden answers (`*.txt`), and a seeded random driver.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod estimate;
mod formats;
mod random;
mod script;
mod show;
