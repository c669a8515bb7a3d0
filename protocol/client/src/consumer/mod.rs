//! Consuming.
pub mod assignor;
/// Not there yet.
#[derive(Debug)]
pub struct ConsumerRecord;
/// Not there yet.
#[derive(Debug)]
pub struct GroupConfig;
/// Not there yet.
#[derive(Debug)]
pub struct GroupConsumer;
/// Not there yet.
#[derive(Debug)]
pub struct PartitionReader;
