//! QUIC and TCP endpoints, identities and framing: the one place that opens sockets.
//!
//! It moves frames and says who sent them. What a frame means, who may send which, and what to do when a peer is gone
//! is decided above: here are no retries, no Kafka and no cluster.
//!
//! ```text
//! mesh (QUIC)   Mesh ── MeshConn ── FrameTx / FrameRx     identity from the certificate: Peer
//! Kafka (TCP)   tcp::bind ── kafka::split ── KafkaReader / KafkaWriter
//! ```
//!
//! Read next: [`identity`] for who is who, [`mesh`] for connections, [`frame`] for what travels on them.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod certs;
mod congestion;
pub mod conn;
mod datagrams;
pub mod frame;
pub mod identity;
pub mod kafka;
pub mod mesh;
pub mod options;
mod reset;
pub mod tcp;
pub mod tls;
mod verify;

pub use conn::{ConnLost, MeshConn};
pub use datagrams::Datagrams;
pub use frame::{FrameError, FrameRx, FrameTx, MAX_FRAME_BYTES, SendError};
pub use identity::{Expect, Peer};
pub use kafka::{KafkaFrameError, KafkaReader, KafkaWriter};
pub use mesh::{BindError, ConnectError, Mesh};
pub use options::{Congestion, MeshOptions, TransportOptions};
pub use tls::{MeshTls, TlsError};
