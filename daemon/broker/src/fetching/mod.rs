//! What Fetch is made of: which partitions a request asks for ([`sessions`]), reading them and waiting for them
//! ([`plan`]), and sending consumers to a copy nearby ([`nearby`]). The answer is put together in `api/fetch.rs`.

pub(crate) mod nearby;
pub(crate) mod plan;
pub(crate) mod sessions;

#[cfg(test)]
mod sessions_tests;

use tradewind_wire::codec::Str;
use tradewind_wire::ids::TopicId;
use tradewind_wire::messages::fetch::{FetchPartition, PartitionData};

/// A topic as a request names it: by its name, or from version 13 on by its id; the other is empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Named {
    pub(crate) name: Str,
    pub(crate) id: TopicId,
}

/// One partition that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) topic: Named,
    pub(crate) partition: i32,
    /// The first offset wanted.
    pub(crate) offset: i64,
    /// At most so many bytes, except of a first batch (KIP-74).
    pub(crate) max_bytes: i32,
    /// The leader epoch as the client knows it, -1 if it does not.
    pub(crate) leader_epoch: i32,
    /// The leader epoch of the last record that the client has, -1 if it does not say.
    pub(crate) last_epoch: i32,
}

impl Asked {
    pub(crate) fn new(topic: Named, wanted: &FetchPartition) -> Self {
        Self {
            topic,
            partition: wanted.partition,
            offset: wanted.fetch_offset,
            max_bytes: wanted.partition_max_bytes,
            leader_epoch: wanted.current_leader_epoch,
            last_epoch: wanted.last_fetched_epoch,
        }
    }
}

/// What was asked for and what was found.
pub(crate) type Answer = (Asked, PartitionData);
