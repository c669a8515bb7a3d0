//! Checks 17 and 18: configurations as admin clients read and change them.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tradewind_tests::wait;
use tradewind_wire::batch::{BatchBuilder, TimestampType};
use tradewind_wire::compression::Codec;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::alter_configs;
use tradewind_wire::messages::describe_configs::{
    DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResult,
};
use tradewind_wire::messages::incremental_alter_configs::{AlterConfigsResource, AlterableConfig};
use tradewind_wire::messages::{AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest};

use crate::support::{SOON, Topic, brokers, error, is_oracle, kafka, now, unique};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Where a value comes from.
const DYNAMIC_TOPIC: i8 = 1;
const DEFAULT: i8 = 5;

fn describe_at(
    at: Option<SocketAddr>,
    kind: i8,
    name: &str,
    keys: Option<&[&str]>,
    version: i16,
) -> Result<DescribeConfigsResult> {
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: kind,
            resource_name: name.into(),
            configuration_keys: keys.map(|keys| keys.iter().map(|key| (*key).into()).collect()),
        }],
        include_synonyms: true,
        include_documentation: version >= 3,
    };
    let mut kafka = kafka();
    let response = match at {
        Some(address) => kafka.at(address, &request, version)?,
        None => kafka.any(&request, version)?,
    };
    response.results.into_iter().next().context("a result")
}

/// One configuration of a topic.
fn read(topic: &str, key: &str) -> Result<DescribeConfigsResourceResult> {
    let result = describe_at(None, TOPIC, topic, Some(&[key]), 4)?;
    ensure!(result.error_code == 0, "{:?}", error(result.error_code));
    assert_eq!(result.configs.len(), 1, "only what was asked for");
    result.configs.into_iter().next().context("the configuration")
}

/// Waits until a topic's configuration has this value.
fn await_value(topic: &str, key: &str, value: &str) -> Result<()> {
    wait::until_true(&format!("{key} is {value}"), SOON, || {
        Ok(read(topic, key)?.value.as_deref() == Some(value))
    })
}

fn change(topic: &str, changes: &[(&str, i8, Option<&str>)], validate_only: bool) -> Result<ErrorCode> {
    let configs = changes.iter().map(|(name, operation, value)| AlterableConfig {
        name: (*name).into(),
        config_operation: *operation,
        value: value.map(Into::into),
    });
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: TOPIC,
            resource_name: topic.into(),
            configs: configs.collect(),
        }],
        validate_only,
    };
    let response = kafka().any(&request, 1)?;
    Ok(error(
        response.responses.first().context("a response")?.error_code,
    ))
}

#[test]
fn check_17_a_topics_configurations_say_where_they_come_from() -> Result<()> {
    let topic = Topic::new("sources", &[("max.message.bytes", "2000000")])?;
    let set = read(&topic.name, "max.message.bytes")?;
    assert_eq!(set.value.as_deref(), Some("2000000"));
    assert_eq!((set.config_source, set.config_type), (DYNAMIC_TOPIC, 3));
    ensure!(!set.read_only && !set.is_sensitive);
    ensure!(set.documentation.is_some(), "documentation was asked for");
    let first = set.synonyms.first().context("synonyms")?;
    let told = (&*first.name, first.value.as_deref(), first.source);
    assert_eq!(told, ("max.message.bytes", Some("2000000"), DYNAMIC_TOPIC));
    let last = set.synonyms.last().context("synonyms")?;
    let told = (&*last.name, last.value.as_deref(), last.source);
    assert_eq!(told, ("message.max.bytes", Some("1048588"), DEFAULT));

    let unset = read(&topic.name, "segment.ms")?;
    assert_eq!(
        (unset.value.as_deref(), unset.config_source),
        (Some("604800000"), DEFAULT)
    );
    // Null and empty are all keys.
    for keys in [None, Some([].as_slice())] {
        let all = describe_at(None, TOPIC, &topic.name, keys, 4)?;
        ensure!(all.configs.len() > 15, "{} configurations", all.configs.len());
    }
    // An unknown key is left out.
    let none = describe_at(None, TOPIC, &topic.name, Some(&["no.such.config"]), 4)?;
    assert_eq!((error(none.error_code), none.configs.len()), (ErrorCode::None, 0));
    Ok(())
}

#[test]
fn check_17_types_are_kafkas() -> Result<()> {
    let topic = Topic::new("types", &[])?;
    let types = [
        ("unclean.leader.election.enable", 1),
        ("compression.type", 2),
        ("max.message.bytes", 3),
        ("min.insync.replicas", 3),
        ("retention.ms", 5),
        ("cleanup.policy", 7),
    ];
    for (key, kind) in types {
        assert_eq!(read(&topic.name, key)?.config_type, kind, "{key}");
    }
    Ok(())
}

#[test]
fn check_17_unknown_resources_are_named() -> Result<()> {
    let nowhere = describe_at(None, TOPIC, &unique("nowhere"), None, 4)?;
    assert_eq!(error(nowhere.error_code), ErrorCode::UnknownTopicOrPartition);
    ensure!(nowhere.configs.is_empty() && nowhere.error_message.is_some());
    let invalid = describe_at(None, TOPIC, "not a name", None, 4)?;
    assert_eq!(error(invalid.error_code), ErrorCode::InvalidTopicException);

    let all = brokers()?;
    let (id, address) = *all.first().context("a broker")?;
    let own = describe_at(Some(address), BROKER, &id.to_string(), None, 4)?;
    assert_eq!(error(own.error_code), ErrorCode::None);
    ensure!(!own.configs.is_empty());
    let other = describe_at(Some(address), BROKER, "9999", None, 4)?;
    assert_eq!(
        error(other.error_code),
        ErrorCode::InvalidRequest,
        "of another broker"
    );
    let text = describe_at(Some(address), BROKER, "text", None, 4)?;
    assert_eq!(error(text.error_code), ErrorCode::InvalidRequest, "no number");
    assert_eq!(
        change(&unique("nowhere"), &[("retention.ms", SET, Some("1000"))], false)?,
        ErrorCode::UnknownTopicOrPartition
    );
    Ok(())
}

#[test]
fn check_17_a_value_that_equals_the_default_is_still_the_topics() -> Result<()> {
    let topic = Topic::new("equal", &[("retention.ms", "604800000")])?;
    assert_eq!(read(&topic.name, "retention.ms")?.config_source, DYNAMIC_TOPIC);
    assert_eq!(
        change(&topic.name, &[("segment.ms", SET, Some("604800000"))], false)?,
        ErrorCode::None
    );
    wait::until_true("it is the topic's", SOON, || {
        Ok(read(&topic.name, "segment.ms")?.config_source == DYNAMIC_TOPIC)
    })
}

#[test]
fn check_17_configurations_are_set_deleted_appended_and_subtracted() -> Result<()> {
    let topic = Topic::new("incremental", &[("retention.ms", "1000000")])?;
    let name = &topic.name;
    assert_eq!(
        change(name, &[("segment.ms", SET, Some("5000"))], false)?,
        ErrorCode::None
    );
    await_value(name, "segment.ms", "5000")?;
    await_value(name, "retention.ms", "1000000")?;
    assert_eq!(
        change(name, &[("segment.ms", DELETE, None)], false)?,
        ErrorCode::None
    );
    await_value(name, "segment.ms", "604800000")?;
    assert_eq!(read(name, "segment.ms")?.config_source, DEFAULT);

    assert_eq!(
        change(name, &[("cleanup.policy", APPEND, Some("compact"))], false)?,
        ErrorCode::None
    );
    await_value(name, "cleanup.policy", "delete,compact")?;
    assert_eq!(
        change(name, &[("cleanup.policy", SUBTRACT, Some("delete"))], false)?,
        ErrorCode::None
    );
    await_value(name, "cleanup.policy", "compact")?;
    // Only lists can be added to.
    assert_eq!(
        change(name, &[("retention.ms", APPEND, Some("1"))], false)?,
        ErrorCode::InvalidConfig
    );

    assert_eq!(
        change(name, &[("segment.ms", SET, Some("7000"))], true)?,
        ErrorCode::None,
        "validated"
    );
    assert_eq!(
        change(name, &[("no.such.config", SET, Some("1"))], false)?,
        ErrorCode::InvalidConfig
    );
    assert_eq!(
        change(name, &[("retention.ms", SET, Some("long"))], false)?,
        ErrorCode::InvalidConfig
    );
    assert_eq!(
        change(name, &[("retention.ms", SET, None)], false)?,
        ErrorCode::InvalidRequest,
        "null"
    );
    let twice = [
        ("retention.ms", SET, Some("1000")),
        ("retention.ms", SET, Some("2000")),
    ];
    assert_eq!(
        change(name, &twice, false)?,
        ErrorCode::InvalidRequest,
        "one key twice"
    );
    // One wrong key and nothing of the resource is changed.
    let half = [
        ("retention.ms", SET, Some("1000")),
        ("no.such.config", SET, Some("1")),
    ];
    assert_eq!(change(name, &half, false)?, ErrorCode::InvalidConfig);
    await_value(name, "retention.ms", "1000000")?;
    await_value(name, "segment.ms", "604800000")
}

/// AlterConfigs replaces everything: what is not named goes back to the default.
#[test]
fn check_17_alter_configs_resets_what_it_does_not_name() -> Result<()> {
    let topic = Topic::new("alter", &[("retention.ms", "1000000"), ("segment.ms", "5000")])?;
    let alter = |configs: &[(&str, &str)], validate_only| -> Result<ErrorCode> {
        let configs = configs
            .iter()
            .map(|(name, value)| alter_configs::AlterableConfig {
                name: (*name).into(),
                value: Some((*value).into()),
            });
        let request = AlterConfigsRequest {
            resources: vec![alter_configs::AlterConfigsResource {
                resource_type: TOPIC,
                resource_name: topic.name.as_str().into(),
                configs: configs.collect(),
            }],
            validate_only,
        };
        let response = kafka().any(&request, 2)?;
        Ok(error(
            response.responses.first().context("a response")?.error_code,
        ))
    };
    assert_eq!(
        alter(&[("segment.ms", "9000")], true)?,
        ErrorCode::None,
        "validated"
    );
    assert_eq!(
        alter(&[("no.such.config", "9000")], false)?,
        ErrorCode::InvalidConfig
    );
    assert_eq!(alter(&[("segment.ms", "7000")], false)?, ErrorCode::None);
    await_value(&topic.name, "segment.ms", "7000")?;
    await_value(&topic.name, "retention.ms", "604800000")
}

/// Redpanda #4310: what is described can be sent back.
#[test]
fn check_17_describe_then_alter_round_trips() -> Result<()> {
    let topic = Topic::new(
        "roundtrip",
        &[("cleanup.policy", "compact"), ("retention.ms", "1000000")],
    )?;
    let described = describe_at(None, TOPIC, &topic.name, None, 4)?;
    let configs: Vec<_> = described
        .configs
        .iter()
        .map(|config| (&*config.name, SET, config.value.as_deref()))
        .collect();
    assert_eq!(change(&topic.name, &configs, false)?, ErrorCode::None);
    await_value(&topic.name, "cleanup.policy", "compact")?;
    await_value(&topic.name, "retention.ms", "1000000")
}

/// KAFKA-9216: Connect wants to read exactly this.
#[test]
fn check_18_a_compacted_topic_says_only_compact() -> Result<()> {
    let topic = Topic::new("connect", &[("cleanup.policy", "compact")])?;
    assert_eq!(
        read(&topic.name, "cleanup.policy")?.value.as_deref(),
        Some("compact")
    );
    Ok(())
}

#[test]
fn check_18_the_configurations_of_a_topic_have_kafkas_names_and_defaults() -> Result<()> {
    let topic = Topic::new("names", &[])?;
    let described = describe_at(None, TOPIC, &topic.name, None, 4)?.configs;
    let mut expected = vec![
        ("cleanup.policy", "delete"),
        ("compression.type", "producer"),
        ("delete.retention.ms", "86400000"),
        ("file.delete.delay.ms", "60000"),
        ("flush.ms", "9223372036854775807"),
        ("index.interval.bytes", "4096"),
        ("max.compaction.lag.ms", "9223372036854775807"),
        ("max.message.bytes", "1048588"),
        ("message.timestamp.after.max.ms", "3600000"),
        ("message.timestamp.before.max.ms", "9223372036854775807"),
        ("message.timestamp.type", "CreateTime"),
        ("min.cleanable.dirty.ratio", "0.5"),
        ("min.compaction.lag.ms", "0"),
        ("min.insync.replicas", "1"),
        ("preallocate", "false"),
        ("retention.bytes", "-1"),
        ("retention.ms", "604800000"),
        ("segment.bytes", "1073741824"),
        ("segment.index.bytes", "10485760"),
        ("segment.jitter.ms", "0"),
        ("segment.ms", "604800000"),
        ("unclean.leader.election.enable", "false"),
    ];
    // Ours flushes before it acknowledges (`docs/reference/differences.md`).
    expected.push((
        "flush.messages",
        if is_oracle() { "9223372036854775807" } else { "1" },
    ));
    for (name, value) in expected {
        let found = described.iter().find(|config| config.name == name);
        assert_eq!(
            found.with_context(|| name.to_owned())?.value.as_deref(),
            Some(value),
            "{name}"
        );
    }
    Ok(())
}

/// A batch of one record of about this size and with this time.
fn sized(size: usize, time: i64) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
    builder.append(time, None, Some(&vec![b'x'; size]), &[]).build()
}

#[test]
fn check_18_retention_ms_deletes_segments_of_old_records() -> Result<()> {
    let mut topic = Topic::new("retentionms", &[("retention.ms", "60000")])?;
    let mut kept = Topic::new("kept", &[("retention.ms", "-1")])?;
    for age in [900_000, 800_000, 700_000] {
        topic.append(sized(10, now() - age))?;
        kept.append(sized(10, now() - age))?;
    }
    wait::until_true("the old records are gone", SOON, || {
        Ok(topic.list_offsets(-2)?.offset == 3)
    })?;
    let below = topic.fetch(2)?;
    assert_eq!(error(below.error_code), ErrorCode::OffsetOutOfRange);
    assert_eq!(topic.append(sized(10, now()))?, 3, "the offsets go on");
    assert_eq!(kept.list_offsets(-2)?.offset, 0, "-1 keeps everything");
    Ok(())
}

#[test]
fn check_18_retention_bytes_deletes_the_oldest_segments() -> Result<()> {
    let configs = [
        ("segment.bytes", "1048576"),
        ("retention.bytes", "1500000"),
        ("retention.ms", "-1"),
    ];
    let mut topic = Topic::new("retentionbytes", &configs)?;
    // A segment holds one: without the oldest two there would be less than is to be kept.
    for _ in 0..4 {
        topic.append(sized(700_000, now()))?;
    }
    wait::until_true("the oldest record is gone", SOON, || {
        Ok(topic.list_offsets(-2)?.offset == 1)
    })?;
    assert_eq!(topic.list_offsets(-1)?.offset, 4);
    Ok(())
}
