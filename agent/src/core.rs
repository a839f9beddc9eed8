//! The node's core: Event → Core → Action. No I/O, no clock, no randomness.

pub mod record;
