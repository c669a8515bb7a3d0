//! What members of consumer groups tell each other through the coordinator: subscriptions and assignments.
//!
//! The coordinator of a classic group passes these bytes on without understanding them; clients and tools read and write
//! them, and so does the coordinator for members of the classic protocol in a group of the consumer protocol. Unlike other
//! messages they carry their version, as their first two bytes. A version above the highest known one is read as that,
//! because later versions only append.

use bytes::Bytes;

use crate::codec::{DecodeError, EncodeError, Reader, Str, Writer};
use crate::messages::Message;
use crate::messages::declare::declare;

declare! {
    message ConsumerProtocolSubscription, 0..=3, flexible never;
    message ConsumerProtocolAssignment, 0..=3, flexible never;

    /// What a member wants to read: the metadata it joins a group with.
    pub struct ConsumerProtocolSubscription {
        /// The topics' names.
        topics: Vec<Str> [0+],
        /// Whatever the assignor wants to pass on.
        user_data: Option<Bytes> [0+],
        /// What the member has now, for assignors that rebalance step by step (KIP-429).
        owned_partitions: Vec<TopicPartition> [1+; ignorable],
        /// The generation in which it was given that, -1 for none (KIP-792).
        generation_id: i32 [2+; ignorable] = -1,
        /// The member's rack, to read from a replica close by (KIP-881).
        rack_id: Option<Str> [3+; ignorable],
    }

    /// What a member is given to read.
    pub struct ConsumerProtocolAssignment {
        /// The partitions.
        assigned_partitions: Vec<TopicPartition> [0+],
        /// Whatever the assignor wants to pass on.
        user_data: Option<Bytes> [0+],
    }

    /// Partitions of one topic.
    pub struct TopicPartition {
        /// The topic's name.
        topic: Str [0+],
        /// The partitions' numbers.
        partitions: Vec<i32> [0+],
    }
}

/// A message with its version before it.
pub trait Versioned: Message {
    /// Reads the version, then the message.
    fn from_bytes(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let version = r.i16().map_err(|error| error.within(Self::NAME, "version"))?;
        Self::decode(&mut r, version.min(Self::VERSIONS.1))
    }

    /// Writes the version, then the message.
    fn to_bytes(&self, version: i16) -> Result<Bytes, EncodeError> {
        let mut w = Writer::new();
        w.put_i16(version);
        self.encode(&mut w, version)?;
        Ok(w.into_bytes())
    }
}

impl Versioned for ConsumerProtocolSubscription {}
impl Versioned for ConsumerProtocolAssignment {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_keeps_what_its_version_has() {
        let subscription = ConsumerProtocolSubscription {
            topics: vec!["a".into()],
            user_data: None,
            owned_partitions: vec![TopicPartition {
                topic: "a".into(),
                partitions: vec![0, 2],
            }],
            generation_id: 7,
            rack_id: Some("r".into()),
        };
        let bytes = subscription.to_bytes(0).unwrap();
        assert_eq!(bytes, b"\0\0\0\0\0\x01\0\x01a\xff\xff\xff\xff".as_slice());
        let least = ConsumerProtocolSubscription {
            topics: vec!["a".into()],
            ..Default::default()
        };
        assert_eq!(ConsumerProtocolSubscription::from_bytes(bytes), Ok(least));
        let bytes = subscription.to_bytes(3).unwrap();
        assert_eq!(ConsumerProtocolSubscription::from_bytes(bytes), Ok(subscription));
    }

    #[test]
    fn a_version_from_the_future_is_read_as_the_highest_known_and_a_negative_one_refused() {
        let mut bytes = ConsumerProtocolAssignment::default()
            .to_bytes(3)
            .unwrap()
            .to_vec();
        bytes[1] = 9;
        bytes.extend_from_slice(b"something new");
        let read = ConsumerProtocolAssignment::from_bytes(bytes.clone().into());
        assert_eq!(read, Ok(ConsumerProtocolAssignment::default()));
        bytes[0] = 0xff;
        assert!(ConsumerProtocolAssignment::from_bytes(bytes.into()).is_err());
        assert!(ConsumerProtocolAssignment::from_bytes(Bytes::new()).is_err());
    }
}
