//! Images from file to root filesystem: what is stored, what is refused, what the container sees.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod binary;
mod corpus;
mod hostile;
mod idmap;
mod incoming;
mod loading;
mod store;
mod support;
mod unpacking;
