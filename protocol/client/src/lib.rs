//! A cluster-aware Kafka client over TCP and QUIC.
