//! FindCoordinator: which broker looks after a group or a transactional id.

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api FindCoordinator, 0..=6, flexible 3: FindCoordinatorRequest => FindCoordinatorResponse;

    /// Whose coordinator is wanted.
    pub struct FindCoordinatorRequest {
        /// The group's or transactional id.
        key: Str [0-3],
        /// What the key names: 0 a group, 1 a transactional id, 2 a share partition.
        key_type: i8 [1+],
        /// Several groups or transactional ids.
        coordinator_keys: Vec<Str> [4+],
    }

    /// The coordinators.
    pub struct FindCoordinatorResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [1+; ignorable],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0-3],
        /// What went wrong, in words.
        error_message: Option<Str> [1-3; ignorable],
        /// The broker's id.
        node_id: i32 [0-3],
        /// The host to connect to.
        host: Str [0-3],
        /// The port to connect to.
        port: i32 [0-3],
        /// The coordinator of each key.
        coordinators: Vec<Coordinator> [4+],
    }

    /// The coordinator of one key.
    pub struct Coordinator {
        /// The group's or transactional id.
        key: Str [4+],
        /// The broker's id.
        node_id: i32 [4+],
        /// The host to connect to.
        host: Str [4+],
        /// The port to connect to.
        port: i32 [4+],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [4+],
        /// What went wrong, in words.
        error_message: Option<Str> [4+; ignorable],
    }
}
