//! The certificate checks of the mesh, for both directions: the chain first, then our own URI.
//!
//! A certificate that names cluster X must chain to X's pinned authorities if there are any, and to our own authority
//! otherwise; a client's always to our own. So no other cluster's authority can vouch for this cluster's daemons.
//! Whether the peer is the one that was dialled is checked by `mesh` after the handshake, where the answer can name both.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use webpki::KeyUsage;

use crate::identity::{Peer, peer_of};

/// Who may vouch for whom.
#[derive(Debug)]
pub(crate) struct Authorities {
    /// Our own authority: for clients and for every cluster that has none of its own here.
    pub(crate) own: Vec<TrustAnchor<'static>>,
    /// Pinned authorities by cluster name.
    pub(crate) pinned: BTreeMap<String, Vec<TrustAnchor<'static>>>,
}

impl Authorities {
    fn of(&self, peer: &Peer) -> &[TrustAnchor<'static>] {
        match peer {
            Peer::Daemon { cluster, .. } => self.pinned.get(cluster).unwrap_or(&self.own),
            Peer::Client { .. } => &self.own,
        }
    }
}

/// Verifies peers in both directions.
pub(crate) struct MeshVerifier {
    authorities: Authorities,
    algorithms: WebPkiSupportedAlgorithms,
}

impl MeshVerifier {
    pub(crate) fn new(authorities: Authorities, provider: &CryptoProvider) -> Arc<Self> {
        Arc::new(Self {
            authorities,
            algorithms: provider.signature_verification_algorithms,
        })
    }

    /// Checks the chain of `cert` and returns whom it names.
    pub(crate) fn verify(
        &self,
        cert: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<Peer, Error> {
        let peer = peer_of(cert)
            .map_err(|e| Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(e)))))?;
        let parsed = webpki::EndEntityCert::try_from(cert).map_err(chain_error)?;
        parsed
            .verify_for_usage(
                self.algorithms.all,
                self.authorities.of(&peer),
                intermediates,
                now,
                usage,
                None,
                None,
            )
            .map_err(chain_error)?;
        Ok(peer)
    }
}

impl fmt::Debug for MeshVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshVerifier")
            .field("pinned", &self.authorities.pinned.keys())
            .finish_non_exhaustive()
    }
}

impl ServerCertVerifier for MeshVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, now, KeyUsage::server_auth())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for MeshVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // No hints: a daemon has one identity and presents it to everyone.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, now, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The alerts that operators know for the common cases; anything else keeps webpki's own words.
fn chain_error(error: webpki::Error) -> Error {
    Error::InvalidCertificate(match error {
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
        webpki::Error::CertExpired { .. } => CertificateError::Expired,
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use rustls::pki_types::pem::PemObject;
    use webpki::anchor_from_trusted_cert;

    use super::*;
    use crate::certs::{init_ca, issue};

    fn read(path: &Path) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(path).unwrap()
    }

    #[test]
    fn an_expired_certificate_is_refused_in_those_words() {
        let dir = tempfile::tempdir().unwrap();
        let (ca, out) = (dir.path().join("ca"), dir.path().join("node"));
        init_ca(&ca).unwrap();
        issue(&ca, "east", 1, &["127.0.0.1".into()], &out).unwrap();
        let (authority, cert) = (read(&ca.join("ca.pem")), read(&out.join("node.pem")));
        let authorities = Authorities {
            own: vec![anchor_from_trusted_cert(&authority).unwrap().to_owned()],
            pinned: BTreeMap::new(),
        };
        let verifier = MeshVerifier::new(authorities, &rustls::crypto::ring::default_provider());
        let at = |seconds| {
            let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            verifier.verify(&cert, &[], now, KeyUsage::server_auth())
        };
        assert!(at(1_800_000_000).is_ok());
        // Ours end with the year 4095.
        let refused = at(70_000_000_000).unwrap_err();
        assert_eq!(refused, Error::InvalidCertificate(CertificateError::Expired));
        let refused = at(1).unwrap_err();
        assert_eq!(refused, Error::InvalidCertificate(CertificateError::NotValidYet));
    }
}
