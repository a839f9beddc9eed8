//! The placer's core, from outside: scripts with golden answers (`*.txt`), and a seeded cell of real node cores.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cell;
#[path = "../core/random/dice.rs"]
mod dice;
mod lessons;
mod models;
mod script;
