//! A cluster-aware Kafka client over TCP and QUIC.
//!
//! One client for the mirror, the command line, tests and examples: it finds leaders and coordinators, keeps many
//! requests on the way per connection, tries again what may be tried again, and gives every call a deadline. It works
//! against any Kafka from 2.0 on. It keeps no state on disk and decides nothing about flows or clusters.
//!
//! ```text
//! Producer  GroupConsumer  PartitionReader  admin         what users call
//!        \      |      /        |
//!            Client: metadata, leaders, coordinators      routing and retries
//!                  |
//!            net: pool -> connection -> TCP or QUIC       pipelining, versions
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod admin;
mod backoff;
mod client;
mod commits;
mod config;
pub mod consumer;
mod error;
mod fetch;
mod metadata;
mod net;
mod offsets;
pub mod producer;

pub use client::Client;
pub use commits::{CommittedOffset, OffsetToCommit};
pub use config::{ClientConfig, Transport};
pub use consumer::{ConsumeError, ConsumerRecord, GroupConfig, GroupConsumer, OffsetReset, PartitionReader};
pub use error::ClientError;
pub use fetch::{FetchLimits, FetchPosition, FetchedPartition, Isolation};
pub use metadata::{Broker, ClusterMetadata, PartitionMetadata, TopicMetadata};
pub use net::pool::Lane;
pub use offsets::{ListedOffset, OffsetSpec};
pub use producer::{Acks, Delivered, Delivery, ProduceError, Producer, ProducerConfig, Record};
