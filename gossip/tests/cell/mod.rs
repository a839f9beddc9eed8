//! A cell's authority and its nodes' certificates, for tests.

use std::time::SystemTime;

use gossip::tls::{Authority, Credentials};
use placement::ids::CellId;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};

pub(crate) struct Cell {
    pub(crate) authority: Authority,
    pub(crate) certificate: String,
}

impl Cell {
    /// As the agent makes one.
    pub(crate) fn new(name: &str) -> Cell {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, format!("covey cell {name}"));
        let certificate = params.self_signed(&key).unwrap().pem();
        Cell { authority: Authority::open(&key.serialize_pem(), &certificate, name).unwrap(), certificate }
    }

    pub(crate) fn id(&self) -> CellId {
        self.authority.cell().clone()
    }

    pub(crate) fn node(&self, name: &str) -> Credentials {
        self.credentials(&KeyPair::generate().unwrap(), name, SystemTime::now())
    }

    /// With a certificate made at `now`.
    pub(crate) fn credentials(&self, key: &KeyPair, name: &str, now: SystemTime) -> Credentials {
        let certificate = self.authority.issue(key.public_key_raw(), name, now).unwrap();
        Credentials::new(&key.serialize_pem(), certificate, &self.certificate).unwrap()
    }
}
