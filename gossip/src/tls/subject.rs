//! Whom a certificate is about: a node, `NODEID.CELL.covey` and `NAME.name.CELL.covey`; or a principal,
//! `NAME.principal.CELL.covey`. CELL is the first half of the cell's id (a DNS label holds 63 characters; the whole id is in
//! the authority's key). Names are DNS labels, so none can pass for another's ending.

use std::fmt;

use placement::{
    ids::{CellId, NodeId, Principal},
    job::name::is_label,
};
use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// A member, by its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub node: NodeId,
    pub name: String,
}

/// Whoever has a certificate of the cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    Node(Subject),
    /// A user, an admin or a machine that acts for one.
    Principal(Principal),
}

/// A certificate that does not say which member of this cell it is for.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSubject {
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    #[error("the certificate's key is not on P-256")]
    Key,
    #[error("the certificate is not for a node of the cell {0}")]
    OtherCell(String),
    #[error("the certificate is for no one of the cell {0}")]
    Nobody(String),
    #[error("`{0}` cannot be the name of a principal")]
    Name(String),
    #[error("the certificate is for node {0}, but its key is that of {1}")]
    OtherKey(NodeId, NodeId),
    #[error("the certificate is for node {found}, not for {wanted}")]
    OtherNode { found: NodeId, wanted: String },
    #[error(
        "the authority is {found}, not {wanted} as the token says: the address or the token is of another cell"
    )]
    OtherAuthority { found: String, wanted: String },
    #[error("the node did not show its cell's authority")]
    NoAuthority,
}

/// rustls shows people what others' errors are for programmers.
impl fmt::Debug for BadSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Who {
    /// What `certificate` says. Whether the authority says it too is not looked at here.
    pub fn read(certificate: &CertificateDer<'_>, cell: &CellId) -> Result<Who, BadSubject> {
        let parsed =
            EndEntityCert::try_from(certificate).map_err(|e| BadSubject::Unreadable(e.to_string()))?;
        let by_principal = principal_suffix(cell);
        let named = parsed.valid_dns_names().find_map(|dns| dns.strip_suffix(&by_principal));
        match named {
            Some(name) if is_label(name) => Ok(Who::Principal(Principal(name.to_string()))),
            Some(name) => Err(BadSubject::Name(name.to_string())),
            None => Subject::read(certificate, cell).map(Who::Node).map_err(|bad| match bad {
                BadSubject::OtherCell(cell) => BadSubject::Nobody(cell),
                other => other,
            }),
        }
    }
}

/// What a principal's certificate says.
pub(super) fn principal_name(principal: &Principal, cell: &CellId) -> Result<String, BadSubject> {
    match is_label(&principal.0) {
        true => Ok(format!("{}{}", principal.0, principal_suffix(cell))),
        false => Err(BadSubject::Name(principal.0.clone())),
    }
}

fn principal_suffix(cell: &CellId) -> String {
    format!(".principal.{}", suffix(cell))
}

impl Subject {
    /// What `certificate` says. Whether the authority says it too is not looked at here.
    pub fn read(certificate: &CertificateDer<'_>, cell: &CellId) -> Result<Subject, BadSubject> {
        let parsed =
            EndEntityCert::try_from(certificate).map_err(|e| BadSubject::Unreadable(e.to_string()))?;
        let (by_id, by_name) = (format!(".{}", suffix(cell)), format!(".name.{}", suffix(cell)));
        let (mut node, mut name) = (None, None);
        for dns in parsed.valid_dns_names() {
            if let Some(label) = dns.strip_suffix(&by_name) {
                name = Some(label.to_string());
            } else if let Some(label) = dns.strip_suffix(&by_id) {
                node = label.parse::<NodeId>().ok();
            }
        }
        let (Some(node), Some(name)) = (node, name) else {
            return Err(BadSubject::OtherCell(cell.0.clone()));
        };
        let owner = node_of(&public_key(certificate)?);
        if owner != node {
            return Err(BadSubject::OtherKey(node, owner));
        }
        Ok(Subject { node, name })
    }

    /// By which this node, and no other, is connected to.
    pub fn server_name(node: NodeId, cell: &CellId) -> String {
        format!("{node}.{}", suffix(cell))
    }

    pub(super) fn dns_names(&self, cell: &CellId) -> Vec<String> {
        vec![Subject::server_name(self.node, cell), format!("{}.name.{}", self.name, suffix(cell))]
    }

    /// Is it the one that a client wanted by that name?
    pub(super) fn answers_to(&self, server_name: &str, cell: &CellId) -> Result<(), BadSubject> {
        if server_name == any_name(cell) || server_name == Subject::server_name(self.node, cell) {
            return Ok(());
        }
        let wanted = server_name.split('.').next().unwrap_or_default().to_string();
        Err(BadSubject::OtherNode { found: self.node, wanted })
    }
}

pub(super) fn any_name(cell: &CellId) -> String {
    format!("any.{}", suffix(cell))
}

fn suffix(cell: &CellId) -> String {
    format!("{}.covey", cell.0.get(..32).unwrap_or(&cell.0))
}

/// The first 64 bits of the key's SHA-256.
pub(super) fn node_of(public_key: &[u8]) -> NodeId {
    NodeId(digest(&SHA256, public_key).as_ref().iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte)))
}

/// The id of the cell whose authority has this key.
pub(super) fn fingerprint(public_key: &[u8]) -> CellId {
    CellId(digest(&SHA256, public_key).as_ref().iter().map(|b| format!("{b:02x}")).collect())
}

/// The id of the cell whose authority this is.
pub(super) fn cell_of(authority: &CertificateDer<'_>) -> Result<CellId, BadSubject> {
    public_key(authority).map(|key| fingerprint(&key))
}

/// The point itself, without the 26 bytes that say what kind of key it is.
fn public_key(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, BadSubject> {
    // SEQUENCE { SEQUENCE { ecPublicKey, prime256v1 }, BIT STRING of 65 bytes } (RFC 5480)
    const P256: [u8; 26] = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
        0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    let parsed = EndEntityCert::try_from(certificate).map_err(|e| BadSubject::Unreadable(e.to_string()))?;
    parsed.subject_public_key_info().strip_prefix(&P256).map(<[u8]>::to_vec).ok_or(BadSubject::Key)
}
