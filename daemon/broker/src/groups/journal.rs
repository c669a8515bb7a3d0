//! What a coordinator needs of the log partition that it keeps its groups in.
//!
//! The broker implements it over a replica of `__consumer_offsets`, tests over a vector. One journal stands for one
//! partition under one leader epoch: when that epoch ends, it answers [`GroupError::NotCoordinator`] for good.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::error::GroupError;

/// A record's key and its value; no value removes what the key names.
pub type Entry = (Bytes, Option<Bytes>);

/// Takes one record of a replay: its offset, key and value.
pub type EachRecord = dyn FnMut(i64, &[u8], Option<&[u8]>) + Send;

/// One partition of `__consumer_offsets` under one leader epoch.
pub trait Journal: Send + Sync + 'static {
    /// Appends `entries` as one batch and returns the offset of the first. Short and synchronous.
    fn append(&self, entries: &[Entry]) -> Result<i64, GroupError>;

    /// Waits until the record at `offset` is committed.
    fn committed(&self, offset: i64, timeout: Duration) -> BoxFuture<'static, Result<(), GroupError>>;

    /// Waits until everything that was in the partition when its leader was elected is committed, then hands each record
    /// to `each` with its offset, oldest first.
    fn replay(&self, each: Box<EachRecord>) -> BoxFuture<'static, Result<(), GroupError>>;
}
