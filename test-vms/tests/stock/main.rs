//! Stock images run unchanged: a dozen, built here from Debian packages as their makers build them (layers, entrypoint,
//! user, working directory, variables, volumes, stop signal), each loaded into a node, run and used. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod image;
mod layers;
mod packages;
mod plain;
mod servers;
mod used;
