//! Kafka semantics over a cluster.
