//! A node: the agent that runs on it. Pure cores decide (`core`), shells do.

pub mod core;
pub mod event;
