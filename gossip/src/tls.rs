//! Who may talk: TLS 1.3 (ring) by certificates of the cell's own authority, and by a token for who has none yet.

mod authority;
mod key;
mod principal;
mod subject;
mod verify;

use std::{sync::Arc, time::SystemTime};

use placement::ids::CellId;
use ring::hmac;
use rustls::{
    ClientConfig, ServerConfig,
    client::Resumption,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::NoServerSessionStorage,
    version::TLS13,
};

pub use authority::{Authority, AuthorityKey, LIFETIME, PRINCIPAL_LIFETIME};
pub use key::{Binding, Key, PublicKey};
pub use principal::ClientCredentials;
pub use subject::{BadSubject, Subject, Who};
pub use verify::Pinned;

/// Members of the cell, both with certificates.
pub const ALPN: &[u8] = crate::wire::PROTOCOL.as_bytes();
/// A stranger with a token: may join and nothing else.
pub const ALPN_JOIN: &[u8] = b"covey-join/1";

/// A key or certificate that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{what} cannot be read: {source}")]
    Pem { what: &'static str, source: rustls::pki_types::pem::Error },
    #[error("{what} cannot be made: {source}")]
    Make { what: &'static str, source: rcgen::Error },
    #[error("a public key must be a point on P-256, of 65 bytes in hex")]
    PublicKey,
    #[error("the authority's certificate is not of its key, or of a cell of another name")]
    OtherAuthority,
    #[error(transparent)]
    Subject(#[from] BadSubject),
    #[error("TLS refuses {what}: {source}")]
    Tls { what: &'static str, source: rustls::Error },
}

/// What a member shows: its certificate, the authority's, and the key that it has the certificate for.
#[derive(Debug)]
pub struct Credentials {
    pub subject: Subject,
    pub cell: CellId,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Credentials {
    /// The node's key (PKCS#8), its certificate as issued, and the authority's, all PEM. Whether the certificate has
    /// expired is for the peers to say.
    pub fn new(key: &str, certificate: &str, authority: &str) -> Result<Credentials, TlsError> {
        let owner = Key::from_pem(key)?.node();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|source| TlsError::Pem { what: "the node's key", source })?;
        let certificate = authority::certificate(certificate, "the node's certificate")?;
        let authority = authority::certificate(authority, "the authority's certificate")?;
        let cell = subject::cell_of(&authority)?;
        let subject = Subject::read(&certificate, &cell)?;
        if subject.node != owner {
            return Err(BadSubject::OtherKey(subject.node, owner).into());
        }
        Ok(Credentials { subject, cell, chain: vec![certificate, authority], key })
    }

    /// For whoever connects. A client without a certificate gets through the handshake: it is for the transport to
    /// hold it to `ALPN_JOIN`.
    pub fn server(&self) -> Result<ServerConfig, TlsError> {
        let tls = |source| TlsError::Tls { what: "this node's certificate", source };
        let provider = provider();
        let verifier = verify::Clients::of(self.authority(), &self.cell, &provider)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(tls)?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(tls)?;
        config.alpn_protocols = vec![ALPN.to_vec(), ALPN_JOIN.to_vec()];
        // A resumed session would outlive the certificates that it began with, and saves a third of a millisecond.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// For connecting to other members, by `Subject::server_name` or `any_server_name`.
    pub fn client(&self) -> Result<ClientConfig, TlsError> {
        connecting(&self.chain, &self.key, &self.cell)
    }

    /// From when until when others accept the certificate.
    pub fn validity(&self) -> Result<(SystemTime, SystemTime), TlsError> {
        verify::validity(&self.chain[0], self.authority())
    }

    /// When to ask for the next certificate: at half of this one's life. Nodes are apart by up to a tenth of it, so that
    /// those which joined together do not ask together for ever.
    pub fn renew_at(&self) -> Result<SystemTime, TlsError> {
        let (from, until) = self.validity()?;
        let life = until.duration_since(from).unwrap_or_default();
        let apart = u32::try_from(self.subject.node.0 % 1000).unwrap_or(0);
        Ok(from + life / 2 + (life / 10_000) * apart)
    }

    /// A secret for one purpose, the same each time the node starts.
    pub(crate) fn derived(&self, purpose: &str) -> hmac::Tag {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, self.key.secret_der()), purpose.as_bytes())
    }

    fn authority(&self) -> &CertificateDer<'static> {
        &self.chain[1]
    }
}

/// For connecting to members, with a certificate and its authority's (`chain`).
fn connecting(
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    cell: &CellId,
) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let what = "the own certificate";
    let authority = chain.last().ok_or(TlsError::Subject(BadSubject::NoAuthority))?;
    let verifier = verify::Servers::of(authority, cell, &provider)?;
    let tls = |source| TlsError::Tls { what, source };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(chain.to_vec(), key.clone_key())
        .map_err(tls)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// For a stranger who has nothing but a token: the server must show an authority with this fingerprint, and a
/// certificate of it.
pub fn joining(cell: &CellId) -> Result<ClientConfig, TlsError> {
    pinned(Arc::new(Pinned::new(cell.clone())))
}

pub(crate) fn pinned(verifier: Arc<Pinned>) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|source| TlsError::Tls { what: "to join", source })?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_JOIN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The server name for whichever member of the cell answers.
pub fn any_server_name(cell: &CellId) -> String {
    subject::any_name(cell)
}

/// Always given, never the process's default: that panics when a dependency brings a second one.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
