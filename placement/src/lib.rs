//! What a cell is made of and every decision about it, as pure functions.
//!
//! Nouns first (`ids`, `resources`, `job`, `task`, `node`), then decisions (`plan` and what it stands on), then the
//! ledger's state machine. Nothing here does I/O, reads a clock, draws a random number or logs: time comes in as an
//! argument and maps are ordered, so that the same inputs give the same answer on any machine. `no_std` proves it.
#![no_std]
extern crate alloc;

pub mod change;
pub mod feasible;
pub mod home;
pub mod ids;
pub mod intent;
pub mod job;
pub mod ledger;
pub mod node;
pub mod obstacle;
pub mod plan;
pub mod resources;
pub mod room;
pub mod score;
pub mod task;
pub mod view;
pub mod voters;
pub mod why;
