//! Real containers, as root: that they start, what they see, what holds them, how they end, what stays.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod block_io;
mod cycles;
mod exec;
mod failures;
mod isolation;
mod life;
mod limits;
mod log;
mod network;
mod privileges;
mod processes;
mod server;
mod volumes;
mod world;
