//! A cell's authority and its nodes' certificates, for tests.

use std::time::SystemTime;

use gossip::tls::{Authority, AuthorityKey, Credentials, Key};
use placement::ids::CellId;

pub(crate) struct Cell {
    pub(crate) authority: Authority,
    pub(crate) certificate: String,
}

impl Cell {
    pub(crate) fn new(name: &str) -> Cell {
        let made = AuthorityKey::found(name).unwrap();
        Cell { authority: made.open(name).unwrap(), certificate: made.certificate }
    }

    pub(crate) fn id(&self) -> CellId {
        self.authority.cell().clone()
    }

    pub(crate) fn node(&self, name: &str) -> Credentials {
        self.credentials(&Key::generate().unwrap(), name, SystemTime::now())
    }

    /// With a certificate made at `now`.
    pub(crate) fn credentials(&self, key: &Key, name: &str, now: SystemTime) -> Credentials {
        let certificate = self.authority.issue(key.public(), name, now).unwrap();
        Credentials::new(&key.pem(), &certificate, &self.certificate).unwrap()
    }
}
