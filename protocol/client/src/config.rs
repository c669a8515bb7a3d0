//! How a client reaches a cluster, and how long it tries.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tradewind_transport::{Mesh, TransportOptions};
use tradewind_wire::clock::{Clock, Rng};
use tradewind_wire::mesh::Conversation;

/// The settings of a [`crate::Client`].
#[derive(Clone)]
pub struct ClientConfig {
    /// Addresses (`host:port`) to begin with; any one that answers will do. Mesh addresses with [`Transport::Mesh`].
    pub bootstrap: Vec<String>,
    /// What the client calls itself in requests.
    pub client_id: String,
    /// How long one call may take, retries included.
    pub request_timeout: Duration,
    /// How long the making of one connection may take.
    pub connect_timeout: Duration,
    /// How old cached metadata may be before it is asked for again.
    pub metadata_max_age: Duration,
    /// Whether asking about a missing topic may create it, if the cluster does that.
    pub auto_create_topics: bool,
    /// The longest frame that is accepted from a broker, in bytes.
    pub max_frame: usize,
    /// How brokers are reached.
    pub transport: Transport,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness for spreading load and retries.
    pub rng: Arc<dyn Rng>,
}

impl ClientConfig {
    /// The defaults, over plain TCP.
    pub fn new(bootstrap: Vec<String>, clock: Arc<dyn Clock>) -> Self {
        Self {
            bootstrap,
            client_id: "tradewind".to_owned(),
            request_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            metadata_max_age: Duration::from_secs(60),
            auto_create_topics: false,
            max_frame: tradewind_transport::MAX_FRAME_BYTES,
            transport: Transport::Tcp,
            clock,
            rng: Arc::new(ThreadRng),
        }
    }
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("bootstrap", &self.bootstrap)
            .field("client_id", &self.client_id)
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

/// How brokers are reached.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Transport {
    /// Kafka's protocol over TCP.
    Tcp,
    /// Kafka's frames on QUIC streams of the mesh.
    Mesh {
        /// The endpoint to dial from.
        mesh: Mesh,
        /// The cluster that must answer.
        cluster: String,
        /// What the streams are for: [`Conversation::Query`] between clusters, [`Conversation::Kafka`] for clients.
        conversation: Conversation,
        /// Settings of the link; the endpoint's own if there are none.
        options: Option<Box<TransportOptions>>,
    },
}

/// The operating system's randomness, per thread.
#[derive(Debug, Clone, Copy)]
struct ThreadRng;

impl Rng for ThreadRng {
    fn next_u64(&self) -> u64 {
        rand::random()
    }
}
