//! Who this node is, and which cell it belongs to: keys made once, ids derived from them.

mod held;

use std::{fmt, net::SocketAddr, path::Path, time::SystemTime};

use gossip::{
    tls::{Authority, AuthorityKey, Credentials, Key, TlsError},
    wire::join::NewNode,
};
use placement::{
    ids::{Activation, CellId, NodeId},
    job::name::is_node,
};
use serde::{Deserialize, Serialize};

pub use held::Held;

use crate::dir::{DataDir, DirError, read_json, remove, write_json};

/// An identity that cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    Dir(#[from] DirError),
    #[error("a key or certificate of this node: {0}")]
    Make(#[source] TlsError),
    #[error("this is not the authority of this node's cell")]
    OtherAuthority,
    #[error(
        "{file} of {dir} cannot be used: {source}. Restore identity.json and authority.json of one node from a copy, or \
         start with a new directory"
    )]
    Damaged { dir: String, file: &'static str, source: TlsError },
    #[error(
        "identity.json of {dir} holds no certificate, and without authority.json none can be made: restore both from a \
         copy, or join the cell with a new directory (--join, --token)"
    )]
    NoCertificate { dir: String },
    #[error("{dir} belongs to the cell `{has}`, not `{wanted}`: leave out --cell, or use another directory")]
    OtherCell { dir: String, has: String, wanted: String },
    #[error(
        "{dir} belongs to the node `{has}`, not `{wanted}`: a node keeps the name by which its cell knows it. Leave out \
         --name, or let the node leave and join anew"
    )]
    OtherName { dir: String, has: String, wanted: String },
    #[error("`{0}` cannot be a node's name: a letter, then letters, digits or '-', at most 63 (--name)")]
    Name(String),
    #[error("`{0}` cannot be a cell's name: a letter, then letters, digits or '-', at most 63 (--cell)")]
    CellName(String),
}

/// `DIR/identity.json`, readable by root alone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub version: u32,
    pub node: NodeId,
    /// Unique in the cell.
    pub name: String,
    /// The node's private key, PKCS#8 PEM. The id is the first 64 bits of the public key's SHA-256.
    pub key: String,
    pub cell: CellId,
    pub cell_name: String,
    /// The newest certificate of this node, PEM. Identities of the first release had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// The certificate of the cell's authority, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// Of a node that joined: the activation in force when the ledger admitted it (PROTOCOL 8).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admitted: Option<Activation>,
    /// Of a node that joined: where members were then, for the first start and whenever no newer address is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<SocketAddr>,
}

/// Without the key: what is passed around gets into logs.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Identity");
        shown.field("node", &self.node).field("name", &self.name).field("cell", &self.cell);
        shown
            .field("cell_name", &self.cell_name)
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

const IDENTITY: &str = "identity.json";
/// `AuthorityKey`, readable by root alone. Only on voters, and never in the ledger's copies.
const AUTHORITY: &str = "authority.json";
/// The key of a node that has begun to join: if it has to begin again, the cell takes it for the same one.
const JOINING: &str = "joining.json";

#[derive(Serialize, Deserialize)]
struct Joining {
    version: u32,
    /// PKCS#8 PEM.
    key: String,
}

impl Identity {
    /// The one in `dir`; none if the node has yet to found a cell, or to join one.
    pub fn read(dir: &DataDir) -> Result<Option<Identity>, IdentityError> {
        Ok(read_json(&dir.join(IDENTITY), "an identity")?)
    }

    /// The one in `dir`, or a new node in a new cell. Whoever holds the authority has a good certificate afterwards.
    pub fn open(dir: &DataDir, name: Option<&str>, cell: Option<&str>) -> Result<Identity, IdentityError> {
        Identity::open_at(dir, name, cell, SystemTime::now())
    }

    fn open_at(
        dir: &DataDir,
        name: Option<&str>,
        cell: Option<&str>,
        now: SystemTime,
    ) -> Result<Identity, IdentityError> {
        let was = Identity::read(dir)?;
        let mut is = match &was {
            Some(found) => found.clone(),
            None => Identity::make(dir, name, cell.unwrap_or("covey"))?,
        };
        if let Some(wanted) = cell
            && wanted != is.cell_name
        {
            let (dir, has) = (shown(dir.path()), is.cell_name);
            return Err(IdentityError::OtherCell { dir, has, wanted: wanted.to_string() });
        }
        if let Some(name) = name
            && valid_name(name)? != is.name
        {
            let (dir, has) = (shown(dir.path()), is.name);
            return Err(IdentityError::OtherName { dir, has, wanted: name.to_string() });
        }
        match is.authority(dir)? {
            Some(authority) if is.wants_renewal(dir, now)? => is.issue(&authority, now)?,
            None if is.certificate.is_none() => {
                return Err(IdentityError::NoCertificate { dir: shown(dir.path()) });
            }
            _ => {}
        }
        is.credentials_in(dir)?;
        if was.as_ref() != Some(&is) {
            is.write(dir.path())?;
        }
        Ok(is)
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
        let key = Key::generate().map_err(IdentityError::Make)?;
        // A start that was cut short may have left an authority that no identity names yet: it is as good as a new one.
        let held = match read_json::<AuthorityKey>(&dir.join(AUTHORITY), "an authority")? {
            Some(found) => found,
            None => {
                let made = AuthorityKey::found(&cell_name).map_err(IdentityError::Make)?;
                write_json(&dir.join(AUTHORITY), &made, 0o600)?;
                made
            }
        };
        let authority = open_authority(dir, &held, &cell_name)?;
        Ok(Identity {
            version: 1,
            node: key.node(),
            name,
            key: key.pem(),
            cell: authority.cell().clone(),
            cell_name,
            certificate: None,
            authority: Some(authority.certificate().to_string()),
            admitted: None,
            members: Vec::new(),
        })
    }

    /// What the node shows to others.
    pub fn credentials(&self) -> Result<Credentials, TlsError> {
        let (certificate, authority) = (self.certificate.as_deref(), self.authority.as_deref());
        Credentials::new(&self.key, certificate.unwrap_or_default(), authority.unwrap_or_default())
    }

    /// The cell's authority, if this node holds it.
    pub fn authority(&self, dir: &DataDir) -> Result<Option<Authority>, IdentityError> {
        let Some(held) = read_json::<AuthorityKey>(&dir.join(AUTHORITY), "an authority")? else {
            return Ok(None);
        };
        let authority = open_authority(dir, &held, &self.cell_name)?;
        if *authority.cell() != self.cell {
            let source = TlsError::OtherAuthority;
            return Err(IdentityError::Damaged { dir: shown(dir.path()), file: AUTHORITY, source });
        }
        Ok(Some(authority))
    }

    /// The key with which the node in `dir` joins a cell, made at the first try and kept until one succeeds.
    pub fn joining_key(dir: &DataDir) -> Result<Key, IdentityError> {
        let path = dir.join(JOINING);
        if let Some(begun) = read_json::<Joining>(&path, "a key")? {
            let damaged = |source| IdentityError::Damaged { dir: shown(dir.path()), file: JOINING, source };
            return Key::from_pem(&begun.key).map_err(damaged);
        }
        let key = Key::generate().map_err(IdentityError::Make)?;
        write_json(&path, &Joining { version: 1, key: key.pem() }, 0o600)?;
        Ok(key)
    }

    /// Becomes the node that a cell let in. From here on the directory has a cell.
    pub fn joined(
        dir: &DataDir,
        key: &Key,
        name: &str,
        cell: &CellId,
        new: NewNode,
    ) -> Result<Identity, IdentityError> {
        let made = Identity {
            version: 1,
            node: key.node(),
            name: name.to_string(),
            key: key.pem(),
            cell: cell.clone(),
            cell_name: new.cell,
            certificate: Some(new.certificate),
            authority: Some(new.authority),
            admitted: Some(new.promise),
            members: new.members,
        };
        let credentials = made.credentials().map_err(IdentityError::Make)?;
        if credentials.cell != *cell {
            return Err(IdentityError::OtherAuthority);
        }
        // One that is left of an earlier founding would be taken for this cell's.
        made.authority(dir)?;
        made.write(dir.path())?;
        remove(&dir.join(JOINING))?;
        Ok(made)
    }

    fn wants_renewal(&self, dir: &DataDir, now: SystemTime) -> Result<bool, IdentityError> {
        if self.certificate.is_none() {
            return Ok(true);
        }
        let damaged = |source| IdentityError::Damaged { dir: shown(dir.path()), file: IDENTITY, source };
        let credentials = self.credentials().map_err(damaged)?;
        let (from, _) = credentials.validity().map_err(damaged)?;
        // Made by a clock that was far ahead: nobody would accept it.
        Ok(now < from || now >= credentials.renew_at().map_err(damaged)?)
    }

    fn issue(&mut self, authority: &Authority, now: SystemTime) -> Result<(), IdentityError> {
        let key = Key::from_pem(&self.key).map_err(IdentityError::Make)?;
        let certificate = authority.issue(key.public(), &self.name, now).map_err(IdentityError::Make)?;
        self.certificate = Some(certificate);
        self.authority = Some(authority.certificate().to_string());
        Ok(())
    }

    fn credentials_in(&self, dir: &DataDir) -> Result<Credentials, IdentityError> {
        self.credentials().map_err(|source| IdentityError::Damaged {
            dir: shown(dir.path()),
            file: IDENTITY,
            source,
        })
    }

    fn write(&self, dir: &Path) -> Result<(), IdentityError> {
        Ok(write_json(&dir.join(IDENTITY), self, 0o600)?)
    }
}

fn open_authority(dir: &DataDir, held: &AuthorityKey, cell_name: &str) -> Result<Authority, IdentityError> {
    held.open(cell_name).map_err(|source| IdentityError::Damaged {
        dir: shown(dir.path()),
        file: AUTHORITY,
        source,
    })
}

fn shown(dir: &Path) -> String {
    dir.display().to_string()
}

/// As the ledger will want it.
pub(crate) fn valid_name(name: &str) -> Result<String, IdentityError> {
    if is_node(name) { Ok(name.to_string()) } else { Err(IdentityError::Name(name.to_string())) }
}

/// The host's name as far as it can be a node's.
pub(crate) fn host_name() -> String {
    let host = nix::unistd::gethostname().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let first = host.split('.').next().unwrap_or_default();
    valid_name(first).unwrap_or_else(|_| "node".to_string())
}

#[cfg(test)]
mod tests;
