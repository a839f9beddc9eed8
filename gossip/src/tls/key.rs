//! A key of one's own: who one is follows from it.

use placement::ids::NodeId;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

use super::{TlsError, subject};

const WHAT: &str = "a key";

/// The private key of a node or of a principal, on P-256.
pub struct Key(KeyPair);

impl Key {
    pub fn generate() -> Result<Key, TlsError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256);
        pair.map(Key).map_err(|source| TlsError::Make { what: WHAT, source })
    }

    /// From PKCS#8 PEM.
    pub fn from_pem(pem: &str) -> Result<Key, TlsError> {
        KeyPair::from_pem(pem).map(Key).map_err(|source| TlsError::Make { what: WHAT, source })
    }

    pub fn pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// The point, uncompressed: what certificates are issued for.
    pub fn public(&self) -> &[u8] {
        self.0.public_key_raw()
    }

    /// The node that has this key.
    pub fn node(&self) -> NodeId {
        subject::node_of(self.public())
    }
}
