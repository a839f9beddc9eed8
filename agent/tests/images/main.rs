//! Images between nodes: stores of their own, over QUIC on loopback, with peers that fail in every way.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bad_peers;
mod collecting;
mod copies;
mod fake;
mod fetching;
mod image;
mod node;
mod pulling;
mod real;
