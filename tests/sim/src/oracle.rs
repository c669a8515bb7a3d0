//! What must hold at every moment, and what clients were told.
//!
//! The oracle looks at every copy after every step of the simulation. What it demands:
//! - a partition has at most one leader in a leader epoch;
//! - the high watermark never falls within a leader epoch;
//! - what lies below any copy's high watermark is the same on all copies and never changes again;
//! - whoever leads has all of it that was committed in earlier epochs, and every record that was acknowledged with acks=all
//!   then (a daemon that slept may learn late of an epoch in which it led, when others have committed more in later ones);
//! - no record is in a log twice, however often its producer repeated it;
//! - logs are dense;
//! - metadata images of the same index are the same.
//!
//! A write that failed may or may not have happened.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use tradewind_cluster::Cluster;
use tradewind_cluster::image::Image;
use tradewind_cluster::replica::Replica;
use tradewind_wire::batch::Batch;
use tradewind_wire::ids::{NodeId, TopicId};

use crate::host::Host;

/// Topic and partition.
pub type Key = (TopicId, i32);

/// How much one look into a log reads.
const READ_BYTES: usize = 1 << 20;

/// A batch as it was first seen: the offset behind it, and a checksum over all of it.
type Seen = (i64, u32);

/// What was said of a batch or record, and the leader epoch in which it was.
type Said<T> = (T, i32);

/// What is known of a partition.
#[derive(Debug, Default)]
struct Partition {
    /// Committed records may be lost: an operator has accepted that.
    given_up: bool,
    leaders: BTreeMap<i32, Leader>,
    committed: BTreeMap<i64, Said<Seen>>,
    acknowledged: BTreeMap<i64, Said<u64>>,
}

#[derive(Debug, Clone, Copy)]
struct Leader {
    /// Which run of which daemon.
    run: (NodeId, u64),
    high_watermark: i64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Oracle {
    partitions: BTreeMap<Key, Partition>,
    /// Up to where the log of a run of a daemon has been looked at.
    looked: BTreeMap<(NodeId, u64, Key), i64>,
    images: BTreeMap<u64, u32>,
    last_image: BTreeMap<(NodeId, u64), u64>,
    acknowledgements: usize,
}

impl Oracle {
    /// A client was told in leader epoch `epoch` that its record `value` lies at `offset`, on all that acks=all asks for.
    pub fn acknowledged(&mut self, key: Key, offset: i64, value: u64, epoch: i32) -> Result<()> {
        self.acknowledgements += 1;
        let partition = self.partitions.entry(key).or_default();
        if partition.given_up {
            return Ok(());
        }
        if let Some((other, _)) = partition.acknowledged.insert(offset, (value, epoch)) {
            bail!("offset {offset} of {key:?} was acknowledged for two records: {other} and {value}");
        }
        Ok(())
    }

    /// How many records were acknowledged.
    pub fn acknowledgements(&self) -> usize {
        self.acknowledgements
    }

    /// An operator accepts that committed records of this partition are lost: nothing is demanded of its records until
    /// [`Self::take_up`].
    pub fn give_up(&mut self, key: Key) {
        let partition = self.partitions.entry(key).or_default();
        partition.given_up = true;
        partition.committed.clear();
        partition.acknowledged.clear();
        self.looked.retain(|(_, _, of), _| *of != key);
    }

    /// From now on everything is demanded of every partition again.
    pub fn take_up(&mut self) {
        for partition in self.partitions.values_mut() {
            partition.given_up = false;
        }
    }

    /// How many leader epochs there were.
    pub fn reigns(&self) -> usize {
        self.partitions.values().map(|p| p.leaders.len()).sum()
    }

    /// Looks at every daemon.
    pub fn look(&mut self, hosts: &[Host]) -> Result<()> {
        for host in hosts {
            let Some(cluster) = host.cluster() else { continue };
            let run = (host.node, host.boots());
            self.image(run, &cluster)?;
            let mut replicas = cluster.replicas();
            replicas.sort_by_key(|replica| (replica.topic, replica.partition));
            for replica in replicas {
                self.copy(run, &replica).with_context(|| {
                    format!(
                        "{}-{} on node {}",
                        replica.topic_name, replica.partition, host.node
                    )
                })?;
            }
        }
        Ok(())
    }

    fn image(&mut self, run: (NodeId, u64), cluster: &Cluster) -> Result<()> {
        let image = cluster.image();
        if self.last_image.get(&run) == Some(&image.index) {
            return Ok(());
        }
        let before = self.last_image.insert(run, image.index);
        let before = before.unwrap_or_default();
        ensure!(before <= image.index, "the image went back to {}", image.index);
        let hash = hash_of(&image)?;
        let known = *self.images.entry(image.index).or_insert(hash);
        ensure!(
            known == hash,
            "node {} has another image of index {} than others",
            run.0,
            image.index
        );
        Ok(())
    }

    fn copy(&mut self, run: (NodeId, u64), replica: &Replica) -> Result<()> {
        let key = (replica.topic, replica.partition);
        let given_up = self
            .partitions
            .get(&key)
            .is_some_and(|partition| partition.given_up);
        let high_watermark = replica.high_watermark();
        let looked = self.looked.entry((run.0, run.1, key));
        let from = *looked.or_insert(replica.log().start());
        let partition = self.partitions.entry(key).or_default();
        if high_watermark > from && !given_up {
            let epoch = replica.view(None, true).map_or(i32::MAX, |view| view.epoch);
            for (base, seen) in batches(replica, from, high_watermark)? {
                partition.commit(base, seen, epoch)?;
            }
        }
        // A copy that was cut below its watermark is looked at again from there on.
        if !given_up {
            self.looked.insert((run.0, run.1, key), high_watermark);
        }
        let Ok(view) = replica.leader(None) else {
            return Ok(());
        };
        match partition.leaders.get_mut(&view.epoch) {
            None => {
                let leader = Leader {
                    run,
                    high_watermark: view.high_watermark,
                };
                partition.leaders.insert(view.epoch, leader);
                partition
                    .has_all(replica, view.epoch - 1)
                    .with_context(|| format!("leader of epoch {}", view.epoch))
            }
            Some(leader) => {
                let epoch = view.epoch;
                ensure!(
                    leader.run == run,
                    "run {} of node {} has led in epoch {epoch}, too; this is run {}",
                    leader.run.1,
                    leader.run.0,
                    run.1
                );
                let before = std::mem::replace(&mut leader.high_watermark, view.high_watermark);
                ensure!(
                    before <= view.high_watermark,
                    "the high watermark fell from {before} to {} in epoch {epoch}",
                    view.high_watermark
                );
                Ok(())
            }
        }
    }

    /// Compares every copy with what is known, to its end. Only for when nothing moves any more.
    pub fn settled(&self, hosts: &[Host]) -> Result<()> {
        for host in hosts {
            let Some(cluster) = host.cluster() else { continue };
            let image = cluster.image();
            for (key, partition) in &self.partitions {
                let placed = image.partition(key.0, key.1);
                if !placed.is_some_and(|placed| placed.replicas.contains(&host.node)) {
                    continue;
                }
                let replica = cluster.replica(key.0, key.1);
                let replica = replica.with_context(|| format!("node {} lacks {key:?}", host.node))?;
                partition
                    .has_all(&replica, i32::MAX)
                    .with_context(|| format!("{}-{} on node {}", replica.topic_name, key.1, host.node))?;
            }
        }
        Ok(())
    }
}

impl Partition {
    /// Records below some watermark, first seen under `epoch` if they are not known yet.
    fn commit(&mut self, base: i64, seen: Seen, epoch: i32) -> Result<()> {
        if let Some((known, _)) = self.committed.get(&base) {
            ensure!(
                *known == seen,
                "committed records at {base} are {seen:?} here and {known:?} elsewhere"
            );
            return Ok(());
        }
        let before = self.committed.range(..base).next_back();
        if let Some((other, ((next, _), _))) = before {
            ensure!(
                *next <= base,
                "committed records at {base} overlap those at {other}"
            );
        }
        self.committed.insert(base, (seen, epoch));
        Ok(())
    }

    /// Whether a copy has all that was committed or acknowledged up to leader epoch `epoch`.
    fn has_all(&self, replica: &Replica, epoch: i32) -> Result<()> {
        let log = replica.log();
        let all: BTreeMap<i64, Seen> = batches(replica, log.start(), log.end())?.into_iter().collect();
        for (base, (seen, _)) in self
            .committed
            .iter()
            .filter(|(_, (_, in_epoch))| *in_epoch <= epoch)
        {
            let here = all.get(base);
            ensure!(
                here == Some(seen),
                "committed records at {base} are lost: {here:?} here, {seen:?} before; the log ends at {}",
                log.end()
            );
        }
        if self.given_up {
            return Ok(());
        }
        let values = values(replica)?;
        let mut seen = BTreeMap::new();
        for (offset, value) in &values {
            if let Some(other) = seen.insert(value, offset) {
                bail!("record {value} is there twice, at {other} and {offset}");
            }
        }
        for (offset, (value, _)) in self
            .acknowledged
            .iter()
            .filter(|(_, (_, in_epoch))| *in_epoch <= epoch)
        {
            let here = values.get(offset);
            ensure!(
                here == Some(value),
                "record {value} was acknowledged at {offset}, where there is {here:?}"
            );
        }
        Ok(())
    }
}

/// The batches of a copy from `from` up to `up_to`, which must follow each other without a gap.
fn batches(replica: &Replica, from: i64, up_to: i64) -> Result<Vec<(i64, Seen)>> {
    let mut found = Vec::new();
    let mut at = from;
    while at < up_to {
        let read = replica.log().read(at, READ_BYTES, up_to)?;
        ensure!(
            !read.records.is_empty(),
            "nothing can be read at {at}, below {up_to}"
        );
        let mut bytes = bytes::Bytes::from(read.records.concat());
        while let Some(batch) = Batch::split_off_front(&mut bytes)? {
            batch.check_crc()?;
            let header = batch.header();
            let (base, next) = (header.base_offset, header.next_offset());
            ensure!(base == at, "a gap before {base}: {at} was expected");
            at = next;
            found.push((base, (next, crc32c::crc32c(&batch.to_bytes()))));
        }
    }
    Ok(found)
}

/// The values of a copy's records, by offset.
fn values(replica: &Replica) -> Result<BTreeMap<i64, u64>> {
    let log = replica.log();
    let mut values = BTreeMap::new();
    let mut at = log.start();
    while at < log.end() {
        let read = log.read(at, READ_BYTES, log.end())?;
        at = read.next_offset;
        let mut bytes = bytes::Bytes::from(read.records.concat());
        while let Some(batch) = Batch::split_off_front(&mut bytes)? {
            let base = batch.header().base_offset;
            let records = batch.records(READ_BYTES)?;
            for (record, offset) in records.iter().zip(base..) {
                let value = record?.value.unwrap_or_default();
                let value = value.get(..8).context("a record that no client wrote")?;
                values.insert(offset, u64::from_be_bytes(value.try_into()?));
            }
        }
    }
    Ok(values)
}

fn hash_of(image: &Image) -> Result<u32> {
    Ok(crc32c::crc32c(&serde_json::to_vec(image)?))
}
