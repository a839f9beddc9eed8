//! What rustls asks about a peer's certificate: is it of the authority, in its time, and of whom it should be?

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use placement::ids::CellId;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible,
    RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::{
    TlsError,
    subject::{self, BadSubject, Subject, Who},
};

fn roots(authority: &CertificateDer<'static>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone())?;
    Ok(roots)
}

fn refused(why: BadSubject) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
}

/// From when until when `certificate` is good: asked of those who check it, long before and long after.
pub(super) fn validity(
    certificate: &CertificateDer<'_>,
    authority: &CertificateDer<'static>,
) -> Result<(SystemTime, SystemTime), TlsError> {
    let tls = |source| TlsError::Tls { what: "the certificate", source };
    let parsed = ParsedCertificate::try_from(certificate).map_err(tls)?;
    let roots = roots(authority).map_err(tls)?;
    let algorithms = super::provider().signature_verification_algorithms;
    let at = |seconds| {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        match verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], now, algorithms.all) {
            Ok(()) => Ok(now),
            Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
                Ok(not_before)
            }
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
                Ok(not_after)
            }
            Err(other) => Err(tls(other)),
        }
    };
    // X.509 ends with the year 9999.
    let wall = |time: UnixTime| UNIX_EPOCH + Duration::from_secs(time.as_secs());
    Ok((wall(at(0)?), wall(at(253_402_300_800)?)))
}

/// A member's view of other members that it connects to.
#[derive(Debug)]
pub(super) struct Servers {
    roots: RootCertStore,
    cell: CellId,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Servers {
    pub(super) fn of(
        authority: &CertificateDer<'static>,
        cell: &CellId,
        provider: &CryptoProvider,
    ) -> Result<Servers, TlsError> {
        let roots = roots(authority).map_err(|source| TlsError::Tls { what: "the authority", source })?;
        Ok(Servers { roots, cell: cell.clone(), algorithms: provider.signature_verification_algorithms })
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, &[], now, self.algorithms.all)?;
        let subject = Subject::read(end_entity, &self.cell).map_err(refused)?;
        subject.answers_to(&server_name.to_str(), &self.cell).map_err(refused)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A stranger's view of the node that it joins through: all it knows is the authority's fingerprint.
#[derive(Debug)]
pub struct Pinned {
    cell: CellId,
    algorithms: WebPkiSupportedAlgorithms,
    /// QUIC keeps of it no more than a text.
    other: OnceLock<BadSubject>,
}

impl Pinned {
    /// Trusts the cell with this id.
    pub fn new(cell: CellId) -> Pinned {
        let algorithms = super::provider().signature_verification_algorithms;
        Pinned { cell, algorithms, other: OnceLock::new() }
    }

    /// If whoever answered is not of the cell, what it is.
    pub fn other(&self) -> Option<&BadSubject> {
        self.other.get()
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority =
            intermediates.last().ok_or_else(|| refused(BadSubject::NoAuthority))?.clone().into_owned();
        let found = subject::cell_of(&authority).map_err(refused)?;
        if found != self.cell {
            let other = BadSubject::OtherAuthority { found: found.0, wanted: self.cell.0.clone() };
            return Err(refused(self.other.get_or_init(|| other).clone()));
        }
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &roots(&authority)?,
            &[],
            now,
            self.algorithms.all,
        )?;
        Subject::read(end_entity, &self.cell).map_err(refused)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A member's view of who connects to it: a member, a principal, or a stranger without any certificate.
#[derive(Debug)]
pub(super) struct Clients {
    chain: Arc<dyn ClientCertVerifier>,
    cell: CellId,
}

impl Clients {
    pub(super) fn of(
        authority: &CertificateDer<'static>,
        cell: &CellId,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Clients, TlsError> {
        let roots = roots(authority).map_err(|source| TlsError::Tls { what: "the authority", source })?;
        let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map_err(|e| TlsError::Tls { what: "the authority", source: Error::General(e.to_string()) })?;
        Ok(Clients { chain, cell: cell.clone() })
    }
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // None: a node of another cell shows what it has, and is told what is wrong with it.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, &[], now)?;
        Who::read(end_entity, &self.cell).map_err(refused)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
