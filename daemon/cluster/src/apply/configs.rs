//! Configuration changes, and what they mean for elections at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{change_partitions, topic};
use crate::command::{ConfigChange, ConfigResource, MetaError, Outcome};
use crate::config;
use crate::election::Cause;
use crate::image::{Image, Topic};

/// How many groups may have a configuration of their own.
const MAX_GROUPS: usize = 10_000;

/// The longest group id that may have one.
const MAX_GROUP_ID: usize = 1_024;

/// Changes the configuration of a topic, of the cluster, or of one daemon: all keys or none.
pub(super) fn alter(
    image: &mut Image,
    resource: &ConfigResource,
    replace: bool,
    changes: &BTreeMap<String, ConfigChange>,
) -> Result<Outcome, MetaError> {
    let before = match resource {
        ConfigResource::Topic(id) => topic(image, *id)?.configs.clone(),
        ConfigResource::Broker(None) => image.cluster_configs.clone(),
        ConfigResource::Broker(Some(node)) if !image.nodes.contains_key(node) => {
            return Err(MetaError::UnknownNode(*node));
        }
        ConfigResource::Broker(Some(node)) => image.node_configs.get(node).cloned().unwrap_or_default(),
        ConfigResource::Group(group) => {
            let known = image.group_configs.get(group).cloned();
            if known.is_none() && (image.group_configs.len() >= MAX_GROUPS || group.len() > MAX_GROUP_ID) {
                return Err(MetaError::TooMany {
                    what: "configurations of groups, or a group's id,".to_owned(),
                    limit: MAX_GROUPS,
                });
            }
            known.unwrap_or_default()
        }
    };
    let mut after = if replace { BTreeMap::new() } else { before.clone() };
    for (key, change) in changes {
        alter_key(resource, &before, &mut after, key, change).map_err(MetaError::InvalidConfig)?;
    }
    if after == before {
        return Ok(Outcome::Done);
    }
    if let ConfigResource::Topic(id) = resource {
        let mut changed = Topic::clone(&*topic(image, *id)?);
        changed.configs = after.clone();
        fits_together(image, &changed)?;
    }
    let differs = |key: &str| before.get(key) != after.get(key);
    let min_isr_changed = differs("min.insync.replicas");
    let elections = min_isr_changed || differs("unclean.leader.election.enable");
    match resource {
        ConfigResource::Topic(id) => {
            if let Some(topic) = image.topics.get_mut(id) {
                Arc::make_mut(topic).configs = after;
            }
        }
        ConfigResource::Broker(None) => image.cluster_configs = after,
        ConfigResource::Broker(Some(node)) => {
            image.node_configs.insert(*node, after);
        }
        ConfigResource::Group(group) => {
            if after.is_empty() {
                image.group_configs.remove(group);
            } else {
                image.group_configs.insert(group.clone(), after);
            }
            return Ok(Outcome::Done);
        }
    }
    if elections {
        let concerned = |topic: &Topic| match resource {
            ConfigResource::Topic(id) => topic.id == *id,
            ConfigResource::Broker(_) => true,
            ConfigResource::Group(_) => false,
        };
        change_partitions(
            image,
            |topic, _| concerned(topic),
            |_, _, partition, _| {
                if min_isr_changed {
                    // The watermark may move under the new minimum without the eligible replicas.
                    partition.eligible.clear();
                }
                Cause::Change
            },
        );
    }
    Ok(Outcome::Done)
}

/// Refuses a topic's configuration whose values contradict each other.
pub(super) fn fits_together(image: &Image, topic: &Topic) -> Result<(), MetaError> {
    config::validate_together(|key| image.topic_config(topic, key, None)).map_err(MetaError::InvalidConfig)
}

fn alter_key(
    resource: &ConfigResource,
    before: &BTreeMap<String, String>,
    after: &mut BTreeMap<String, String>,
    key: &str,
    change: &ConfigChange,
) -> Result<(), String> {
    let kind = match resource {
        ConfigResource::Topic(_) => "topic",
        ConfigResource::Broker(_) => "broker",
        ConfigResource::Group(_) => "group",
    };
    let config = config::key_of(resource, key).ok_or_else(|| format!("Unknown {kind} config name: {key}"))?;
    let list = |what: &str| {
        if !config.is_list() {
            return Err(format!("Can't {what} key {key} because its type is not LIST."));
        }
        let value = before.get(key).map_or(config.default, String::as_str);
        let words = config::elements(value).into_iter().map(str::to_owned);
        Ok(words.collect::<Vec<_>>())
    };
    let value = match change {
        ConfigChange::Delete => {
            after.remove(key);
            return Ok(());
        }
        ConfigChange::Set(value) => value.clone(),
        ConfigChange::Append(more) => {
            let mut words = list("APPEND to")?;
            for word in config::elements(more) {
                if !words.iter().any(|have| have == word) {
                    words.push(word.to_owned());
                }
            }
            words.join(",")
        }
        ConfigChange::Subtract(less) => {
            let mut words = list("SUBTRACT from")?;
            let less = config::elements(less);
            words.retain(|have| !less.contains(&have.as_str()));
            words.join(",")
        }
    };
    after.insert(key.to_owned(), config.parse(&value)?);
    Ok(())
}
