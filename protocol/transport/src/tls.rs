//! A daemon's TLS material: its own certificate and key, its authority, and the authorities pinned for other clusters.
//!
//! Everything is read and checked once, at start, so that a wrong file is a message that names it and not a failed
//! handshake hours later. The result is immutable and shared by every endpoint of the process.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::CertificateError;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor, UnixTime};
use webpki::KeyUsage;

use crate::identity::{IdentityError, Peer, is_cluster_name, peer_of};
use crate::verify::{Authorities, MeshVerifier};

/// The application protocol that both ends must agree on.
pub const ALPN: &[u8] = b"tradewind/1";

/// The most certificates that one PEM file may hold.
const MAX_CERTS_PER_FILE: usize = 100;

/// What is wrong with a TLS file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The file holds something else than it should.
    #[error("{}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The certificate does not chain to the authority beside it.
    #[error("{} is not signed by {}: {problem}", cert.display(), ca.display())]
    NotOurs {
        /// The certificate's file.
        cert: PathBuf,
        /// The authority's file.
        ca: PathBuf,
        /// The verifier's words.
        problem: String,
    },
    /// The key is not the certificate's.
    #[error("{} does not belong to {}: {problem}", key.display(), cert.display())]
    KeyMismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The TLS library's words.
        problem: String,
    },
    /// A pinned cluster's name cannot be a cluster's name.
    #[error("`{0}` cannot be a cluster's name")]
    ClusterName(String),
}

/// Loaded and checked TLS material.
pub struct MeshTls {
    cluster: String,
    node: i32,
    expires_seconds: i64,
    server: Arc<QuicServerConfig>,
    client: Arc<QuicClientConfig>,
}

impl MeshTls {
    /// Reads a daemon's files: `ca` (one or more authorities), `cert` (its certificate, then intermediates), `key`, and
    /// for each named cluster in `peer_cas` the authorities that alone may vouch for that cluster.
    pub fn load(
        ca: &Path,
        cert: &Path,
        key: &Path,
        peer_cas: &[(String, PathBuf)],
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = read_certs(cert)?;
        let (cluster, node) = daemon_identity(cert, &chain[0])?;
        let mut pinned = BTreeMap::new();
        for (name, path) in peer_cas {
            if !is_cluster_name(name) {
                return Err(TlsError::ClusterName(name.clone()));
            }
            pinned.insert(name.clone(), read_anchors(path)?);
        }
        let authorities = Authorities {
            own: read_anchors(ca)?,
            pinned,
        };
        let verifier = MeshVerifier::new(authorities, &provider);
        for usage in [KeyUsage::server_auth(), KeyUsage::client_auth()] {
            verifier
                .verify(&chain[0], &chain[1..], UnixTime::now(), usage)
                .map_err(|e| own_refused(&e, cert, ca))?;
        }
        let expires_seconds = first_expiry(cert, &chain)?;
        let key_der = PrivateKeyDer::from_pem_file(key).map_err(|e| pem_error(key, e))?;
        let mismatch = |e: rustls::Error| TlsError::KeyMismatch {
            cert: cert.to_owned(),
            key: key.to_owned(),
            problem: e.to_string(),
        };
        let server =
            server_config(&provider, &verifier, chain.clone(), key_der.clone_key()).map_err(mismatch)?;
        let client = client_config(&provider, &verifier, chain, key_der).map_err(mismatch)?;
        Ok(Self {
            cluster,
            node,
            expires_seconds,
            server,
            client,
        })
    }

    /// The cluster and node that this daemon's certificate names.
    pub fn identity(&self) -> (&str, i32) {
        (&self.cluster, self.node)
    }

    /// When the first of the certificates that it shows expires, in seconds since 1970.
    pub fn expires_seconds(&self) -> i64 {
        self.expires_seconds
    }

    pub(crate) fn server(&self) -> Arc<QuicServerConfig> {
        self.server.clone()
    }

    pub(crate) fn client(&self) -> Arc<QuicClientConfig> {
        self.client.clone()
    }
}

impl fmt::Debug for MeshTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshTls")
            .field("cluster", &self.cluster)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// Sessions are never resumed: each connection proves its certificate anew, against the authorities of today.
fn server_config(
    provider: &Arc<CryptoProvider>,
    verifier: &Arc<MeshVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<QuicServerConfig>, rustls::Error> {
    let mut config = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier.clone())
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    let config = QuicServerConfig::try_from(config).map_err(|e| rustls::Error::General(e.to_string()))?;
    Ok(Arc::new(config))
}

fn client_config(
    provider: &Arc<CryptoProvider>,
    verifier: &Arc<MeshVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<QuicClientConfig>, rustls::Error> {
    let mut config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    let config = QuicClientConfig::try_from(config).map_err(|e| rustls::Error::General(e.to_string()))?;
    Ok(Arc::new(config))
}

fn daemon_identity(path: &Path, cert: &CertificateDer<'_>) -> Result<(String, i32), TlsError> {
    let content = |problem: String| TlsError::Content {
        path: path.to_owned(),
        problem,
    };
    match peer_of(cert).map_err(|e: IdentityError| content(e.to_string()))? {
        Peer::Daemon { cluster, node } => Ok((cluster, node)),
        Peer::Client { .. } => Err(content(
            "the certificate carries no tradewind://<cluster>/<node> name".to_owned(),
        )),
    }
}

/// When the first of `chain` expires, in seconds since 1970.
fn first_expiry(path: &Path, chain: &[CertificateDer<'_>]) -> Result<i64, TlsError> {
    let mut first = i64::MAX;
    for der in chain {
        let (_, cert) = x509_parser::parse_x509_certificate(der).map_err(|e| TlsError::Content {
            path: path.to_owned(),
            problem: e.to_string(),
        })?;
        first = first.min(cert.validity().not_after.timestamp());
    }
    Ok(first)
}

/// At least one certificate, or an error.
fn read_certs(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certs = CertificateDer::pem_file_iter(path)
        .map_err(|e| pem_error(path, e))?
        .take(MAX_CERTS_PER_FILE)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| pem_error(path, e))?;
    if certs.is_empty() {
        return Err(TlsError::Content {
            path: path.to_owned(),
            problem: "holds no certificate".to_owned(),
        });
    }
    Ok(certs)
}

fn read_anchors(path: &Path) -> Result<Vec<TrustAnchor<'static>>, TlsError> {
    read_certs(path)?
        .iter()
        .map(|cert| {
            webpki::anchor_from_trusted_cert(cert)
                .map(|anchor| anchor.to_owned())
                .map_err(|e| TlsError::Content {
                    path: path.to_owned(),
                    problem: format!("not an authority's certificate: {e}"),
                })
        })
        .collect()
}

fn pem_error(path: &Path, error: rustls::pki_types::pem::Error) -> TlsError {
    use rustls::pki_types::pem::Error as Pem;
    let path = path.to_owned();
    match error {
        Pem::Io(source) => TlsError::Read { path, source },
        Pem::NoItemsFound => TlsError::Content {
            path,
            problem: "holds no PEM block of the expected kind".to_owned(),
        },
        other => TlsError::Content {
            path,
            problem: other.to_string(),
        },
    }
}

/// Why our own certificate is of no use. One that is of the wrong time is ours all the same.
fn own_refused(error: &rustls::Error, cert: &Path, ca: &Path) -> TlsError {
    let problem = match error {
        rustls::Error::InvalidCertificate(CertificateError::Expired) => {
            "the certificate has expired: issue a new one"
        }
        rustls::Error::InvalidCertificate(CertificateError::NotValidYet) => {
            "the certificate is not valid yet: look at this machine's clock"
        }
        other => {
            return TlsError::NotOurs {
                cert: cert.to_owned(),
                ca: ca.to_owned(),
                problem: other.to_string(),
            };
        }
    };
    TlsError::Content {
        path: cert.to_owned(),
        problem: problem.to_owned(),
    }
}
