//! `produce`: the lines of standard input become records; idempotent, acknowledged by every copy in sync.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, BufReader};
use tradewind_client::producer::{Delivery, ProducerConfig};
use tradewind_client::{Client, Producer, Record};
use tradewind_wire::compression::Codec;

use super::Failure;
use super::args::{Compression, ProduceArgs};
use super::kafka::{pairs, with_client};

/// Sends every line and waits until all are acknowledged.
pub(super) fn run(args: &ProduceArgs) -> Result<u8, Failure> {
    let headers: Vec<_> = pairs(&args.headers)?
        .into_iter()
        .map(|(name, value)| (name, Some(Bytes::from(value))))
        .collect();
    with_client(&args.at, async |client| {
        let mut lines = BufReader::new(tokio::io::stdin());
        let mut sender = Sender::new(client, codec(args.compression));
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).await? > 0 {
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            let mut record = record(&args.topic, &line, args.key_separator.as_deref());
            record.headers.clone_from(&headers);
            sender.send(record).await?;
            line.clear();
        }
        let sent = sender.finish().await?;
        eprintln!("{sent} records written");
        Ok(0)
    })
}

/// A producer that keeps count of what is acknowledged.
pub(crate) struct Sender {
    producer: Producer,
    waiting: VecDeque<Delivery>,
    acknowledged: u64,
}

impl Sender {
    /// Sends with this compression.
    pub(crate) fn new(client: Client, compression: Codec) -> Self {
        let config = ProducerConfig {
            compression,
            ..ProducerConfig::default()
        };
        Self {
            producer: Producer::start(client, config),
            waiting: VecDeque::new(),
            acknowledged: 0,
        }
    }

    /// Queues a record; waits for the oldest one if many are on their way.
    pub(crate) async fn send(&mut self, record: Record) -> anyhow::Result<()> {
        self.waiting.push_back(self.producer.send(record).await?);
        while self.waiting.len() > MAX_WAITING {
            self.take_one().await?;
        }
        Ok(())
    }

    /// Waits for every acknowledgement and answers how many there were.
    pub(crate) async fn finish(mut self) -> anyhow::Result<u64> {
        self.producer.flush().await;
        while !self.waiting.is_empty() {
            self.take_one().await?;
        }
        self.producer.close(CLOSE_TIMEOUT).await;
        Ok(self.acknowledged)
    }

    async fn take_one(&mut self) -> anyhow::Result<()> {
        if let Some(delivery) = self.waiting.pop_front() {
            delivery.await?;
            self.acknowledged += 1;
        }
        Ok(())
    }
}

fn record(topic: &str, line: &[u8], separator: Option<&str>) -> Record {
    let split = separator
        .filter(|separator| !separator.is_empty())
        .and_then(|separator| {
            let separator = separator.as_bytes();
            let at = line
                .windows(separator.len())
                .position(|window| window == separator)?;
            Some((&line[..at], &line[at + separator.len()..]))
        });
    match split {
        Some((key, value)) => {
            Record::new(topic, Bytes::copy_from_slice(value)).with_key(Bytes::copy_from_slice(key))
        }
        None => Record::new(topic, Bytes::copy_from_slice(line)),
    }
}

fn codec(compression: Compression) -> Codec {
    match compression {
        Compression::None => Codec::None,
        Compression::Gzip => Codec::Gzip,
        Compression::Snappy => Codec::Snappy,
        Compression::Lz4 => Codec::Lz4,
        Compression::Zstd => Codec::Zstd,
    }
}

/// Records whose acknowledgements are waited for at a time; the producer bounds their bytes.
const MAX_WAITING: usize = 100_000;
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_at_the_first_separator() {
        let keyed = record("t", b"a::b::c", Some("::"));
        assert_eq!(keyed.key.as_deref(), Some(&b"a"[..]));
        assert_eq!(keyed.value.as_deref(), Some(&b"b::c"[..]));
        let plain = record("t", b"abc", Some("::"));
        assert_eq!((plain.key, plain.value.as_deref()), (None, Some(&b"abc"[..])));
    }
}
