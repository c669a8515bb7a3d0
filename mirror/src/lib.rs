//! Flows between clusters: source, checkpoint, heartbeat and failover.
