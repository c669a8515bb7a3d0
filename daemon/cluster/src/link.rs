//! Frames between two daemons, as the metadata half needs them: a sink, a source, and who opens them.
//!
//! The mesh implements these over QUIC; tests also over channels, so that links can be cut. A link is past its hello
//! and welcome when it comes here: both sides know who the other is.

use async_trait::async_trait;
use bytes::Bytes;
use tradewind_wire::ids::NodeId;
use tradewind_wire::mesh::Conversation;

/// Why a link could not be opened, or is over. For the log; every error means: open another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("link to node {node}: {reason}")]
pub struct LinkError {
    /// The other side.
    pub node: NodeId,
    /// What happened.
    pub reason: String,
}

/// Sends frames.
#[async_trait]
pub trait FrameSink: Send {
    /// Sends one frame that consists of `parts` back to back. Not cancel-safe.
    async fn send(&mut self, parts: &[Bytes]) -> Result<(), LinkError>;
}

/// Receives frames.
#[async_trait]
pub trait FrameSource: Send {
    /// The next frame; `None` at a clean end. Not cancel-safe.
    async fn recv(&mut self) -> Result<Option<Bytes>, LinkError>;
}

/// One conversation with another daemon.
pub struct Link {
    /// The other side's data directory.
    pub storage_id: [u8; 16],
    /// To it.
    pub tx: Box<dyn FrameSink>,
    /// From it.
    pub rx: Box<dyn FrameSource>,
}

/// Opens conversations with other daemons of the cluster.
#[async_trait]
pub trait Peers: Send + Sync {
    /// Opens `conversation` with `node` at `addr` (`host:port`); the other side refuses it if `expect_storage` is not
    /// its data directory. Connections are pooled below; this may be called often. The caller sets a deadline.
    async fn open(
        &self,
        node: NodeId,
        addr: &str,
        conversation: Conversation,
        expect_storage: Option<[u8; 16]>,
    ) -> Result<Link, LinkError>;
}
