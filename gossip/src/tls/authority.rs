//! The cell's authority: says who is a member, for a while.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use placement::ids::{CellId, Principal};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};

use super::{
    PublicKey, TlsError,
    subject::{self, Subject},
};

/// Of a node's certificate. Any voter renews it long before.
pub const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// Of a principal's certificate. People log in again; the ledger is asked all the while whether they may.
pub const PRINCIPAL_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
/// Clocks differ: a certificate is good an hour before it was made, and a little for what two clocks round.
const BACKDATED: Duration = Duration::from_secs(3600 + 60);

/// The authority as it is stored, and handed to a node that becomes a voter.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityKey {
    pub version: u32,
    /// PKCS#8 PEM. Its public key's SHA-256 is the cell's id.
    pub key: String,
    /// Self-signed, PEM.
    pub certificate: String,
}

/// Without the key: what is passed around gets into logs.
impl fmt::Debug for AuthorityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorityKey").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl AuthorityKey {
    /// A new cell's.
    pub fn found(cell_name: &str) -> Result<AuthorityKey, TlsError> {
        let make = |source| TlsError::Make { what: "an authority", source };
        let key = KeyPair::generate().map_err(make)?;
        let certificate = params(cell_name).self_signed(&key).map_err(make)?.pem();
        Ok(AuthorityKey { version: 1, key: key.serialize_pem(), certificate })
    }

    /// Ready to issue. The cell's name is in the certificate.
    pub fn open(&self, cell_name: &str) -> Result<Authority, TlsError> {
        Authority::open(&self.key, &self.certificate, cell_name)
    }
}

/// Holds the authority's key. Only voters have one.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cell: CellId,
    certificate: String,
}

impl Authority {
    /// From its key and self-signed certificate (PEM), and the cell's name, which is in the certificate.
    pub fn open(key: &str, certificate: &str, cell_name: &str) -> Result<Authority, TlsError> {
        let what = "the authority's key";
        let key = KeyPair::from_pem(key).map_err(|source| TlsError::Make { what, source })?;
        let der = self::certificate(certificate, "the authority's certificate")?;
        let cell = subject::cell_of(&der)?;
        let parsed = webpki::EndEntityCert::try_from(&der).map_err(|_| TlsError::OtherAuthority)?;
        // What it issues names its issuer by these very bytes.
        let params = params(cell_name);
        let again = params.self_signed(&key).map_err(|source| TlsError::Make { what, source })?;
        let again = webpki::EndEntityCert::try_from(again.der()).map_err(|_| TlsError::OtherAuthority)?;
        if subject::fingerprint(key.public_key_raw()) != cell || again.subject() != parsed.subject() {
            return Err(TlsError::OtherAuthority);
        }
        Ok(Authority { issuer: Issuer::new(params, key), cell, certificate: certificate.to_string() })
    }

    /// Its own certificate, PEM: what members trust.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The cell's id.
    pub fn cell(&self) -> &CellId {
        &self.cell
    }

    /// A certificate (PEM) for the node that has this public key, from an hour before `now` until `LIFETIME` after it.
    /// The node's id follows from the key; whether the name is free is for the ledger to say.
    pub fn issue(&self, public_key: &PublicKey, name: &str, now: SystemTime) -> Result<String, TlsError> {
        let names = Subject { node: public_key.node(), name: name.to_string() }.dns_names(&self.cell);
        let uses = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(public_key, name, names, uses, now, LIFETIME)
    }

    /// A certificate (PEM) for whoever holds this key and logged in as `principal`; for `PRINCIPAL_LIFETIME`. What the
    /// principal may do is for the ledger to say, each time.
    pub fn issue_principal(
        &self,
        public_key: &PublicKey,
        principal: &Principal,
        now: SystemTime,
    ) -> Result<String, TlsError> {
        let name = subject::principal_name(principal, &self.cell)?;
        let uses = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(public_key, &principal.0, vec![name], uses, now, PRINCIPAL_LIFETIME)
    }

    fn sign(
        &self,
        public_key: &PublicKey,
        common_name: &str,
        names: Vec<String>,
        uses: Vec<ExtendedKeyUsagePurpose>,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<String, TlsError> {
        let make = |source| TlsError::Make { what: "a certificate", source };
        let mut params = CertificateParams::new(names).map_err(make)?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = uses;
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = epoch + now.saturating_sub(BACKDATED);
        params.not_after = epoch + now.saturating_add(lifetime);
        Ok(params.signed_by(&RawKey(public_key.bytes()), &self.issuer).map_err(make)?.pem())
    }
}

/// As the authority's own certificate was made.
fn params(cell_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("covey cell {cell_name}"));
    params
}

/// Reads PEM.
pub(super) fn certificate(pem: &str, what: &'static str) -> Result<CertificateDer<'static>, TlsError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|source| TlsError::Pem { what, source })
}

/// A public key whose private half is elsewhere.
struct RawKey<'a>(&'a [u8]);

impl PublicKeyData for RawKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}
