//! Real hosts for tests, demos and figures: virtual machines, and nodes on this machine. Everything here uses only the
//! built `covey` binary, as its users do, never the crates that it is made of.

pub mod binary;
pub mod cgroups;
pub mod debian;
mod error;
pub mod guest;
pub mod lab;
pub mod node;
pub mod vm;

pub use error::{Error, Result};
