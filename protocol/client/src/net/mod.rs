//! Connections to brokers: dialling, the first exchange of versions, pipelining, and the pool that keeps them.

pub(crate) mod connection;
mod dial;
pub(crate) mod pool;
pub(crate) mod versions;
