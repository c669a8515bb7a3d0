//! Who is at the other end of a mesh connection, as its certificate says.
//!
//! A daemon's certificate carries the subject alternative name `tradewind://<cluster>/<node>`; that URI is the identity,
//! and host names play no part in it. A certificate without such a URI is a client's. Which authority must have signed
//! which identity is `verify`'s business; what an identity may do is decided above this crate.

use std::fmt;

use rustls::pki_types::CertificateDer;

/// The scheme and separator that every daemon identity begins with.
const SCHEME: &str = "tradewind://";

/// The longest cluster name, in bytes.
pub const MAX_CLUSTER_NAME: usize = 64;

/// The owner of a verified certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// A daemon of this or another cluster.
    Daemon {
        /// The cluster's name.
        cluster: String,
        /// The daemon's number within it.
        node: i32,
    },
    /// Anyone else whose certificate our own authority signed.
    Client {
        /// The common name of the certificate's subject, or a hexadecimal rendering of the subject if it has none.
        subject: String,
    },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daemon { cluster, node } => write!(f, "{cluster}/{node}"),
            Self::Client { subject } => write!(f, "client {subject}"),
        }
    }
}

/// Whom a dialler means to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    /// The cluster's name.
    pub cluster: String,
    /// The daemon within it; `None` accepts any.
    pub node: Option<i32>,
}

impl Expect {
    /// Whether `peer` is who was meant.
    pub fn admits(&self, peer: &Peer) -> bool {
        match peer {
            Peer::Daemon { cluster, node } => {
                *cluster == self.cluster && self.node.is_none_or(|expected| expected == *node)
            }
            Peer::Client { .. } => false,
        }
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node {
            Some(node) => write!(f, "{}/{node}", self.cluster),
            None => write!(f, "any daemon of {}", self.cluster),
        }
    }
}

/// Why a certificate names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The certificate itself cannot be read.
    #[error("the certificate cannot be parsed: {0}")]
    Malformed(String),
    /// A URI with our scheme that is not of the form `tradewind://<cluster>/<node>`.
    #[error("`{0}` is not of the form tradewind://<cluster>/<node>")]
    BadUri(String),
    /// More than one identity in one certificate.
    #[error("the certificate carries more than one tradewind:// name")]
    Ambiguous,
}

/// Whether `name` can be a cluster's name: 1 to [`MAX_CLUSTER_NAME`] letters, digits, dots, dashes or underscores.
pub fn is_cluster_name(name: &str) -> bool {
    (1..=MAX_CLUSTER_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

/// The URI that stands for a daemon in its certificate.
pub(crate) fn uri(cluster: &str, node: i32) -> String {
    format!("{SCHEME}{cluster}/{node}")
}

/// Reads the identity out of a certificate. Says nothing about whether the certificate can be trusted.
pub(crate) fn peer_of(cert: &CertificateDer<'_>) -> Result<Peer, IdentityError> {
    let parsed =
        webpki::EndEntityCert::try_from(cert).map_err(|e| IdentityError::Malformed(e.to_string()))?;
    let mut uris = parsed.valid_uri_names().filter(|name| name.starts_with(SCHEME));
    match (uris.next(), uris.next()) {
        (Some(name), None) => parse_uri(name),
        (Some(_), Some(_)) => Err(IdentityError::Ambiguous),
        (None, _) => Ok(Peer::Client {
            subject: subject_text(parsed.subject()),
        }),
    }
}

fn parse_uri(text: &str) -> Result<Peer, IdentityError> {
    let bad = || IdentityError::BadUri(text.chars().take(200).collect());
    let (cluster, node) = text
        .strip_prefix(SCHEME)
        .and_then(|rest| rest.split_once('/'))
        .ok_or_else(bad)?;
    if !is_cluster_name(cluster) || node.is_empty() || !node.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    let node = node.parse().map_err(|_| bad())?;
    Ok(Peer::Daemon {
        cluster: cluster.to_owned(),
        node,
    })
}

/// The common name in a DER-encoded distinguished name, found by its object identifier (2.5.4.3) and the short-form
/// length that any common name of at most 127 bytes has.
fn subject_text(subject: &[u8]) -> String {
    const COMMON_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x03];
    let common_name = subject
        .windows(COMMON_NAME.len())
        .position(|window| window == COMMON_NAME)
        .and_then(|at| subject.get(at + COMMON_NAME.len()..))
        .and_then(|rest| match rest {
            [_tag, length @ 0..=127, text @ ..] => text.get(..usize::from(*length)),
            _ => None,
        })
        .and_then(|text| std::str::from_utf8(text).ok());
    match common_name {
        Some(name) => name.to_owned(),
        None => subject
            .iter()
            .take(64)
            .map(|byte| format!("{byte:02x}"))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_a_daemon_and_nothing_else() {
        assert_eq!(
            parse_uri("tradewind://east-1/7"),
            Ok(Peer::Daemon {
                cluster: "east-1".into(),
                node: 7
            })
        );
        for text in [
            "tradewind://east",
            "tradewind:///1",
            "tradewind://east/",
            "tradewind://east/-1",
            "tradewind://east/+1",
            "tradewind://east/1/2",
            "tradewind://east/99999999999",
            "tradewind://ea st/1",
            "tradewind://east%2f/1",
        ] {
            assert!(parse_uri(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_expectation_admits_only_its_own() {
        let daemon = |cluster: &str, node| Peer::Daemon {
            cluster: cluster.into(),
            node,
        };
        let any = Expect {
            cluster: "east".into(),
            node: None,
        };
        let one = Expect {
            cluster: "east".into(),
            node: Some(1),
        };
        assert!(any.admits(&daemon("east", 2)) && one.admits(&daemon("east", 1)));
        assert!(!any.admits(&daemon("west", 2)) && !one.admits(&daemon("east", 2)));
        assert!(!any.admits(&Peer::Client {
            subject: "east".into()
        }));
    }

    #[test]
    fn a_subject_reads_as_its_common_name() {
        let with_name = [
            0x31, 0x0c, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x03, b'b', b'o', b'b',
        ];
        assert_eq!(subject_text(&with_name), "bob");
        assert_eq!(subject_text(&[0x30, 0x00]), "3000");
        // A length that runs past the end is not followed.
        assert_eq!(
            subject_text(&[0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x7f, b'b']),
            "06035504030c7f62"
        );
    }
}
