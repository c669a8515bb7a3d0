//! One mesh connection: a verified peer, and streams to and from it.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use quinn::{Connection, ConnectionError, TransportErrorCode, VarInt};

use crate::frame::{FrameRx, FrameTx};
use crate::identity::Peer;
use crate::options::TransportOptions;

/// What an application close carries when the reason is in its text.
const CLOSED: VarInt = VarInt::from_u32(0);

/// The longest reason that is sent with a close, in bytes.
const MAX_REASON: usize = 200;

/// Why a connection is no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnLost {
    /// Closed at this end.
    #[error("connection closed here")]
    ClosedHere,
    /// Closed by the peer, with its words.
    #[error("connection closed by the peer: {0}")]
    ClosedByPeer(String),
    /// The peer has restarted and does not know the connection.
    #[error("the peer has restarted")]
    Restarted,
    /// Nothing was heard for the idle timeout.
    #[error("the peer has not answered for the idle timeout")]
    TimedOut,
    /// The peer's certificate or ours was refused.
    #[error("certificate refused: {0}")]
    Certificate(String),
    /// Anything else that QUIC can fail of.
    #[error("connection failed: {0}")]
    Failed(String),
}

impl ConnLost {
    pub(crate) fn from_quinn(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::LocallyClosed => Self::ClosedHere,
            ConnectionError::Reset => Self::Restarted,
            ConnectionError::TimedOut => Self::TimedOut,
            ConnectionError::ApplicationClosed(close) => {
                Self::ClosedByPeer(String::from_utf8_lossy(&close.reason).into_owned())
            }
            ConnectionError::ConnectionClosed(close) if is_crypto(close.error_code) => Self::Certificate(
                format!("the peer says: {}", String::from_utf8_lossy(&close.reason)),
            ),
            ConnectionError::TransportError(error) if is_crypto(error.code) => {
                Self::Certificate(error.reason.clone())
            }
            other => Self::Failed(other.to_string()),
        }
    }
}

/// A connection to a verified peer. Clones share it; it closes when told to, or when the last clone and the last stream
/// are gone.
#[derive(Clone)]
pub struct MeshConn {
    connection: Connection,
    peer: Peer,
}

impl MeshConn {
    pub(crate) fn new(connection: Connection, peer: Peer) -> Self {
        Self { connection, peer }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The address of the other end.
    pub fn remote_addr(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// Opens a stream. The peer learns of it with the first frame. Waits while the peer's stream limit is reached.
    pub async fn open(&self) -> Result<(FrameTx, FrameRx), ConnLost> {
        let (tx, rx) = self
            .connection
            .open_bi()
            .await
            .map_err(|e| ConnLost::from_quinn(&e))?;
        Ok((FrameTx::new(tx), FrameRx::new(rx)))
    }

    /// The next stream that the peer opens; `None` when either end has closed the connection on purpose. Cancel-safe.
    pub async fn accept(&self) -> Result<Option<(FrameTx, FrameRx)>, ConnLost> {
        match self.connection.accept_bi().await {
            Ok((tx, rx)) => Ok(Some((FrameTx::new(tx), FrameRx::new(rx)))),
            Err(ConnectionError::LocallyClosed | ConnectionError::ApplicationClosed(_)) => Ok(None),
            Err(error) => Err(ConnLost::from_quinn(&error)),
        }
    }

    /// The present estimate of the round-trip time.
    pub fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    /// Lets the peer have as much under way as a line of the present round-trip time needs, within the bounds of
    /// [`TransportOptions::line_window`]. For links dialled with [`TransportOptions::line`]; may be repeated as the line
    /// changes.
    pub fn fit_to_line(&self) {
        let window = TransportOptions::line_window(self.connection.rtt());
        self.connection.set_receive_window(VarInt::from_u32(window));
    }

    /// Bytes sent and received so far, as UDP payload.
    pub fn bytes(&self) -> (u64, u64) {
        let stats = self.connection.stats();
        (stats.udp_tx.bytes, stats.udp_rx.bytes)
    }

    /// A number that no other connection of this endpoint has while this one lives.
    pub fn stable_id(&self) -> usize {
        self.connection.stable_id()
    }

    /// Closes the connection at once; frames not yet delivered may be lost. The peer sees `reason`.
    pub fn close(&self, reason: &str) {
        let end = (0..=reason.len().min(MAX_REASON))
            .rev()
            .find(|at| reason.is_char_boundary(*at));
        self.connection
            .close(CLOSED, &reason.as_bytes()[..end.unwrap_or(0)]);
    }

    /// Whether the connection is gone, for whatever reason.
    pub fn is_closed(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    /// Waits until the connection is gone and says why.
    pub async fn closed(&self) -> ConnLost {
        ConnLost::from_quinn(&self.connection.closed().await)
    }
}

impl fmt::Debug for MeshConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshConn")
            .field("peer", &self.peer)
            .field("remote", &self.connection.remote_address())
            .field("id", &self.connection.stable_id())
            .finish()
    }
}

/// RFC 9001, 4.8: TLS alerts are the error codes 0x100 to 0x1ff.
fn is_crypto(code: TransportErrorCode) -> bool {
    (0x100..=0x1ff).contains(&u64::from(code))
}
