//! openraft's own storage suite against our store.

use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::{StoreBuilder, Suite};
use tempfile::TempDir;
use tokio::sync::watch;

use super::machine::{Machine, Waiting};
use super::store::LogStore;
use super::types::TypeConfig;
use crate::image::Image;

struct InTempDir;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for InTempDir {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<u64>> {
        let dir = TempDir::new().unwrap();
        let store = LogStore::open(&dir.path().join("meta.redb")).unwrap();
        let (images, _) = watch::channel(Arc::new(Image::default()));
        let machine = Machine::open(1, dir.path(), images, Waiting::default()).unwrap();
        Ok((dir, store, machine))
    }
}

#[test]
fn openrafts_own_suite_holds_against_our_store() {
    Suite::test_all(InTempDir).unwrap();
}
