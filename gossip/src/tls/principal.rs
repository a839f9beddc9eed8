//! What a principal shows: a user or an admin that logged in.

use std::time::SystemTime;

use placement::ids::{CellId, Principal};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::{BadSubject, TlsError, Who, authority, connecting, subject, verify};

/// A principal's certificate, the authority's, and the key that it has the certificate for.
#[derive(Debug)]
pub struct ClientCredentials {
    pub principal: Principal,
    pub cell: CellId,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl ClientCredentials {
    /// All PEM, as `wire::join::NewPrincipal` gave them, and the key (PKCS#8) that they were given for.
    pub fn new(key: &str, certificate: &str, authority: &str) -> Result<ClientCredentials, TlsError> {
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|source| TlsError::Pem { what: "the key", source })?;
        let certificate = authority::certificate(certificate, "the certificate")?;
        let authority = authority::certificate(authority, "the authority's certificate")?;
        let cell = subject::cell_of(&authority)?;
        match Who::read(&certificate, &cell)? {
            Who::Principal(principal) => {
                Ok(ClientCredentials { principal, cell, chain: vec![certificate, authority], key })
            }
            Who::Node(_) => Err(BadSubject::Nobody(cell.0).into()),
        }
    }

    /// Until when members accept the certificate. After it: log in again.
    pub fn until(&self) -> Result<SystemTime, TlsError> {
        verify::validity(&self.chain[0], &self.chain[1]).map(|(_, until)| until)
    }

    /// For connecting to members, by `any_server_name`.
    pub fn client(&self) -> Result<ClientConfig, TlsError> {
        connecting(&self.chain, &self.key, &self.cell)
    }
}
