//! InitProducerId: a producer id and epoch for idempotent or transactional producing (KIP-98, KIP-360).

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api InitProducerId, 0..=5, flexible 2: InitProducerIdRequest => InitProducerIdResponse;

    /// Who wants to produce.
    pub struct InitProducerIdRequest {
        /// The transactional id, null outside of transactions.
        transactional_id: Option<Str> [0+],
        /// After how many milliseconds the coordinator aborts a transaction that makes no progress.
        transaction_timeout_ms: i32 [0+],
        /// The id the producer has already, -1 for none.
        producer_id: i64 [3+] = -1,
        /// The epoch the producer has already, -1 for none.
        producer_epoch: i16 [3+] = -1,
    }

    /// What to produce as.
    pub struct InitProducerIdResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [0+],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
        /// The producer's id.
        producer_id: i64 [0+] = -1,
        /// The producer's epoch.
        producer_epoch: i16 [0+],
    }
}
