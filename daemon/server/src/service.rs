//! Kafka requests, wherever they come from: hands them to the broker with the name of the door they came in by.
//!
//! Over TCP from clients, and over streams of the mesh: `kafka` from clients, `query` from the daemons of other clusters,
//! which may ask but change nothing; `region` is in `regions.rs`.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tradewind_broker::{Broker, Connection, MESH_LISTENER, Reply};
use tradewind_cluster::KafkaStreams;
use tradewind_transport::{FrameRx, FrameTx, Peer};
use tradewind_wire::api::ApiKey;
use tradewind_wire::mesh::Conversation;

use crate::connection::{self, Handler};
use crate::listener::Room;
use crate::regions::Regions;

/// The requests of one connection.
pub(crate) struct Requests {
    broker: Broker,
    connection: Connection,
}

impl Requests {
    /// Of a client that came in by a TCP listener.
    pub(crate) fn of_client(broker: Broker, listener: &str, peer: SocketAddr) -> Self {
        let connection = Connection {
            listener: listener.to_owned(),
            host: peer.ip().to_string(),
            read_only: false,
        };
        Self { broker, connection }
    }
}

impl Handler for Requests {
    async fn handle(&mut self, frame: Bytes) -> Reply {
        if self.connection.read_only && !only_asks(&frame) {
            return Reply::Close("a query stream may only ask".to_owned());
        }
        self.broker.handle(&self.connection, frame).await
    }
}

/// Serves Kafka requests on streams of the mesh.
pub(crate) struct MeshRequests {
    /// Who answers.
    pub(crate) broker: Broker,
    /// What bounds the streams, as it does connections.
    pub(crate) room: Room,
    /// Answers other clusters about moving a region.
    pub(crate) regions: Arc<Regions>,
}

#[async_trait]
impl KafkaStreams for MeshRequests {
    async fn serve(&self, conversation: Conversation, peer: Peer, tx: FrameTx, rx: FrameRx) {
        if conversation == Conversation::Region {
            return self.regions.serve(peer, tx, rx).await;
        }
        let host = match peer {
            Peer::Daemon { cluster, node } => format!("{cluster}-{node}"),
            _ => "mesh".to_owned(),
        };
        let requests = Requests {
            broker: self.broker.clone(),
            connection: Connection {
                listener: MESH_LISTENER.to_owned(),
                host,
                read_only: conversation == Conversation::Query,
            },
        };
        let room = self.room.clone();
        connection::serve(rx, tx, requests, room.limits, room.drain).await;
    }
}

/// Whether a request changes nothing, by the API key that it begins with.
fn only_asks(frame: &Bytes) -> bool {
    let key = frame.first_chunk::<2>().map(|key| i16::from_be_bytes(*key));
    key.and_then(ApiKey::from_code)
        .is_some_and(|key| QUERIES.contains(&key))
}

/// What a mirror asks of its source.
const QUERIES: &[ApiKey] = &[
    ApiKey::ApiVersions,
    ApiKey::Metadata,
    ApiKey::Fetch,
    ApiKey::ListOffsets,
    ApiKey::OffsetForLeaderEpoch,
    ApiKey::FindCoordinator,
    ApiKey::OffsetFetch,
    ApiKey::ListGroups,
    ApiKey::DescribeGroups,
    ApiKey::DescribeConfigs,
    ApiKey::DescribeCluster,
    ApiKey::DescribeTopicPartitions,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_may_ask_for_records_but_not_write_any() {
        assert!(only_asks(&Bytes::from_static(&[0, 1, 0, 12])), "Fetch");
        for writes in [[0, 0], [0, 8], [0, 19], [0x7f, 0xff]] {
            assert!(!only_asks(&Bytes::copy_from_slice(&writes)), "{writes:?}");
        }
        assert!(!only_asks(&Bytes::from_static(&[0])));
    }
}
