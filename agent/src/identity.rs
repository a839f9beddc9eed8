//! Who this node is, and which cell it belongs to: keys made once, ids derived from them.

use placement::ids::{CellId, NodeId};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::dir::{DataDir, DirError, read_json, write_json};

/// An identity that cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    Dir(#[from] DirError),
    #[error("cannot make a key: {0}")]
    Key(#[from] rcgen::Error),
    #[error("{dir} belongs to the cell `{has}`, not `{wanted}`: leave out --cell, or use another directory")]
    OtherCell { dir: String, has: String, wanted: String },
    #[error("`{0}` cannot be a node's name: a letter, then letters, digits or '-', at most 63 (--name)")]
    Name(String),
    #[error("`{0}` cannot be a cell's name: a letter, then letters, digits or '-', at most 63 (--cell)")]
    CellName(String),
}

/// `DIR/identity.json`, readable by root alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub version: u32,
    pub node: NodeId,
    /// Unique in the cell.
    pub name: String,
    /// The node's private key, PKCS#8 PEM. The id is the first 64 bits of the public key's SHA-256.
    pub key: String,
    pub cell: CellId,
    pub cell_name: String,
}

/// `DIR/authority.json`: the cell's certificate authority. Only on voters, and never in the ledger's copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    pub version: u32,
    /// PKCS#8 PEM. Its public key's SHA-256 is the cell's id.
    pub key: String,
    /// Self-signed, PEM.
    pub certificate: String,
}

impl Identity {
    /// The one in `dir`, or a new node in a new cell.
    pub fn open(dir: &DataDir, name: Option<&str>, cell: Option<&str>) -> Result<Identity, IdentityError> {
        let path = dir.join("identity.json");
        let Some(mut found) = read_json::<Identity>(&path, "an identity")? else {
            let made = Identity::make(dir, name, cell.unwrap_or("covey"))?;
            write_json(&path, &made, 0o600)?;
            return Ok(made);
        };
        if let Some(wanted) = cell
            && wanted != found.cell_name
        {
            return Err(IdentityError::OtherCell {
                dir: dir.path().display().to_string(),
                has: found.cell_name,
                wanted: wanted.to_string(),
            });
        }
        if let Some(name) = name
            && name != found.name
        {
            found.name = valid_name(name)?;
            write_json(&path, &found, 0o600)?;
        }
        Ok(found)
    }

    fn make(dir: &DataDir, name: Option<&str>, cell_name: &str) -> Result<Identity, IdentityError> {
        // Names first: what is refused leaves nothing.
        let cell_name = match valid_name(cell_name) {
            Ok(name) => name,
            Err(_) => return Err(IdentityError::CellName(cell_name.to_string())),
        };
        let name = match name {
            Some(name) => valid_name(name)?,
            None => host_name(),
        };
        let key = KeyPair::generate()?;
        // A start that was cut short may have left an authority that no identity names yet: it is as good as a new one.
        let path = dir.join("authority.json");
        let authority = match read_json::<Authority>(&path, "an authority")? {
            Some(found) => found,
            None => {
                let made = Authority::make(&cell_name)?;
                write_json(&path, &made, 0o600)?;
                made
            }
        };
        Ok(Identity {
            version: 1,
            node: node_id(key.public_key_raw()),
            name,
            key: key.serialize_pem(),
            cell: authority.cell()?,
            cell_name,
        })
    }
}

impl Authority {
    fn make(cell_name: &str) -> Result<Authority, IdentityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, format!("covey cell {cell_name}"));
        let certificate = params.self_signed(&key)?.pem();
        Ok(Authority { version: 1, key: key.serialize_pem(), certificate })
    }

    /// The cell's id.
    pub fn cell(&self) -> Result<CellId, IdentityError> {
        Ok(cell_id(KeyPair::from_pem(&self.key)?.public_key_raw()))
    }
}

fn node_id(public_key: &[u8]) -> NodeId {
    let hash = digest(&SHA256, public_key);
    NodeId(hash.as_ref().iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte)))
}

fn cell_id(public_key: &[u8]) -> CellId {
    CellId(digest(&SHA256, public_key).as_ref().iter().map(|b| format!("{b:02x}")).collect())
}

/// A DNS label (INTERFACES: names start with a letter).
fn valid_name(name: &str) -> Result<String, IdentityError> {
    let good = name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && !name.ends_with('-')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if good { Ok(name.to_string()) } else { Err(IdentityError::Name(name.to_string())) }
}

/// The host's name as far as it can be a node's.
fn host_name() -> String {
    let host = nix::unistd::gethostname().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let first = host.split('.').next().unwrap_or_default();
    valid_name(first).unwrap_or_else(|_| "node".to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A known key has a known id for ever: nodes and cells are named by it on disk and on the wire.
    #[test]
    fn ids_are_the_hash_of_the_public_key() {
        let key = KeyPair::from_pem(include_str!("../tests/golden/key.pem")).unwrap();
        let ids = format!("{}\n{}\n", node_id(key.public_key_raw()), cell_id(key.public_key_raw()).0);
        assert_eq!(ids, include_str!("../tests/golden/ids.txt"));
    }

    #[test]
    fn an_identity_is_made_once() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        let first = Identity::open(&dir, Some("n1"), None).unwrap();
        assert_eq!((first.name.as_str(), first.cell_name.as_str()), ("n1", "covey"));
        assert_eq!(Identity::open(&dir, None, Some("covey")).unwrap(), first);
        let error = Identity::open(&dir, None, Some("other")).unwrap_err().to_string();
        assert!(error.contains("belongs to the cell `covey`, not `other`"), "{error}");
        assert!(matches!(Identity::open(&dir, Some("9x"), None), Err(IdentityError::Name(_))));
    }

    #[test]
    fn a_refused_name_leaves_no_identity() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        assert!(matches!(Identity::open(&dir, Some("a b"), None), Err(IdentityError::Name(_))));
        assert!(matches!(Identity::open(&dir, None, Some("_")), Err(IdentityError::CellName(_))));
        assert!(!dir.join("identity.json").exists() && !dir.join("authority.json").exists());
    }

    /// The file's fields: a change is noticed here.
    #[test]
    fn the_file_is_as_it_was() {
        let text = include_str!("../tests/golden/identity.json");
        let identity: Identity = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string_pretty(&identity).unwrap() + "\n", text);
    }
}
