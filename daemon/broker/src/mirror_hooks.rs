//! What the mirror asks of its own cluster beyond metadata: topics of its own and records in them. Positions of groups are
//! the coordinator's ([`crate::groups::Coordinator::mirrored_commit`]).

use std::collections::BTreeMap;

use bytes::Bytes;
use tradewind_cluster::command::{Command, CreateTopic, MetaError};
use tradewind_cluster::metadata::ProposeError;
use tradewind_cluster::replica::ReplicaError;
use tradewind_wire::batch::{Batch, BatchError};
use tradewind_wire::ids::TopicId;

use crate::broker::{Broker, METADATA_TIMEOUT};

/// Why a batch of the daemon's own was not appended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendOwnError {
    /// No such topic or partition, or no copy of it here.
    #[error("no copy of {topic}-{partition} here")]
    NoReplica {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// The bytes are not one batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The replica refused it.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

impl Broker {
    /// Appends one finished batch to a partition led here; it gets the next offsets. Returns once it is in this daemon's
    /// log; replication goes on by itself. The topic's rules for clients do not apply. Answers the last offset and the
    /// leader epoch.
    pub fn append_own(
        &self,
        topic: &str,
        partition: i32,
        batch: Bytes,
    ) -> Result<(i64, i32), AppendOwnError> {
        let no_replica = || AppendOwnError::NoReplica {
            topic: topic.to_owned(),
            partition,
        };
        let image = self.cluster().image();
        let id = image.topic(topic).map(|topic| topic.id).ok_or_else(no_replica)?;
        let replica = self.cluster().replica(id, partition).ok_or_else(no_replica)?;
        let (appended, leader_epoch) = replica.append(Batch::parse(batch)?, 1)?;
        Ok((appended.last_offset, leader_epoch))
    }

    /// Creates a topic with the default replication factor unless there is one of that name.
    pub async fn create_own_topic(
        &self,
        name: &str,
        partitions: i32,
        configs: BTreeMap<String, String>,
    ) -> Result<(), ProposeError> {
        let cluster = self.cluster();
        if cluster.image().topic(name).is_some() {
            return Ok(());
        }
        let id = TopicId::random(cluster.rng().as_ref());
        let mut topic = CreateTopic::new(name, id, partitions, self.config().default_replication_factor);
        topic.configs = configs;
        match cluster
            .propose(Command::CreateTopic(topic), METADATA_TIMEOUT)
            .await
        {
            Ok(_) | Err(ProposeError::Refused(MetaError::TopicExists(_))) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
