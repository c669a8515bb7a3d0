//! `consume`: prints records, a line each; alone or as a member of a group.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use serde_json::json;
use tradewind_client::consumer::OffsetReset;
use tradewind_client::{
    Client, ConsumerRecord, GroupConfig, GroupConsumer, Isolation, OffsetSpec, PartitionReader,
};

use super::args::{ConsumeArgs, Format, From};
use super::kafka::with_client;
use super::{Failure, Output};

/// Prints records until the count, the end or a signal.
pub(super) fn run(args: &ConsumeArgs, output: Output) -> Result<u8, Failure> {
    if args.group.is_some() && args.partition.is_some() {
        return Err(Failure::Usage(
            "a group shares the partitions out: --partition goes without --group".into(),
        ));
    }
    with_client(&args.at, async |client| {
        let mut printer = Printer {
            args,
            format: output.format(),
            left: args.count.unwrap_or(u64::MAX),
        };
        let stop = tokio::signal::ctrl_c();
        let reading = async {
            match &args.group {
                Some(group) => read_as_member(client, group, args, &mut printer).await,
                None => read_alone(client, args, &mut printer).await,
            }
        };
        tokio::select! {
            result = reading => result.map(|()| 0),
            _ = stop => Ok(0),
        }
    })
}

async fn read_alone(client: Client, args: &ConsumeArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let partitions: Vec<i32> = match args.partition {
        Some(partition) => vec![partition],
        None => client.topic(&args.topic).await?.partitions.into_keys().collect(),
    };
    let spec = match args.from {
        From::Beginning => OffsetSpec::Earliest,
        From::End => OffsetSpec::Latest,
    };
    let mut readers = Vec::new();
    let mut ends = BTreeMap::new();
    for partition in partitions {
        if args.exit {
            let end = client
                .list_offset(
                    &args.topic,
                    partition,
                    OffsetSpec::Latest,
                    Isolation::ReadUncommitted,
                )
                .await?;
            ends.insert(partition, end.map_or(0, |end| end.offset));
        }
        readers.push((
            partition,
            PartitionReader::at(client.clone(), &args.topic, partition, spec).await?,
        ));
    }
    loop {
        // An ended partition is not asked again; the others share the waiting.
        if args.exit {
            readers.retain(|(partition, reader)| reader.position() < ends[partition]);
        }
        if readers.is_empty() {
            return Ok(());
        }
        let wait = if readers.len() == 1 { LONG_WAIT } else { SHORT_WAIT };
        for (_, reader) in &mut readers {
            for record in reader.poll(wait).await? {
                if !printer.print(&record)? {
                    return Ok(());
                }
            }
        }
    }
}

async fn read_as_member(
    client: Client,
    group: &str,
    args: &ConsumeArgs,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let mut config = GroupConfig::new(group, [args.topic.clone()]);
    config.auto_commit = None;
    config.reset = match args.from {
        From::Beginning => OffsetReset::Earliest,
        From::End => OffsetReset::Latest,
    };
    if let Some(count) = args.count {
        // What is returned is what is committed: not a record more than is printed.
        config.max_poll_records = usize::try_from(count).unwrap_or(usize::MAX).clamp(1, MAX_POLL);
    }
    let mut consumer = GroupConsumer::new(client.clone(), config);
    let mut going = printer.left > 0;
    while going {
        let records = consumer.poll(LONG_WAIT).await?;
        let quiet = records.is_empty();
        let mut printed = BTreeMap::new();
        for record in records {
            if !going {
                break;
            }
            going = printer.print(&record)?;
            printed.insert(
                (record.topic.clone(), record.partition),
                (record.offset + 1).into(),
            );
        }
        if !printed.is_empty() {
            consumer.commit_offsets(&printed).await?;
        }
        if quiet && args.exit && at_end(&client, group, &consumer).await? {
            break;
        }
    }
    consumer.close(CLOSE_TIMEOUT).await?;
    Ok(())
}

/// Whether this member has read all that its partitions held.
async fn at_end(client: &Client, group: &str, consumer: &GroupConsumer) -> Result<bool, Failure> {
    let partitions = consumer.assignment();
    let committed = client.offset_fetch(group, Some(partitions)).await?;
    let ends = client
        .list_offsets(partitions, OffsetSpec::Latest, Isolation::ReadUncommitted)
        .await?;
    Ok(!partitions.is_empty()
        && ends.iter().all(|(partition, end)| {
            end.offset == 0
                || committed
                    .get(partition)
                    .is_some_and(|committed| committed.offset >= end.offset)
        }))
}

struct Printer<'a> {
    args: &'a ConsumeArgs,
    format: Format,
    left: u64,
}

impl Printer<'_> {
    /// Prints a record; false if it was the last one wanted, or nobody reads any more.
    fn print(&mut self, record: &ConsumerRecord) -> io::Result<bool> {
        if self.left == 0 {
            return Ok(false);
        }
        let mut out = io::stdout().lock();
        let written = match self.format {
            Format::Json => writeln!(out, "{}", as_json(record)),
            Format::Table => self.plain(record, &mut out),
        };
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
            result => result?,
        }
        self.left -= 1;
        Ok(self.left > 0)
    }

    fn plain(&self, record: &ConsumerRecord, out: &mut impl Write) -> io::Result<()> {
        if let Some(separator) = &self.args.key_separator {
            out.write_all(record.key.as_deref().unwrap_or_default())?;
            out.write_all(separator.as_bytes())?;
        }
        out.write_all(record.value.as_deref().unwrap_or_default())?;
        out.write_all(b"\n")
    }
}

fn as_json(record: &ConsumerRecord) -> serde_json::Value {
    let text = |bytes: &Option<bytes::Bytes>| {
        bytes
            .as_ref()
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    };
    let headers: Vec<_> = record
        .headers
        .iter()
        .map(|(name, value)| json!([String::from_utf8_lossy(name), text(value)]))
        .collect();
    json!({
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": text(&record.key),
        "value": text(&record.value),
        "headers": headers,
    })
}

const LONG_WAIT: Duration = Duration::from_millis(500);
const SHORT_WAIT: Duration = Duration::from_millis(50);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_POLL: usize = 500;
