//! What a valid value of a configuration key is, with Kafka's checks and words. Which keys there are stands in
//! `config/tables.rs`.
//!
//! What a value does is decided where it is used. Where a value comes from, and descriptions for people, are the
//! broker's.

mod tables;

pub use tables::{BROKER_CONFIGS, GROUP_CONFIGS, SAFETY_KEYS, TOPIC_CONFIGS};

use crate::command::ConfigResource;

/// What kind of value a key takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ConfigKind {
    /// `true` or `false`, in any case.
    Boolean,
    /// `false`, because of this: what `true` would ask for is not there.
    OnlyFalse(&'static str),
    /// A whole number of 32 bits within bounds.
    Int(i32, i32),
    /// A whole number of 64 bits within bounds.
    Long(i64, i64),
    /// A number with a fraction within bounds.
    Double(f64, f64),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A comma-separated list of these words, which may be empty.
    ListOf(&'static [&'static str]),
    /// `*`, or a comma-separated list of `partition:broker`, which may be empty.
    Replicas,
}

/// One configuration key.
#[derive(Debug, Clone, Copy)]
pub struct ConfigKey {
    /// Kafka's name of it.
    pub name: &'static str,
    /// What values it takes.
    pub kind: ConfigKind,
    /// The default: Kafka's, but for `flush.messages`.
    pub default: &'static str,
}

impl ConfigKey {
    /// Whether its values are lists, which can be appended to and subtracted from.
    pub fn is_list(&self) -> bool {
        matches!(self.kind, ConfigKind::ListOf(_) | ConfigKind::Replicas)
    }

    /// The one way to write `value` (without spaces around it, truth in small letters), or what is wrong with it in
    /// Kafka's words.
    pub fn parse(&self, value: &str) -> Result<String, String> {
        let name = self.name;
        if value.len() > MAX_VALUE_BYTES {
            return Err(format!(
                "Invalid value for configuration {name}: longer than {MAX_VALUE_BYTES} bytes"
            ));
        }
        let trimmed = value.trim();
        let bad = |value: &str, why: &str| format!("Invalid value {value} for configuration {name}: {why}");
        let at_least =
            |least: &dyn std::fmt::Display| bad(trimmed, &format!("Value must be at least {least}"));
        let at_most =
            |most: &dyn std::fmt::Display| bad(trimmed, &format!("Value must be no more than {most}"));
        match self.kind {
            ConfigKind::Boolean | ConfigKind::OnlyFalse(_) => {
                let lower = trimmed.to_ascii_lowercase();
                match (lower.as_str(), self.kind) {
                    ("true", ConfigKind::OnlyFalse(why)) => Err(why.to_owned()),
                    ("true" | "false", _) => Ok(lower),
                    _ => Err(bad(value, "Expected value to be either true or false")),
                }
            }
            ConfigKind::Int(least, most) => match trimmed.parse::<i32>() {
                Ok(number) if number < least => Err(at_least(&least)),
                Ok(number) if number > most => Err(at_most(&most)),
                Ok(number) => Ok(number.to_string()),
                Err(_) => Err(bad(value, "Not a number of type INT")),
            },
            ConfigKind::Long(least, most) => match trimmed.parse::<i64>() {
                Ok(number) if number < least => Err(at_least(&least)),
                Ok(number) if number > most => Err(at_most(&most)),
                Ok(number) => Ok(number.to_string()),
                Err(_) => Err(bad(value, "Not a number of type LONG")),
            },
            ConfigKind::Double(least, most) => match trimmed.parse::<f64>() {
                Ok(number) if number < least => Err(at_least(&least)),
                Ok(number) if number > most => Err(at_most(&most)),
                Ok(number) if number.is_finite() => Ok(trimmed.to_owned()),
                _ => Err(bad(value, "Not a number of type DOUBLE")),
            },
            ConfigKind::OneOf(words) => one_of(name, words, trimmed).map(|()| trimmed.to_owned()),
            ConfigKind::ListOf(words) => {
                let list = elements(trimmed);
                list.iter().try_for_each(|word| one_of(name, words, word))?;
                Ok(list.join(","))
            }
            ConfigKind::Replicas => {
                let list = elements(trimmed);
                let numbers = |pair: &&str| {
                    let (partition, broker) = pair.split_once(':').unwrap_or_default();
                    partition.parse::<u32>().is_ok() && broker.parse::<u32>().is_ok()
                };
                if trimmed == "*" || list.iter().all(numbers) {
                    return Ok(list.join(","));
                }
                Err(bad(
                    value,
                    &format!(
                        "{name} must be the literal '*' or a list of replicas in the following format: \
                         [partitionId]:[brokerId],[partitionId]:[brokerId],..."
                    ),
                ))
            }
        }
    }
}

/// The longest value, as long as Kafka's protocol could always carry.
const MAX_VALUE_BYTES: usize = 32_767;

/// The elements of a list as they are written in a value.
pub fn elements(value: &str) -> Vec<&str> {
    value
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .collect()
}

fn one_of(name: &str, words: &[&str], word: &str) -> Result<(), String> {
    if words.contains(&word) {
        return Ok(());
    }
    Err(format!(
        "Invalid value {word} for configuration {name}: String must be one of: {}",
        words.join(", ")
    ))
}

/// The topic key called `name`.
pub fn topic_config(name: &str) -> Option<&'static ConfigKey> {
    TOPIC_CONFIGS.iter().find(|config| config.name == name)
}

/// The default of the topic key called `name`.
pub fn default_of(name: &str) -> Option<&'static str> {
    topic_config(name).map(|config| config.default)
}

/// The key called `name` of this kind of resource. Daemons have the topic keys (the defaults of topics) and their own.
pub fn key_of(resource: &ConfigResource, name: &str) -> Option<&'static ConfigKey> {
    let find = |keys: &'static [ConfigKey]| keys.iter().find(|config| config.name == name);
    match resource {
        ConfigResource::Topic(_) => topic_config(name),
        ConfigResource::Broker(_) => topic_config(name).or_else(|| find(BROKER_CONFIGS)),
        ConfigResource::Group(_) => find(GROUP_CONFIGS),
    }
}

/// Checks one key and value of a topic; the error says what is wrong as Kafka does.
pub fn validate(name: &str, value: &str) -> Result<(), String> {
    parse(name, value).map(drop)
}

/// As [`ConfigKey::parse`] for the topic key called `name`.
pub fn parse(name: &str, value: &str) -> Result<String, String> {
    match topic_config(name) {
        Some(config) => config.parse(value),
        None => Err(format!("Unknown topic config name: {name}")),
    }
}

/// Checks values that must fit together, given what holds for each topic key (its own value, else what stands behind).
pub fn validate_together(value_of: impl Fn(&str) -> Option<String>) -> Result<(), String> {
    let number = |key: &str| value_of(key).and_then(|value| value.trim().parse::<i64>().ok());
    let (least, most) = (number("min.compaction.lag.ms"), number("max.compaction.lag.ms"));
    match (least, most) {
        (Some(least), Some(most)) if least > most => Err(format!(
            "conflict topic config setting min.compaction.lag.ms ({least}) > max.compaction.lag.ms ({most})"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_values_of_their_own_key() {
        for config in TOPIC_CONFIGS.iter().chain(BROKER_CONFIGS).chain(GROUP_CONFIGS) {
            let written = config.parse(config.default);
            assert_eq!(written.as_deref(), Ok(config.default), "{}", config.name);
        }
        for key in SAFETY_KEYS {
            assert!(default_of(key).is_some(), "{key}");
        }
    }

    #[test]
    fn wrong_values_are_refused_in_kafkas_words() {
        let refused = |name: &str, value: &str| parse(name, value).unwrap_err();
        assert_eq!(
            refused("no.such.key", "1"),
            "Unknown topic config name: no.such.key"
        );
        assert_eq!(
            refused("retention.ms", "soon"),
            "Invalid value soon for configuration retention.ms: Not a number of type LONG"
        );
        assert_eq!(
            refused("min.insync.replicas", "0"),
            "Invalid value 0 for configuration min.insync.replicas: Value must be at least 1"
        );
        assert_eq!(
            refused("segment.bytes", "3000000000"),
            "Invalid value 3000000000 for configuration segment.bytes: Not a number of type INT"
        );
        assert_eq!(
            refused("min.cleanable.dirty.ratio", "1.5"),
            "Invalid value 1.5 for configuration min.cleanable.dirty.ratio: Value must be no more than 1"
        );
        assert_eq!(
            refused("cleanup.policy", "delete,shrink"),
            "Invalid value shrink for configuration cleanup.policy: String must be one of: compact, delete"
        );
        assert_eq!(
            refused("preallocate", "yes"),
            "Invalid value yes for configuration preallocate: Expected value to be either true or false"
        );
        assert!(refused("compression.type", "none").contains("String must be one of: uncompressed, zstd"));
        assert!(refused("remote.storage.enable", "true").contains("Tiered"));
        assert!(refused("compression.gzip.level", "10").contains("no more than 9"));
        assert!(refused("leader.replication.throttled.replicas", "1:a").contains("literal '*'"));
        assert!(refused("min.cleanable.dirty.ratio", "NaN").contains("Not a number"));
    }

    #[test]
    fn values_are_written_in_one_way() {
        assert_eq!(
            parse("cleanup.policy", " compact , delete").as_deref(),
            Ok("compact,delete")
        );
        assert_eq!(parse("cleanup.policy", "").as_deref(), Ok(""));
        assert_eq!(parse("preallocate", "True").as_deref(), Ok("true"));
        assert_eq!(parse("retention.ms", " 007 ").as_deref(), Ok("7"));
        assert_eq!(parse("retention.ms", "-1").as_deref(), Ok("-1"));
        assert_eq!(
            parse("follower.replication.throttled.replicas", "0:1, 1:2").as_deref(),
            Ok("0:1,1:2")
        );
        assert_eq!(
            parse("leader.replication.throttled.replicas", "*").as_deref(),
            Ok("*")
        );
    }

    #[test]
    fn lags_of_compaction_must_fit_together() {
        let with = |least: &str, most: &str| {
            let (least, most) = (least.to_owned(), most.to_owned());
            validate_together(|key| match key {
                "min.compaction.lag.ms" => Some(least.clone()),
                "max.compaction.lag.ms" => Some(most.clone()),
                _ => None,
            })
        };
        assert_eq!(with("10", "10"), Ok(()));
        assert!(
            with("10", "5")
                .unwrap_err()
                .contains("min.compaction.lag.ms (10)")
        );
    }
}
