//! `config init`: a commented file with every key, ready to be edited.

use super::schema::{Key, ROOT, Shape, TOPIC_DEFAULTS};

/// The text of the template: required keys with an example, the others commented out with their defaults.
pub(crate) fn template() -> String {
    let mut out = String::from(
        "# Tradewind. Keys without `#` are required; the others are shown with their defaults.\n\
         # Paths start at this file. Check it with: tradewind config check --config FILE\n",
    );
    for key in ROOT {
        out.push_str(&format!("\n# {}\n", key.doc));
        section(key, key.name, !key.required, &mut out);
    }
    out
}

fn section(key: &Key, path: &str, commented: bool, out: &mut String) {
    let mark = if commented { "# " } else { "" };
    match key.shape {
        Shape::Table(keys) => {
            // A table that holds nothing but lists of tables needs no heading of its own values first.
            out.push_str(&format!("{mark}[{path}]\n"));
            keys_of(keys, path, commented, out);
        }
        Shape::Named(keys) => {
            out.push_str(&format!("{mark}[{path}.west]\n"));
            keys_of(keys, path, commented, out);
        }
        Shape::Tables(keys) => {
            out.push_str(&format!("{mark}[[{path}]]\n"));
            keys_of(keys, path, commented, out);
        }
        Shape::TopicDefaults => {
            out.push_str(&format!("{mark}[{path}]\n"));
            for (name, _, default) in TOPIC_DEFAULTS {
                out.push_str(&format!("# \"{name}\" = {default:?}\n"));
            }
        }
        _ => {}
    }
}

fn keys_of(keys: &[Key], path: &str, commented: bool, out: &mut String) {
    let nested = |key: &&Key| matches!(key.shape, Shape::Tables(_)) && example(path, key).is_none();
    for key in keys.iter().filter(|key| !nested(key)) {
        let mark = if commented || !key.required { "# " } else { "" };
        let value = example(path, key).unwrap_or_else(|| default(key));
        out.push_str(&format!("{mark}{} = {value}    # {}\n", key.name, key.doc));
    }
    for key in keys.iter().filter(nested) {
        out.push_str(&format!("\n# {}\n", key.doc));
        section(key, &format!("{path}.{}", key.name), commented, out);
    }
}

/// What a required key shows, and an optional one whose default is not a value that could be written.
fn example(path: &str, key: &Key) -> Option<String> {
    let text = match (path, key.name) {
        ("cluster", "name") => "\"east\"",
        ("cluster", "nodes") => "[ { id = 1, mesh = \"127.0.0.1:7100\" } ]",
        ("node", "id") => "1",
        ("node", "data_dir") => "\"data\"",
        ("node", "rack") => "\"east-a\"",
        ("mesh", "listen" | "advertise") => "\"127.0.0.1:7100\"",
        ("mesh", "tls") => "{ ca = \"ca.pem\", cert = \"node.pem\", key = \"node.key\" }",
        ("kafka.listener", "listen" | "advertise") => "\"127.0.0.1:9092\"",
        ("kafka.listener", "name") => "\"kafka\"",
        ("clusters", "mesh") => "[\"10.9.1.1:7100\"]",
        ("clusters", "kafka") => "[\"kafka-1:9092\"]",
        ("clusters", "tls") => "{ ca = \"west-ca.pem\" }",
        ("mirror", "from") => "\"west\"",
        _ => return None,
    };
    Some(text.to_owned())
}

fn default(key: &Key) -> String {
    match key.shape {
        Shape::Integer(..) | Shape::Flag | Shape::Patterns | Shape::Addresses => key.default.to_owned(),
        _ => format!("{:?}", key.default),
    }
}
