//! What a cell lives through, on real hosts with real containers. Each story is one file, and begins with a cell of its own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cell;

mod agent_killed;
mod all_off_and_on;
mod bad_token;
mod form;
mod image;
mod leave;
mod node_crashed;
mod one_way;
mod placer_crashed;
mod private_network;
mod reach;
mod reclaimed;
mod run;
mod shrinks;
mod split;
mod unkind;
mod virtual_machines;
mod volume;
mod voters_crashed;
