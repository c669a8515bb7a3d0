//! Reads one source of configuration (a file, an environment variable, a `--set` argument) against the schema.
//!
//! What comes out is a `config::Value` tree in which every value remembers where it was written, ready to be layered,
//! and the list of everything that is wrong with it. Values keep the text that was written; units are checked here and
//! read again in [`super::settings`].

use std::path::Path;

use config::{Map, Value, ValueKind};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Problem, nearest};
use super::schema::{Key, NOT_YET, ROOT, Setting, Shape, TOPIC_DEFAULTS};
use super::units;

/// Reads the text of a file.
pub(crate) fn file(path: &Path, text: &str, problems: &mut Vec<Problem>) -> Map<String, Value> {
    let places = Places::File { path, text };
    let base = path.parent().unwrap_or_else(|| Path::new(""));
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let origin = places.at(error.span().map_or(0, |span| span.start));
        problems.push(Problem::new(origin, error.message().replace('\n', ", ")));
    }
    let mut walk = Walk {
        places,
        base,
        problems,
    };
    walk.table(ROOT, table.get_ref(), "")
}

/// Reads one override: `path` are the key's parts, `text` its value as TOML or, where that is text, as it stands.
pub(crate) fn single(
    origin: &str,
    path: &[String],
    text: &str,
    problems: &mut Vec<Problem>,
) -> Map<String, Value> {
    let Some((shape, path)) = resolve(path) else {
        problems.push(Problem::new(origin, format!("unknown key `{}`", path.join("."))));
        return Map::new();
    };
    let plain = !text.trim_start().starts_with(['[', '{', '"', '\'']);
    let quoted = match shape {
        Shape::Integer(..) | Shape::Flag => text.to_owned(),
        Shape::Addresses | Shape::Patterns if plain => {
            let parts: Vec<String> = text.split(',').map(|part| quote(part.trim())).collect();
            format!("[{}]", parts.join(","))
        }
        _ if plain => quote(text),
        _ => text.to_owned(),
    };
    let (value, errors) = DeValue::parse_recoverable(&quoted);
    if let Some(error) = errors.first() {
        problems.push(Problem::new(origin, format!("`{text}`: {}", error.message())));
        return Map::new();
    }
    let mut walk = Walk {
        places: Places::Whole(origin),
        base: Path::new(""),
        problems,
    };
    let mut value = walk.value(shape, &value, &path.join("."));
    for key in path[1..].iter().rev() {
        value = Value::new(None, Map::from([(key.clone(), value)]));
    }
    Map::from([(path[0].clone(), value)])
}

/// Follows the parts of a key through the schema. Parts below `topic_defaults` are one Kafka name, in which an
/// environment variable may write `_` for `.`.
fn resolve(path: &[String]) -> Option<(Shape, Vec<String>)> {
    let mut shape = Shape::Table(ROOT);
    for (i, part) in path.iter().enumerate() {
        shape = match shape {
            Shape::Table(keys) => keys.iter().find(|key| key.name == part)?.shape,
            Shape::Named(keys) => Shape::Table(keys),
            Shape::TopicDefaults => {
                let name = path[i..].join(".");
                let known = TOPIC_DEFAULTS
                    .iter()
                    .map(|(known, ..)| *known)
                    .find(|known| *known == name || known.replace('.', "_") == name)?;
                return Some((Shape::Text, vec![path[0].clone(), known.to_owned()]));
            }
            _ => return None,
        };
    }
    Some((shape, path.to_vec()))
}

fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Turns a position in a source into the words that name it.
enum Places<'a> {
    File { path: &'a Path, text: &'a str },
    Whole(&'a str),
}

impl Places<'_> {
    fn at(&self, offset: usize) -> String {
        match self {
            Self::Whole(origin) => (*origin).to_owned(),
            Self::File { path, text } => {
                let before = text.get(..offset).unwrap_or(text);
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
                format!("{}:{line}:{column}", path.display())
            }
        }
    }
}

struct Walk<'a> {
    places: Places<'a>,
    base: &'a Path,
    problems: &'a mut Vec<Problem>,
}

impl Walk<'_> {
    fn wrong(&mut self, offset: usize, message: impl Into<String>) {
        self.problems.push(Problem::new(self.places.at(offset), message));
    }

    fn table(&mut self, keys: &[Key], table: &DeTable<'_>, under: &str) -> Map<String, Value> {
        let mut out = Map::new();
        for (name, value) in table {
            let path = join(under, name.get_ref());
            match keys.iter().find(|key| key.name == name.get_ref().as_ref()) {
                Some(key) => {
                    out.insert(key.name.to_owned(), self.value(key.shape, value, &path));
                }
                None => self.unknown(name, &path, keys.iter().map(|key| key.name)),
            }
        }
        out
    }

    fn unknown<'k>(
        &mut self,
        name: &Spanned<std::borrow::Cow<'_, str>>,
        path: &str,
        known: impl Iterator<Item = &'k str>,
    ) {
        let message = if NOT_YET.contains(&name.get_ref().as_ref()) {
            format!("`{path}` is not available yet")
        } else {
            match nearest(name.get_ref(), known) {
                Some(near) => format!("unknown key `{path}`; did you mean `{near}`?"),
                None => format!("unknown key `{path}`"),
            }
        };
        self.wrong(name.span().start, message);
    }

    /// The value with its origin; a value of the wrong shape becomes nil, and is among the problems.
    fn value(&mut self, shape: Shape, value: &Spanned<DeValue<'_>>, path: &str) -> Value {
        let at = value.span().start;
        let kind = self.kind(shape, value.get_ref(), path).unwrap_or_else(|message| {
            self.wrong(at, format!("`{path}` {message}"));
            ValueKind::Nil
        });
        Value::new(Some(&self.places.at(at)), kind)
    }

    fn kind(&mut self, shape: Shape, value: &DeValue<'_>, path: &str) -> Result<ValueKind, String> {
        Ok(match (shape, value) {
            (Shape::Table(keys), DeValue::Table(table)) => self.table(keys, table, path).into(),
            (Shape::Named(keys), DeValue::Table(table)) => {
                let named = table.iter().map(|(name, value)| {
                    let path = join(path, name.get_ref());
                    (
                        name.get_ref().to_string(),
                        self.value(Shape::Table(keys), value, &path),
                    )
                });
                named.collect::<Map<_, _>>().into()
            }
            (Shape::TopicDefaults, DeValue::Table(table)) => self.topic_defaults(table, path).into(),
            (Shape::Tables(_) | Shape::Addresses | Shape::Patterns, DeValue::Array(items)) => {
                let item = match shape {
                    Shape::Tables(keys) => Shape::Table(keys),
                    Shape::Addresses => Shape::Address,
                    _ => Shape::Text,
                };
                let items = items.iter().enumerate();
                ValueKind::Array(
                    items
                        .map(|(i, value)| self.value(item, value, &format!("{path}[{i}]")))
                        .collect(),
                )
            }
            (Shape::Integer(least, most), DeValue::Integer(number)) => {
                let number = i64::from_str_radix(number.as_str(), number.radix());
                let number = number.ok().filter(|number| (least..=most).contains(number));
                number
                    .ok_or_else(|| format!("must be between {least} and {most}"))?
                    .into()
            }
            (Shape::Flag, DeValue::Boolean(flag)) => (*flag).into(),
            (_, DeValue::String(text)) => self.text(shape, text)?.into(),
            (Shape::Duration, DeValue::Integer(number)) => {
                return Err(format!("has no unit: write for example \"{number}s\""));
            }
            (Shape::Size, DeValue::Integer(number)) => {
                return Err(format!("has no unit: write for example \"{number}MiB\""));
            }
            (shape, other) => return Err(format!("must be {}, not {}", expected(shape), found(other))),
        })
    }

    fn text(&self, shape: Shape, text: &str) -> Result<String, String> {
        match shape {
            _ if text.is_empty() => return Err("must not be empty".into()),
            Shape::Text => {}
            Shape::Word(words) => word(words, text).map_err(colon)?,
            Shape::Duration => units::duration(text).map(drop).map_err(colon)?,
            Shape::Size => units::size(text).map(drop).map_err(colon)?,
            Shape::Address => units::host_port(text).map(drop).map_err(colon)?,
            Shape::Path => return Ok(self.base.join(text).to_string_lossy().into_owned()),
            shape => return Err(format!("must be {}, not text", expected(shape))),
        }
        Ok(text.to_owned())
    }

    fn topic_defaults(&mut self, table: &DeTable<'_>, path: &str) -> Map<String, Value> {
        let mut out = Map::new();
        for (name, value) in table {
            if let DeValue::Table(_) = value.get_ref() {
                let written = format!("\"{name}...\"", name = name.get_ref());
                self.wrong(
                    name.span().start,
                    format!("`{path}`: a name with dots stands in quotes: {written}"),
                );
                continue;
            }
            let path = format!("{path}.\"{}\"", name.get_ref());
            let Some((known, setting, _)) = TOPIC_DEFAULTS.iter().find(|(known, ..)| known == name.get_ref())
            else {
                self.unknown(name, &path, TOPIC_DEFAULTS.iter().map(|(known, ..)| *known));
                continue;
            };
            let text = match value.get_ref() {
                DeValue::String(text) => text.to_string(),
                DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
                DeValue::Boolean(flag) => flag.to_string(),
                other => {
                    let found = found(other);
                    self.wrong(
                        value.span().start,
                        format!("`{path}` must be a number or text, not {found}"),
                    );
                    continue;
                }
            };
            match kafka_setting(*setting, &text) {
                Ok(text) => {
                    let origin = self.places.at(value.span().start);
                    out.insert((*known).to_owned(), Value::new(Some(&origin), text));
                }
                Err(message) => self.wrong(value.span().start, format!("`{path}`: {message}")),
            }
        }
        out
    }
}

/// The text that Kafka would have for a setting, or what is wrong with it.
pub(crate) fn kafka_setting(setting: Setting, text: &str) -> Result<String, String> {
    let number = text.parse::<i64>();
    match setting {
        Setting::Integer(least) => match number {
            Ok(number) if number >= least => Ok(number.to_string()),
            _ => Err(format!("`{text}` is not a whole number of at least {least}")),
        },
        Setting::Millis | Setting::Bytes => match (number, setting) {
            (Ok(number), _) if number >= -1 => Ok(number.to_string()),
            (Ok(number), _) => Err(format!("`{number}` is below -1")),
            (Err(_), Setting::Millis) => Ok(units::duration(text)?.as_millis().to_string()),
            (Err(_), _) => Ok(units::size(text)?.to_string()),
        },
        Setting::Ratio => match text.parse::<f64>() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(text.to_owned()),
            _ => Err(format!("`{text}` is not a number between 0 and 1")),
        },
        Setting::Flag => word(&["true", "false"], text).map(|()| text.to_owned()),
        Setting::Word(words) => word(words, text).map(|()| text.to_owned()),
    }
}

fn word(words: &[&str], text: &str) -> Result<(), String> {
    if words.contains(&text) {
        return Ok(());
    }
    let near = nearest(text, words.iter().copied());
    let near = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    Err(format!("`{text}` is not one of {}{near}", words.join(", ")))
}

/// A message that is a sentence of its own, to stand behind a key.
fn colon(message: String) -> String {
    format!("is wrong: {message}")
}

fn join(under: &str, name: &str) -> String {
    if under.is_empty() {
        name.to_owned()
    } else {
        format!("{under}.{name}")
    }
}

fn expected(shape: Shape) -> &'static str {
    match shape {
        Shape::Table(_) | Shape::Named(_) | Shape::TopicDefaults => "a table",
        Shape::Tables(_) => "a list of tables",
        Shape::Text | Shape::Path => "text",
        Shape::Word(_) => "a word",
        Shape::Integer(..) => "a whole number",
        Shape::Flag => "true or false",
        Shape::Duration => "a duration such as \"30s\"",
        Shape::Size => "a size such as \"64MiB\"",
        Shape::Address => "an address such as \"127.0.0.1:9092\"",
        Shape::Addresses => "a list of addresses",
        Shape::Patterns => "a list of regular expressions",
    }
}

fn found(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
