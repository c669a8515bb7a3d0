//! Raft metadata, replication of logs and the mesh protocol.
