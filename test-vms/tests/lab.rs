//! Hosts of a lab, without a cell: what they have of their own, what is limited, how they are broken, and that nothing of
//! them is left over.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "lab/bench.rs"]
mod bench;
#[path = "lab/ends.rs"]
mod ends;
#[path = "lab/faults.rs"]
mod faults;
#[path = "lab/hosts.rs"]
mod hosts;
#[path = "lab/virtual_machines.rs"]
mod virtual_machines;
