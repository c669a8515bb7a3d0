//! `config list`, `config describe` and `config alter`: settings in a cluster, as kafka-configs has them.

use std::collections::BTreeMap;

use serde::Serialize;
use tradewind_client::Client;
use tradewind_client::admin::{ConfigChange, ConfigEntry, ConfigResource};

use crate::cli::args::{ChangeArgs, ResourceArgs};
use crate::cli::kafka::pairs;
use crate::cli::outcome::{Outcome, report};
use crate::cli::output::{or_dash, table};
use crate::cli::{Failure, Output};

#[derive(Serialize)]
struct Listed {
    resource: &'static str,
    name: String,
}

/// Prints what has settings of its own.
pub(super) async fn list(client: Client, output: Output) -> Result<u8, Failure> {
    let mut resources = client.list_config_resources().await?;
    resources.sort();
    let listed: Vec<Listed> = resources
        .iter()
        .map(|resource| Listed {
            resource: resource.kind_name(),
            name: resource.name(),
        })
        .collect();
    let row = |one: &Listed| vec![one.resource.to_owned(), one.name.clone()];
    output.rows(&listed, &["resource", "name"], listed.iter().map(row))?;
    Ok(0)
}

#[derive(Serialize)]
struct Described {
    resource: &'static str,
    /// Empty for the brokers' defaults.
    name: String,
    configs: Vec<Setting>,
}

#[derive(Serialize)]
struct Setting {
    name: String,
    /// `null` if it is secret or not set.
    value: Option<String>,
    source: &'static str,
    read_only: bool,
    sensitive: bool,
    /// Every place that could give a value, the deciding one first; empty unless all was asked for.
    synonyms: Vec<Synonym>,
}

#[derive(Serialize)]
struct Synonym {
    name: String,
    value: Option<String>,
    source: &'static str,
}

/// Prints the settings of resources: those that are set there, or all.
pub(super) async fn describe(
    client: Client,
    of: ResourceArgs,
    all: bool,
    keys: Vec<String>,
    output: Output,
) -> Result<u8, Failure> {
    let resources = resources(of);
    let mut known = if all {
        client.describe_configs_and_synonyms(&resources).await?
    } else {
        client.describe_configs(&resources).await?
    };
    let mut missing = 0;
    let mut described = Vec::new();
    for resource in resources {
        let entries = known.remove(&resource).unwrap_or_default();
        for key in keys.iter().filter(|key| !entries.contains_key(*key)) {
            let hint = crate::cli::select::nearest(key, entries.keys().map(String::as_str));
            eprintln!("{resource} has no setting {key}{hint}");
            missing = 1;
        }
        let wanted = |name: &String, entry: &ConfigEntry| {
            let is_shown = all || !keys.is_empty() || is_set_there(&resource, entry.source);
            is_shown && (keys.is_empty() || keys.contains(name))
        };
        let configs = entries.into_iter().filter(|(name, entry)| wanted(name, entry));
        described.push(Described {
            resource: resource.kind_name(),
            name: resource.name(),
            configs: configs.map(setting).collect(),
        });
    }
    let mut text = String::new();
    for one in &described {
        if !text.is_empty() {
            text.push('\n');
        }
        let name = if one.name.is_empty() {
            "defaults"
        } else {
            &one.name
        };
        text += &format!("{} {name}\n", one.resource);
        if !one.configs.is_empty() {
            text += &settings_table(&one.configs);
        }
    }
    output.text(&described, &text)?;
    Ok(missing)
}

fn setting((name, entry): (String, ConfigEntry)) -> Setting {
    let synonym = |synonym: tradewind_client::admin::ConfigSynonym| Synonym {
        name: synonym.name,
        value: synonym.value,
        source: source(synonym.source),
    };
    Setting {
        name,
        value: entry.value,
        source: source(entry.source),
        read_only: entry.read_only,
        sensitive: entry.sensitive,
        synonyms: entry.synonyms.into_iter().map(synonym).collect(),
    }
}

fn settings_table(settings: &[Setting]) -> String {
    let row = |one: &Setting| {
        let mut notes = Vec::new();
        if one.read_only {
            notes.push("read-only");
        }
        if one.sensitive {
            notes.push("secret");
        }
        vec![
            one.name.clone(),
            or_dash(one.value.as_ref()),
            one.source.to_owned(),
            notes.join(", "),
        ]
    };
    table(&["name", "value", "source", ""], settings.iter().map(row))
}

/// What to change: exactly one thing per setting.
pub(super) fn changes(args: &ChangeArgs) -> Result<BTreeMap<String, ConfigChange>, Failure> {
    let mut changes = crate::cli::topic::changes(&args.set, &args.unset)?;
    let lists = [
        (&args.append, ConfigChange::Append as fn(String) -> ConfigChange),
        (&args.subtract, ConfigChange::Subtract),
    ];
    for (arguments, change) in lists {
        for (name, value) in pairs(arguments)? {
            if changes.insert(name.clone(), change(value)).is_some() {
                return Err(Failure::Usage(format!("`{name}` is to be changed in two ways")));
            }
        }
    }
    Ok(changes)
}

/// Changes settings of resources, all in the same way.
pub(super) async fn alter(
    client: Client,
    of: ResourceArgs,
    changes: BTreeMap<String, ConfigChange>,
    validate_only: bool,
    output: Output,
) -> Result<u8, Failure> {
    let done = if validate_only {
        "can be changed"
    } else {
        "changed"
    };
    let mut outcomes = Vec::new();
    for resource in resources(of) {
        let altered = client.alter_configs(&resource, &changes, validate_only).await;
        outcomes.push(Outcome {
            of: vec![
                ("resource", resource.kind_name().into()),
                ("name", resource.name().into()),
            ],
            result: altered.map(|()| done.to_owned()),
        });
    }
    report(output, &outcomes)
}

fn resources(of: ResourceArgs) -> Vec<ConfigResource> {
    let mut resources: Vec<_> = of.topics.into_iter().map(ConfigResource::Topic).collect();
    resources.extend(of.brokers.into_iter().map(ConfigResource::Broker));
    if of.broker_defaults {
        resources.push(ConfigResource::BrokerDefaults);
    }
    resources.extend(of.broker_loggers.into_iter().map(ConfigResource::BrokerLoggers));
    resources.extend(of.groups.into_iter().map(ConfigResource::Group));
    resources.extend(of.client_metrics.into_iter().map(ConfigResource::ClientMetrics));
    resources
}

/// Kafka's name for where a value comes from.
fn source(code: i8) -> &'static str {
    match code {
        1 => "DYNAMIC_TOPIC_CONFIG",
        2 => "DYNAMIC_BROKER_CONFIG",
        3 => "DYNAMIC_DEFAULT_BROKER_CONFIG",
        4 => "STATIC_BROKER_CONFIG",
        5 => "DEFAULT_CONFIG",
        6 => "DYNAMIC_BROKER_LOGGER_CONFIG",
        7 => "DYNAMIC_CLIENT_METRICS_CONFIG",
        8 => "DYNAMIC_GROUP_CONFIG",
        _ => "UNKNOWN",
    }
}

/// Whether a value from there was set on the resource itself, or for all brokers.
fn is_set_there(resource: &ConfigResource, code: i8) -> bool {
    match resource {
        ConfigResource::Topic(_) => code == 1,
        ConfigResource::Broker(_) | ConfigResource::BrokerDefaults => matches!(code, 2 | 3),
        ConfigResource::ClientMetrics(_) => code == 7,
        ConfigResource::Group(_) => code == 8,
        // Log levels have no source of their own to tell apart.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_changed_in_one_way() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let args = ChangeArgs {
            set: words("a=1"),
            unset: words("b"),
            append: words("c=x,y"),
            subtract: words("d=z"),
        };
        let all = changes(&args).unwrap();
        assert_eq!(all["c"], ConfigChange::Append("x,y".to_owned()));
        assert_eq!(all["d"], ConfigChange::Subtract("z".to_owned()));
        assert_eq!(all.len(), 4);
        let twice = ChangeArgs {
            append: words("a=2"),
            ..args
        };
        assert!(matches!(changes(&twice), Err(Failure::Usage(why)) if why.contains("`a`")));
    }

    #[test]
    fn only_what_is_set_on_the_resource_is_its_own() {
        assert!(is_set_there(&ConfigResource::Topic("t".to_owned()), 1));
        assert!(!is_set_there(&ConfigResource::Topic("t".to_owned()), 4));
        assert!(is_set_there(&ConfigResource::Broker(1), 3));
        assert!(!is_set_there(&ConfigResource::Broker(1), 5));
        assert!(is_set_there(&ConfigResource::Group("g".to_owned()), 8));
    }
}
