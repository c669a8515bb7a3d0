//! DescribeLogDirs: how much of what is stored here, and how full the volume is (KIP-113, KIP-827). There is one directory.

use std::collections::{BTreeMap, HashSet};

use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::describe_log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use tradewind_wire::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};

use crate::broker::Broker;
use crate::dispatch::Call;

pub(crate) async fn handle(
    broker: &Broker,
    _: Call<'_>,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let wanted: Option<HashSet<(String, i32)>> = request.topics.map(|topics| {
        let named = topics.into_iter().flat_map(|topic| {
            let name = topic.topic.to_string();
            topic
                .partitions
                .into_iter()
                .map(move |partition| (name.clone(), partition))
        });
        named.collect()
    });
    let mut topics: BTreeMap<String, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for replica in broker.cluster().replicas() {
        let key = (replica.topic_name.clone(), replica.partition);
        if wanted.as_ref().is_some_and(|wanted| !wanted.contains(&key)) {
            continue;
        }
        let log = replica.log();
        let described = DescribeLogDirsPartition {
            partition_index: replica.partition,
            partition_size: i64::try_from(log.size_bytes()).unwrap_or(i64::MAX),
            // How far the copy is behind: never, in a copy that is whole, because the watermark follows its end.
            offset_lag: (replica.high_watermark() - log.end()).max(0),
            is_future_key: false,
        };
        topics.entry(key.0).or_default().push(described);
    }
    let described = topics.into_iter().map(|(name, mut partitions)| {
        partitions.sort_unstable_by_key(|partition| partition.partition_index);
        DescribeLogDirsTopic {
            name: name.into(),
            partitions,
        }
    });
    let volume = broker.cluster().volume();
    let result = DescribeLogDirsResult {
        error_code: ErrorCode::None.code(),
        log_dir: volume.path.display().to_string().into(),
        topics: described.collect(),
        total_bytes: volume.total_bytes.unwrap_or(-1),
        usable_bytes: volume.usable_bytes.unwrap_or(-1),
    };
    DescribeLogDirsResponse {
        results: vec![result],
        ..Default::default()
    }
}
