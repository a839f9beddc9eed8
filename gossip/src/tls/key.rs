//! Keys: who one is follows from one's own.

use std::{fmt, str::FromStr};

use placement::ids::NodeId;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, SigningKey};
use ring::{
    digest::{SHA256, digest},
    signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{TlsError, subject};

const WHAT: &str = "a key";
/// What is signed begins with this, so that no other signature of the key can be taken for a proof.
const PROOF: &[u8] = b"covey: this connection is of who holds the key\0";

/// The private key of a node or of a principal, on P-256.
pub struct Key {
    pair: KeyPair,
    public: PublicKey,
}

impl Key {
    pub fn generate() -> Result<Key, TlsError> {
        Key::of(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256))
    }

    /// From PKCS#8 PEM.
    pub fn from_pem(pem: &str) -> Result<Key, TlsError> {
        Key::of(KeyPair::from_pem(pem))
    }

    fn of(pair: Result<KeyPair, rcgen::Error>) -> Result<Key, TlsError> {
        let pair = pair.map_err(|source| TlsError::Make { what: WHAT, source })?;
        let public = PublicKey(pair.public_key_raw().try_into().map_err(|_| TlsError::PublicKey)?);
        Ok(Key { pair, public })
    }

    pub fn pem(&self) -> String {
        self.pair.serialize_pem()
    }

    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The node that has this key.
    pub fn node(&self) -> NodeId {
        self.public.node()
    }

    /// A signature of this connection, in hex: of use on no other.
    pub fn prove(&self, connection: &Binding) -> Result<String, TlsError> {
        let signed = self.pair.sign(&connection.message());
        let bytes = signed.map_err(|source| TlsError::Make { what: "a signature", source })?;
        Ok(hex(&bytes))
    }
}

/// Names one TLS connection to both of its sides, and to nobody else (RFC 8446, 7.5).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Binding(pub [u8; 32]);

/// It is as good as a secret.
impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Binding")
    }
}

impl Binding {
    fn message(&self) -> Vec<u8> {
        [PROOF, &self.0].concat()
    }
}

/// What certificates are issued for: an uncompressed point on P-256. As text: 130 hex digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey([u8; 65]);

impl PublicKey {
    /// The node that has this key.
    pub fn node(&self) -> NodeId {
        subject::node_of(&self.0)
    }

    /// SHA-256 in hex: how the ledger remembers who logged in.
    pub fn hash(&self) -> String {
        hex(digest(&SHA256, &self.0).as_ref())
    }

    /// Whether `proof` was made on this connection by who holds the private key.
    pub fn is_proven(&self, connection: &Binding, proof: &str) -> bool {
        let Some(signature) = unhex(proof) else { return false };
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0)
            .verify(&connection.message(), &signature)
            .is_ok()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for PublicKey {
    type Err = TlsError;

    fn from_str(text: &str) -> Result<PublicKey, TlsError> {
        let bytes: [u8; 65] = unhex(text).and_then(|b| b.try_into().ok()).ok_or(TlsError::PublicKey)?;
        if bytes[0] == 4 { Ok(PublicKey(bytes)) } else { Err(TlsError::PublicKey) }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<PublicKey, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    let (pairs, rest) = digits.as_ref()?.as_chunks::<2>();
    let byte = |[high, low]: &[u32; 2]| u8::try_from(high << 4 | low).ok();
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_proof_is_of_one_key_on_one_connection() {
        let (one, other) = (Key::generate().unwrap(), Key::generate().unwrap());
        let (here, there) = (Binding([1; 32]), Binding([2; 32]));
        let proof = one.prove(&here).unwrap();
        assert!(one.public().is_proven(&here, &proof));
        assert!(!one.public().is_proven(&there, &proof));
        assert!(!other.public().is_proven(&here, &proof));
        for bad in ["", "0", "zz", &proof[2..], "\u{e9}\u{e9}"] {
            assert!(!one.public().is_proven(&here, bad), "{bad}");
        }
    }

    #[test]
    fn public_keys_are_read_back_or_refused() {
        let key = Key::generate().unwrap();
        let text = key.public().to_string();
        assert_eq!(text.parse::<PublicKey>().unwrap(), *key.public());
        let moved = format!("05{}", &text[2..]);
        for bad in ["", "04", &text[2..], &format!("{text}00"), &moved, &text.replace('0', "g")] {
            assert!(matches!(bad.parse::<PublicKey>(), Err(TlsError::PublicKey)), "{bad}");
        }
        // A point that is not on the curve proves nothing.
        let off: PublicKey = format!("04{}", "ab".repeat(64)).parse().unwrap();
        let here = Binding([1; 32]);
        assert!(!off.is_proven(&here, &key.prove(&here).unwrap()));
    }
}
