//! A node: the agent that runs on it. Pure cores decide (`core`), shells do.

mod api;
pub mod cell;
pub mod certificates;
pub mod clock;
pub mod config;
pub mod core;
pub mod daemon;
pub mod dir;
mod doctor;
pub mod estimate;
pub mod event;
mod guard;
pub mod history;
pub mod identity;
pub mod images;
pub mod join;
pub mod journal;
mod labels;
pub mod ledger;
pub mod left;
pub mod limits;
pub mod logs;
mod measure;
mod memory;
pub mod peers;
pub mod probe;
pub mod runner;
mod server;
pub mod session;
pub mod shares;
#[cfg(test)]
mod sim;
pub mod store;
mod volumes;
