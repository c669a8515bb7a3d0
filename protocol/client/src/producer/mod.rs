//! Producing.
pub mod partitioner;
mod queue;
/// Not there yet.
#[derive(Debug)]
pub struct Producer;
/// Not there yet.
#[derive(Debug)]
pub struct ProducerConfig;
/// Not there yet.
#[derive(Debug)]
pub struct Record;
