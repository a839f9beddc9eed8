//! Who is here and how nodes and clients talk. Knows the nouns of `placement`, decides nothing.

pub mod client;
pub mod driver;
pub mod frame;
pub mod join;
pub mod membership;
pub mod peer;
pub mod tls;
pub mod token;
pub mod transport;
pub mod wire;
