//! What crosses crates: real daemons, started as a user starts them, and a Kafka client that shares nothing with ours
//! but the wire format.
//!
//! The tests in `tests/` use it, and so does the program `mesh`, which starts clusters for suites in other languages
//! (`tests/clients`). Nothing here reaches into a daemon: certificates, configuration, health and failover go through
//! the program's own commands and ports.
//!
//! ```text
//! Mesh ── Cluster ── Daemon ── the program (program.rs)        Kafka ── TCP to any of them
//! ```
#![allow(
    clippy::disallowed_methods,
    reason = "suites measure real time against real processes"
)]

pub mod batches;
pub mod clock;
pub mod cluster;
pub mod daemon;
pub mod history;
pub mod kafka;
pub mod liar;
pub mod load;
pub mod mesh;
pub mod moving;
pub mod options;
pub mod ports;
pub mod program;
pub mod relay;
pub mod shared;
pub mod siege;
pub mod tear;
pub mod wait;
pub mod watch;

pub use clock::MachineClock;
pub use cluster::{Cluster, ClusterSpec};
pub use daemon::Daemon;
pub use kafka::Kafka;
pub use mesh::{Mesh, Naming};
