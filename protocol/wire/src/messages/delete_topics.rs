//! DeleteTopics: deletes topics by name or by id.

use crate::codec::Str;
use crate::ids::TopicId;
use crate::messages::declare::declare;

declare! {
    api DeleteTopics, 1..=6, flexible 4: DeleteTopicsRequest => DeleteTopicsResponse;

    /// The topics to delete.
    pub struct DeleteTopicsRequest {
        /// The topics.
        topics: Vec<DeleteTopicState> [6+],
        /// The topics' names.
        topic_names: Vec<Str> [1-5; ignorable],
        /// How many milliseconds the broker may take.
        timeout_ms: i32 [1+],
    }

    /// One topic, by name or by id.
    pub struct DeleteTopicState {
        /// The topic's name; null if it is named by id.
        name: Option<Str> [6+],
        /// The topic's id; zero if it is named by name.
        topic_id: TopicId [6+],
    }

    /// What became of each topic.
    pub struct DeleteTopicsResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [1+],
        /// The topics.
        responses: Vec<DeletableTopicResult> [1+],
    }

    /// What became of one topic.
    pub struct DeletableTopicResult {
        /// The topic's name; null if an unknown id was given.
        name: Option<Str> [1+, null 6+],
        /// The topic's id.
        topic_id: TopicId [6+; ignorable],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [1+],
        /// What went wrong, in words.
        error_message: Option<Str> [5+; ignorable],
    }
}
