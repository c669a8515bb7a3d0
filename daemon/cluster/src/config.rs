//! The topic configuration keys that this cluster knows, with Kafka's names and (but for `flush.messages`) defaults.
//!
//! It says what a valid value is; what a value does is decided where it is used. Descriptions for people are the
//! broker's.

/// The defaults of a daemon's file that decide about safety, and therefore travel with its registration.
pub const SAFETY_KEYS: [&str; 3] = [
    "flush.messages",
    "min.insync.replicas",
    "unclean.leader.election.enable",
];

/// What kind of value a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigKind {
    /// `true` or `false`.
    Boolean,
    /// A whole number within bounds.
    Integer(i64, i64),
    /// A number with a fraction within bounds.
    Ratio,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A comma-separated list of these words.
    ListOf(&'static [&'static str]),
    /// Free text.
    Text,
}

/// One topic configuration key.
#[derive(Debug, Clone, Copy)]
pub struct TopicConfig {
    /// Kafka's name of it.
    pub name: &'static str,
    /// What values it takes.
    pub kind: ConfigKind,
    /// The default: Kafka's, but for `flush.messages`.
    pub default: &'static str,
}

const fn key(name: &'static str, kind: ConfigKind, default: &'static str) -> TopicConfig {
    TopicConfig { name, kind, default }
}

const LONG: i64 = i64::MAX;
const INT: i64 = i32::MAX as i64;

/// Every topic configuration key.
pub const TOPIC_CONFIGS: &[TopicConfig] = &[
    key(
        "cleanup.policy",
        ConfigKind::ListOf(&["delete", "compact"]),
        "delete",
    ),
    key(
        "compression.type",
        ConfigKind::OneOf(&[
            "producer",
            "uncompressed",
            "none",
            "gzip",
            "snappy",
            "lz4",
            "zstd",
        ]),
        "producer",
    ),
    key("delete.retention.ms", ConfigKind::Integer(0, LONG), "86400000"),
    key("file.delete.delay.ms", ConfigKind::Integer(0, LONG), "60000"),
    // Unlike Kafka: acks=all means flushed on every in-sync replica, unless a topic or the file says otherwise.
    key("flush.messages", ConfigKind::Integer(1, LONG), "1"),
    key("flush.ms", ConfigKind::Integer(0, LONG), "9223372036854775807"),
    key("follower.replication.throttled.replicas", ConfigKind::Text, ""),
    key("index.interval.bytes", ConfigKind::Integer(0, INT), "4096"),
    key("leader.replication.throttled.replicas", ConfigKind::Text, ""),
    key("local.retention.bytes", ConfigKind::Integer(-2, LONG), "-2"),
    key("local.retention.ms", ConfigKind::Integer(-2, LONG), "-2"),
    key(
        "max.compaction.lag.ms",
        ConfigKind::Integer(1, LONG),
        "9223372036854775807",
    ),
    key("max.message.bytes", ConfigKind::Integer(0, INT), "1048588"),
    key(
        "message.timestamp.after.max.ms",
        ConfigKind::Integer(0, LONG),
        "3600000",
    ),
    key(
        "message.timestamp.before.max.ms",
        ConfigKind::Integer(0, LONG),
        "9223372036854775807",
    ),
    key(
        "message.timestamp.type",
        ConfigKind::OneOf(&["CreateTime", "LogAppendTime"]),
        "CreateTime",
    ),
    key("min.cleanable.dirty.ratio", ConfigKind::Ratio, "0.5"),
    key("min.compaction.lag.ms", ConfigKind::Integer(0, LONG), "0"),
    key("min.insync.replicas", ConfigKind::Integer(1, INT), "1"),
    key("preallocate", ConfigKind::Boolean, "false"),
    key("remote.storage.enable", ConfigKind::OneOf(&["false"]), "false"),
    key("retention.bytes", ConfigKind::Integer(-1, LONG), "-1"),
    key("retention.ms", ConfigKind::Integer(-1, LONG), "604800000"),
    key("segment.bytes", ConfigKind::Integer(14, INT), "1073741824"),
    key("segment.index.bytes", ConfigKind::Integer(4, INT), "10485760"),
    key("segment.jitter.ms", ConfigKind::Integer(0, LONG), "0"),
    key("segment.ms", ConfigKind::Integer(1, LONG), "604800000"),
    key("unclean.leader.election.enable", ConfigKind::Boolean, "false"),
];

/// The longest value, as long as Kafka's protocol could always carry.
const MAX_VALUE_BYTES: usize = 32_767;

/// The key called `name`.
pub fn topic_config(name: &str) -> Option<&'static TopicConfig> {
    TOPIC_CONFIGS.iter().find(|config| config.name == name)
}

/// The default of the key called `name`.
pub fn default_of(name: &str) -> Option<&'static str> {
    topic_config(name).map(|config| config.default)
}

/// Checks one key and value of a topic; the error says what is wrong as Kafka does.
pub fn validate(name: &str, value: &str) -> Result<(), String> {
    let Some(config) = topic_config(name) else {
        return Err(format!("Unknown topic config name: {name}"));
    };
    if value.len() > MAX_VALUE_BYTES {
        return Err(format!(
            "Invalid value for configuration {name}: longer than {MAX_VALUE_BYTES} bytes"
        ));
    }
    let bad = |why: &str| Err(format!("Invalid value {value} for configuration {name}: {why}"));
    match config.kind {
        ConfigKind::Boolean if value == "true" || value == "false" => Ok(()),
        ConfigKind::Boolean => bad("expected true or false"),
        ConfigKind::Integer(least, most) => match value.trim().parse::<i64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(()),
            Ok(_) => bad(&format!("must be between {least} and {most}")),
            Err(_) => bad("not a number"),
        },
        ConfigKind::Ratio => match value.trim().parse::<f64>() {
            Ok(number) if (0.0..=1.0).contains(&number) => Ok(()),
            _ => bad("must be between 0 and 1"),
        },
        ConfigKind::OneOf(words) if words.contains(&value) => Ok(()),
        ConfigKind::OneOf(words) => bad(&format!("must be one of {}", words.join(", "))),
        ConfigKind::ListOf(words) => {
            if !value.is_empty() && value.split(',').all(|word| words.contains(&word.trim())) {
                Ok(())
            } else {
                bad(&format!("must be a list of {}", words.join(", ")))
            }
        }
        ConfigKind::Text => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_values_of_their_own_key() {
        for config in TOPIC_CONFIGS {
            assert_eq!(validate(config.name, config.default), Ok(()), "{}", config.name);
        }
        for key in SAFETY_KEYS {
            assert!(default_of(key).is_some(), "{key}");
        }
    }

    #[test]
    fn wrong_values_are_refused_with_the_reason() {
        assert!(
            validate("no.such.key", "1")
                .unwrap_err()
                .contains("Unknown topic config name")
        );
        assert!(
            validate("retention.ms", "soon")
                .unwrap_err()
                .contains("not a number")
        );
        assert!(
            validate("min.insync.replicas", "0")
                .unwrap_err()
                .contains("between")
        );
        assert!(validate("cleanup.policy", "delete,shrink").is_err());
        assert!(validate("cleanup.policy", "compact,delete").is_ok());
        assert!(validate("compression.type", "rar").is_err());
        assert!(validate("preallocate", "yes").is_err());
        assert!(validate("min.cleanable.dirty.ratio", "1.5").is_err());
    }
}
