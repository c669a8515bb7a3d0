//! stub
#![allow(missing_docs, unused)]
use bytes::Bytes;
use std::{collections::HashMap, io, path::Path, sync::Arc};
use tradewind_wire::{batch::Batch, clock::Clock, ids::*};
pub struct Log;
#[derive(Debug, Clone, Copy)]
pub struct Appended {
    pub base_offset: i64,
    pub last_offset: i64,
    pub log_append_time_ms: i64,
    pub duplicate: bool,
}
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error("x")]
    X,
}
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("x")]
    X,
}
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("x")]
    X,
}
#[derive(Debug, Clone)]
pub struct LogConfig;
impl LogConfig {
    pub fn from_configs(f: impl Fn(&str) -> Option<String>) -> Self {
        LogConfig
    }
}
pub struct LogEnv;
impl LogEnv {
    pub fn new(c: Arc<dyn Clock>) -> Self {
        LogEnv
    }
}
#[derive(Default)]
pub struct OpenHint {
    pub log_start: i64,
    pub recovery_point: i64,
    pub clean_shutdown: bool,
}
pub struct Recovered {
    pub damaged: bool,
    pub truncated_bytes: u64,
}
pub struct ReadSlice {
    pub records: Vec<Bytes>,
    pub bytes: usize,
    pub next_offset: i64,
}
impl Log {
    pub fn open(d: &Path, c: LogConfig, h: OpenHint, e: Arc<LogEnv>) -> Result<(Log, Recovered), OpenError> {
        todo!()
    }
    pub fn set_config(&self, c: LogConfig) {}
    pub fn append(&self, b: Batch, e: i32) -> Result<Appended, AppendError> {
        todo!()
    }
    pub fn append_at(&self, b: Bytes, e: Option<i32>) -> Result<Appended, AppendError> {
        todo!()
    }
    pub fn read(&self, f: i64, m: usize, u: i64) -> Result<ReadSlice, ReadError> {
        todo!()
    }
    pub fn start(&self) -> i64 {
        0
    }
    pub fn end(&self) -> i64 {
        0
    }
    pub fn flushed_end(&self) -> i64 {
        0
    }
    pub fn last_epoch(&self) -> Option<i32> {
        None
    }
    pub fn assign_epoch(&self, e: i32) -> io::Result<()> {
        Ok(())
    }
    pub fn end_offset_for_epoch(&self, e: i32) -> Option<(i32, i64)> {
        None
    }
    pub fn truncate_to(&self, o: i64) -> io::Result<()> {
        Ok(())
    }
    pub fn trim_to(&self, o: i64) -> io::Result<()> {
        Ok(())
    }
    pub fn reset_at(&self, o: i64) -> io::Result<()> {
        Ok(())
    }
    pub fn flush(&self) -> io::Result<i64> {
        Ok(0)
    }
    pub fn retain(&self, n: i64, h: i64) -> io::Result<usize> {
        Ok(0)
    }
    pub fn last_stable_offset(&self, h: i64) -> i64 {
        h
    }
    pub fn close(&self) -> io::Result<()> {
        Ok(())
    }
    pub fn poisoned(&self) -> Option<String> {
        None
    }
}
#[derive(Debug, Clone, Copy, Default)]
pub struct Checkpoint {
    pub log_start: i64,
    pub recovery_point: i64,
    pub high_watermark: i64,
}
pub struct Checkpoints;
impl Checkpoints {
    pub fn entries(&self) -> &HashMap<(TopicId, i32), Checkpoint> {
        todo!()
    }
    pub fn replace(&mut self, e: HashMap<(TopicId, i32), Checkpoint>) -> io::Result<()> {
        Ok(())
    }
}
pub struct DataDir;
impl DataDir {
    pub fn partitions(&self) -> io::Result<Vec<(TopicId, i32)>> {
        todo!()
    }
    pub fn partition_dir(&self, t: TopicId, p: i32) -> std::path::PathBuf {
        todo!()
    }
    pub fn remove_partition(&self, t: TopicId, p: i32) -> io::Result<()> {
        todo!()
    }
    pub fn set_aside(&self, t: TopicId, p: i32) -> io::Result<()> {
        todo!()
    }
    pub fn storage_id(&self) -> [u8; 16] {
        todo!()
    }
    pub fn cluster_id(&self) -> Option<ClusterId> {
        None
    }
    pub fn set_cluster_id(&self, c: ClusterId) -> io::Result<()> {
        todo!()
    }
    pub fn path(&self) -> &Path {
        todo!()
    }
    pub fn checkpoints(&self) -> io::Result<Checkpoints> {
        todo!()
    }
    pub fn take_clean_mark(&self) -> io::Result<bool> {
        todo!()
    }
    pub fn leave_clean_mark(&self) -> io::Result<()> {
        todo!()
    }
}
