//! A development authority and daemon identities, as PEM files.
//!
//! `init_ca` writes `ca.pem` and `ca.key`; `issue` writes `ca.pem`, `node.pem` and `node.key` for one daemon. Existing
//! files are never overwritten. Certificates do not expire: whoever wants rotation has an authority of their own.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::identity::{MAX_CLUSTER_NAME, is_cluster_name, uri};

/// Why certificates could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertError {
    /// A file that would be written is there already.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The name cannot be a cluster's.
    #[error(
        "`{0}` cannot be a cluster's name: 1 to {MAX_CLUSTER_NAME} letters, digits, dots, dashes or underscores"
    )]
    ClusterName(String),
    /// A node id must not be negative.
    #[error("{0} cannot be a node id: it is negative")]
    Node(i32),
    /// A host is neither a name nor an address.
    #[error("`{0}` is neither a host name nor an IP address")]
    Host(String),
    /// The authority's files hold something else, or signing failed.
    #[error("{}: {problem}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// Writes a new authority into `out_dir`: `ca.pem` and, readable by its owner alone, `ca.key`.
pub fn init_ca(out_dir: &Path) -> Result<(), CertError> {
    let (cert_path, key_path) = (out_dir.join("ca.pem"), out_dir.join("ca.key"));
    refuse_existing(&[&cert_path, &key_path])?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "Tradewind development authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let failed = |e: rcgen::Error| authority(&cert_path, e);
    let key = KeyPair::generate().map_err(failed)?;
    let cert = params.self_signed(&key).map_err(failed)?;
    create_dir(out_dir)?;
    write_new(&key_path, &key.serialize_pem(), 0o600)?;
    write_new(&cert_path, &cert.pem(), 0o644)
}

/// Writes an identity for daemon `node` of `cluster` into `out_dir`, signed by the authority in `ca_dir`: `node.pem`,
/// `node.key` (readable by its owner alone) and a copy of `ca.pem`, which may be there already if it is the same.
pub fn issue(
    ca_dir: &Path,
    cluster: &str,
    node: i32,
    hosts: &[String],
    out_dir: &Path,
) -> Result<(), CertError> {
    if !is_cluster_name(cluster) {
        return Err(CertError::ClusterName(cluster.to_owned()));
    }
    if node < 0 {
        return Err(CertError::Node(node));
    }
    let (ca_path, ca_key_path) = (ca_dir.join("ca.pem"), ca_dir.join("ca.key"));
    let (cert_path, key_path) = (out_dir.join("node.pem"), out_dir.join("node.key"));
    let ca_pem = read(&ca_path)?;
    let ca_copy = out_dir.join("ca.pem");
    refuse_existing(&[&cert_path, &key_path])?;
    let ca_is_there = match std::fs::read_to_string(&ca_copy) {
        Ok(present) if present == ca_pem => true,
        Ok(_) => return Err(CertError::Exists(ca_copy)),
        Err(_) => false,
    };

    let ca_key = KeyPair::from_pem(&read(&ca_key_path)?).map_err(|e| authority(&ca_key_path, e))?;
    let issuer = Issuer::from_ca_cert_pem(&ca_pem, ca_key).map_err(|e| authority(&ca_path, e))?;
    let key = KeyPair::generate().map_err(|e| authority(&key_path, e))?;
    let cert = node_params(cluster, node, hosts)?
        .signed_by(&key, &issuer)
        .map_err(|e| authority(&ca_path, e))?;
    create_dir(out_dir)?;
    write_new(&key_path, &key.serialize_pem(), 0o600)?;
    write_new(&cert_path, &cert.pem(), 0o644)?;
    if ca_is_there {
        Ok(())
    } else {
        write_new(&ca_copy, &ca_pem, 0o644)
    }
}

fn node_params(cluster: &str, node: i32, hosts: &[String]) -> Result<CertificateParams, CertError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{cluster}-{node}"));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    let identity = uri(cluster, node);
    params.subject_alt_names.push(SanType::URI(
        identity
            .clone()
            .try_into()
            .map_err(|_| CertError::Host(identity))?,
    ));
    for host in hosts {
        params.subject_alt_names.push(match host.parse() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) if is_host_name(host) => SanType::DnsName(
                host.clone()
                    .try_into()
                    .map_err(|_| CertError::Host(host.clone()))?,
            ),
            Err(_) => return Err(CertError::Host(host.clone())),
        });
    }
    Ok(params)
}

fn is_host_name(host: &str) -> bool {
    (1..=253).contains(&host.len())
        && host.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        })
}

fn refuse_existing(paths: &[&Path]) -> Result<(), CertError> {
    match paths.iter().find(|path| path.exists()) {
        Some(path) => Err(CertError::Exists(path.to_path_buf())),
        None => Ok(()),
    }
}

fn read(path: &Path) -> Result<String, CertError> {
    std::fs::read_to_string(path).map_err(|source| CertError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })
}

fn create_dir(path: &Path) -> Result<(), CertError> {
    std::fs::create_dir_all(path).map_err(|source| CertError::Io {
        action: "write",
        path: path.to_owned(),
        source,
    })
}

/// `create_new` closes the gap between the check and the write: a file that appears meanwhile is not overwritten.
fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), CertError> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
    written.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => CertError::Exists(path.to_owned()),
        _ => CertError::Io {
            action: "write",
            path: path.to_owned(),
            source,
        },
    })
}

fn authority(path: &Path, error: rcgen::Error) -> CertError {
    CertError::Authority {
        path: path.to_owned(),
        problem: error.to_string(),
    }
}
