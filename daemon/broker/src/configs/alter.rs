//! How AlterConfigs and IncrementalAlterConfigs change a configuration: whose it is, which key is meant, and the command.
//!
//! Values are checked by the metadata itself, which also answers for requests that are only to be validated.

use std::collections::{BTreeMap, HashSet};

use tradewind_cluster::command::{Command, ConfigChange, ConfigResource};
use tradewind_cluster::config::{self, BROKER_CONFIGS, TOPIC_CONFIGS};
use tradewind_cluster::image::Image;
use tradewind_wire::codec::Str;
use tradewind_wire::error::ErrorCode;

use super::{broker_synonym, resource};
use crate::broker::{Broker, METADATA_TIMEOUT};
use crate::{errors, topics};

pub(crate) type Refused = (ErrorCode, String);

/// What a request asks of one resource.
pub(crate) struct Wanted {
    pub(crate) resource_type: i8,
    pub(crate) resource_name: Str,
    /// A change per key, or why what is asked makes no sense.
    pub(crate) changes: Result<Vec<(String, ConfigChange)>, Refused>,
}

/// What became of it, as both responses tell it.
pub(crate) struct Altered {
    pub(crate) error_code: i16,
    pub(crate) error_message: Option<Str>,
    pub(crate) resource_type: i8,
    pub(crate) resource_name: Str,
}

/// Changes the configurations of resources, each by itself, or only checks whether that could be done. With `replace`, keys
/// that are not named return to their defaults. A resource that is named more than once is refused each time.
pub(crate) async fn alter_each(
    broker: &Broker,
    resources: Vec<Wanted>,
    replace: bool,
    validate_only: bool,
) -> Vec<Altered> {
    let named = resources.iter();
    let repeated = repeated(named.map(|one| (one.resource_type, one.resource_name.as_str())));
    let mut all = Vec::with_capacity(resources.len());
    for (wanted, repeated) in resources.into_iter().zip(repeated) {
        let which = (wanted.resource_type, wanted.resource_name.as_str());
        let changed = match wanted.changes {
            _ if repeated => {
                let message = "Each resource must appear at most once.".to_owned();
                Err((ErrorCode::InvalidRequest, message))
            }
            Ok(changes) => alter(broker, which, replace, changes, validate_only).await,
            Err(refused) => Err(refused),
        };
        let (error, message) = match changed {
            Ok(()) => (ErrorCode::None, None),
            Err((error, message)) => (error, Some(message.into())),
        };
        all.push(Altered {
            error_code: error.code(),
            error_message: message,
            resource_type: wanted.resource_type,
            resource_name: wanted.resource_name,
        });
    }
    all
}

async fn alter(
    broker: &Broker,
    (resource_type, name): (i8, &str),
    replace: bool,
    changes: Vec<(String, ConfigChange)>,
    validate_only: bool,
) -> Result<(), Refused> {
    let target = target(broker, resource_type, name)?;
    let mut by_key = BTreeMap::new();
    for (asked, change) in changes {
        let key = match key_of(&target, &asked) {
            Ok(key) => key,
            // As Kafka has it: what was never set is gone already, whatever its name.
            Err(_) if matches!(change, ConfigChange::Delete) => continue,
            Err(refused) => return Err(refused),
        };
        if by_key.insert(key.to_owned(), change).is_some() {
            let message = format!("Error due to duplicate config keys: {asked}");
            return Err((ErrorCode::InvalidRequest, message));
        }
    }
    let command = Command::AlterConfigs {
        resource: target,
        replace,
        changes: by_key,
    };
    let changed = if validate_only {
        broker.rehearse(&command)
    } else {
        broker.cluster().propose(command, METADATA_TIMEOUT).await
    };
    changed.map(drop).map_err(|error| errors::of_propose(&error))
}

/// Which of the resources are named more than once in a request, by position.
fn repeated<'a>(resources: impl Iterator<Item = (i8, &'a str)>) -> Vec<bool> {
    let all: Vec<_> = resources.collect();
    let (mut seen, mut twice) = (HashSet::new(), HashSet::new());
    for one in &all {
        if !seen.insert(*one) {
            twice.insert(*one);
        }
    }
    all.iter().map(|one| twice.contains(one)).collect()
}

fn target(broker: &Broker, resource_type: i8, name: &str) -> Result<ConfigResource, Refused> {
    let image: &Image = &broker.cluster().image();
    let refuse = |message: String| Err((ErrorCode::InvalidRequest, message));
    match resource_type {
        resource::TOPIC if !topics::is_valid_name(name) => Err((
            ErrorCode::InvalidTopicException,
            format!("Topic name '{name}' is not valid."),
        )),
        resource::TOPIC => match image.topic(name) {
            Some(topic) => Ok(ConfigResource::Topic(topic.id)),
            None => Err((
                ErrorCode::UnknownTopicOrPartition,
                format!("The topic '{name}' does not exist."),
            )),
        },
        resource::BROKER if name.is_empty() => Ok(ConfigResource::Broker(None)),
        resource::BROKER => {
            broker_id(broker, name).map(|()| ConfigResource::Broker(Some(broker.cluster().node_id())))
        }
        resource::GROUP if name.is_empty() => refuse("Group name cannot be empty.".to_owned()),
        resource::GROUP => Ok(ConfigResource::Group(name.to_owned())),
        other => refuse(format!("Unsupported resource type: {other}")),
    }
}

/// Refuses the name of a broker that is not this daemon, in Kafka's words.
pub(crate) fn broker_id(broker: &Broker, name: &str) -> Result<(), Refused> {
    let own = broker.cluster().node_id();
    let message = match name.parse::<i32>() {
        Ok(id) if id == own => return Ok(()),
        Ok(_) => format!("Unexpected broker id, expected {own} or empty string, but received {name}"),
        Err(_) => format!("Broker id must be an integer, but it is: {name}"),
    };
    Err((ErrorCode::InvalidRequest, message))
}

/// The key that a name stands for: itself, or for daemons the one whose broker-wide default it is.
fn key_of(target: &ConfigResource, name: &str) -> Result<&'static str, Refused> {
    let found = match target {
        ConfigResource::Broker(_) => {
            let mut keys = TOPIC_CONFIGS.iter().map(|key| key.name);
            let of_topics = keys.find(|key| broker_synonym(key) == Some(name));
            let own = BROKER_CONFIGS.iter().map(|key| key.name);
            of_topics.or_else(|| own.into_iter().find(|key| *key == name))
        }
        _ => config::key_of(target, name).map(|key| key.name),
    };
    found.ok_or_else(|| match target {
        ConfigResource::Topic(_) => (
            ErrorCode::InvalidConfig,
            format!("Unknown topic config name: {name}"),
        ),
        ConfigResource::Group(_) => (
            ErrorCode::InvalidConfig,
            format!("Unknown group config name: {name}"),
        ),
        _ => (
            ErrorCode::InvalidRequest,
            format!("Cannot update these configs dynamically: {name}"),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemons_have_the_defaults_of_topics_under_their_own_names() {
        let broker = ConfigResource::Broker(None);
        assert_eq!(key_of(&broker, "log.retention.ms"), Ok("retention.ms"));
        assert_eq!(key_of(&broker, "min.insync.replicas"), Ok("min.insync.replicas"));
        assert_eq!(
            key_of(&broker, "leader.replication.throttled.rate"),
            Ok("leader.replication.throttled.rate")
        );
        for not_a_brokers in [
            "retention.ms",
            "broker.id",
            "leader.replication.throttled.replicas",
        ] {
            assert!(key_of(&broker, not_a_brokers).is_err(), "{not_a_brokers}");
        }
        let group = ConfigResource::Group("g".into());
        assert!(key_of(&group, "consumer.session.timeout.ms").is_ok());
        assert!(key_of(&group, "retention.ms").is_err());
    }

    #[test]
    fn resources_that_are_named_twice_are_found() {
        let named = [(2, "a"), (4, "a"), (2, "a"), (2, "b")];
        assert_eq!(repeated(named.into_iter()), [true, false, true, false]);
    }
}
