//! DescribeLogDirs: what is stored where, and how much of it (KIP-113, KIP-827).

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api DescribeLogDirs, 1..=4, flexible 2: DescribeLogDirsRequest => DescribeLogDirsResponse;

    /// Which partitions to look at.
    pub struct DescribeLogDirsRequest {
        /// The topics; null for all.
        topics: Option<Vec<DescribableLogDirTopic>> [1+],
    }

    /// One topic.
    pub struct DescribableLogDirTopic {
        /// The topic's name.
        topic: Str [1+],
        /// The partitions' numbers.
        partitions: Vec<i32> [1+],
    }

    /// The directories.
    pub struct DescribeLogDirsResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [1+],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [3+; ignorable],
        /// The directories.
        results: Vec<DescribeLogDirsResult> [1+],
    }

    /// One directory.
    pub struct DescribeLogDirsResult {
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [1+],
        /// The directory's absolute path.
        log_dir: Str [1+],
        /// The topics.
        topics: Vec<DescribeLogDirsTopic> [1+],
        /// The size of its volume, -1 if unknown.
        total_bytes: i64 [4+; ignorable] = -1,
        /// What is free on its volume, -1 if unknown.
        usable_bytes: i64 [4+; ignorable] = -1,
    }

    /// One topic.
    pub struct DescribeLogDirsTopic {
        /// The topic's name.
        name: Str [1+],
        /// The partitions.
        partitions: Vec<DescribeLogDirsPartition> [1+],
    }

    /// One partition's log.
    pub struct DescribeLogDirsPartition {
        /// The partition's number.
        partition_index: i32 [1+],
        /// How many bytes its segments take.
        partition_size: i64 [1+],
        /// By how many offsets it is behind the high watermark.
        offset_lag: i64 [1+],
        /// Whether it is to replace the partition's log once it has caught up.
        is_future_key: bool [1+],
    }
}
