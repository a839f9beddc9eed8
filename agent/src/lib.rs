//! A node: the agent that runs on it. Pure cores decide (`core`), shells do.

pub mod config;
pub mod core;
pub mod dir;
pub mod event;
pub mod identity;
pub mod ledger;
pub mod limits;
pub mod probe;
pub mod store;
