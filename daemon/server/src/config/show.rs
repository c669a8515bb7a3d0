//! `config show`: every value in force and where it comes from.

use config::{Value, ValueKind};
use serde::Serialize;

use super::schema::{Key, ROOT, Shape, TOPIC_DEFAULTS};

/// One value in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Shown {
    /// The key, as `--set` takes it.
    pub(crate) key: String,
    /// The value, as written.
    pub(crate) value: String,
    /// `file:line:column`, an environment variable, a `--set` argument, or `default`.
    pub(crate) origin: String,
}

/// The values of `written` and the defaults of the keys that are not.
pub(crate) fn show(written: &Value) -> Vec<Shown> {
    let mut out = Vec::new();
    table(ROOT, Some(written), "", &mut out);
    out
}

fn table(keys: &[Key], written: Option<&Value>, under: &str, out: &mut Vec<Shown>) {
    for key in keys {
        let path = if under.is_empty() {
            key.name.to_owned()
        } else {
            format!("{under}.{}", key.name)
        };
        let value = child(written, key.name);
        match key.shape {
            Shape::Table(keys) => {
                if value.is_some() || under.is_empty() {
                    table(keys, value, &path, out);
                }
            }
            Shape::Named(keys) => {
                for (name, value) in entries(value) {
                    table(keys, Some(value), &format!("{path}.{name}"), out);
                }
            }
            Shape::Tables(keys) => {
                if let Some(ValueKind::Array(items)) = value.map(|value| &value.kind) {
                    for (i, item) in items.iter().enumerate() {
                        table(keys, Some(item), &format!("{path}[{i}]"), out);
                    }
                }
            }
            Shape::TopicDefaults => {
                for (name, _, default) in TOPIC_DEFAULTS {
                    leaf(format!("{path}.{name}"), child(value, name), default, out);
                }
            }
            _ => leaf(path, value, key.default, out),
        }
    }
}

fn leaf(key: String, value: Option<&Value>, default: &str, out: &mut Vec<Shown>) {
    match value {
        Some(value) => {
            let origin = value.origin().unwrap_or("").to_owned();
            out.push(Shown {
                key,
                value: text(value),
                origin,
            });
        }
        None if !default.is_empty() => {
            out.push(Shown {
                key,
                value: default.to_owned(),
                origin: "default".to_owned(),
            });
        }
        None => {}
    }
}

fn text(value: &Value) -> String {
    match &value.kind {
        ValueKind::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| format!("{:?}", text(item))).collect();
            format!("[{}]", items.join(", "))
        }
        kind => kind.to_string(),
    }
}

fn child<'a>(value: Option<&'a Value>, name: &str) -> Option<&'a Value> {
    match value.map(|value| &value.kind) {
        Some(ValueKind::Table(table)) => table.get(name),
        _ => None,
    }
}

fn entries(value: Option<&Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = match value.map(|value| &value.kind) {
        Some(ValueKind::Table(table)) => table.iter().collect(),
        _ => Vec::new(),
    };
    entries.sort_by_key(|(name, _)| *name);
    entries
}
