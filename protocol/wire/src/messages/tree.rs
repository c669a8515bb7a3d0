//! What a derived `Debug` text says, as a tree: for comparing values of types that know nothing of each other.

use std::collections::BTreeMap;
use std::fmt::Debug;

use crate::ids::TopicId;

/// A value, without what is spelled differently on either side.
///
/// Newtypes and `Some` are seen through. Null, an empty list, an empty string and no bytes are all [`Tree::Nothing`]:
/// they can be told apart by their encoding.
#[derive(Debug, PartialEq)]
pub(super) enum Tree {
    Nothing,
    Atom(String),
    List(Vec<Self>),
    Structure(String, BTreeMap<String, Self>),
}

impl Tree {
    pub(super) fn of(value: &impl Debug) -> Self {
        let text = format!("{value:?}");
        let mut parser = Parser { left: &text };
        let tree = parser.value();
        assert_eq!(parser.left, "", "the whole text was read");
        tree
    }

    /// Whether the other has all that this one has; it may have fields more, of versions unknown here.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::List(ours), Self::List(theirs)) => {
                ours.len() == theirs.len()
                    && ours
                        .iter()
                        .zip(theirs)
                        .all(|(ours, theirs)| ours.is_within(theirs))
            }
            (Self::Structure(our_name, ours), Self::Structure(their_name, theirs)) => {
                let has = |(name, ours): (&String, &Self)| {
                    theirs.get(name).is_some_and(|theirs| ours.is_within(theirs))
                };
                our_name == their_name && ours.iter().all(has)
            }
            _ => self == other,
        }
    }
}

struct Parser<'a> {
    left: &'a str,
}

impl Parser<'_> {
    fn value(&mut self) -> Tree {
        if self.left.starts_with('"') || self.left.starts_with("b\"") {
            return self.quoted();
        }
        if self.eat("[") {
            return list(self.until("]"));
        }
        let end = self
            .left
            .find(|c: char| !c.is_alphanumeric() && c != '-' && c != '_')
            .unwrap_or(self.left.len());
        let (word, left) = self.left.split_at(end);
        self.left = left;
        if self.eat("(") {
            return sole(self.until(")"), word);
        }
        if self.eat(" { ") {
            return self.structure(word);
        }
        match word {
            "None" => Tree::Nothing,
            _ => Tree::Atom(uuid(word).unwrap_or_else(|| word.to_owned())),
        }
    }

    fn quoted(&mut self) -> Tree {
        self.eat("b");
        let mut escaped = false;
        let closing = self.left[1..].find(|c: char| {
            let closes = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        });
        let (text, left) = self.left.split_at(closing.unwrap() + 2);
        self.left = left;
        if text == "\"\"" {
            Tree::Nothing
        } else {
            Tree::Atom(text.to_owned())
        }
    }

    fn until(&mut self, close: &str) -> Vec<Tree> {
        let mut values = Vec::new();
        while !self.eat(close) {
            values.push(self.value());
            self.eat(", ");
        }
        values
    }

    fn structure(&mut self, name: &str) -> Tree {
        let mut fields = BTreeMap::new();
        while !self.eat(" }") {
            let (field, left) = self.left.split_once(": ").unwrap();
            self.left = left;
            if field == "unknown_tagged_fields" {
                assert!(self.eat("{}"), "none was put in");
            } else {
                let value = self.value();
                fields.insert(field.to_owned(), value);
            }
            self.eat(", ");
        }
        Tree::Structure(name.to_owned(), fields)
    }

    fn eat(&mut self, token: &str) -> bool {
        let rest = self.left.strip_prefix(token);
        self.left = rest.unwrap_or(self.left);
        rest.is_some()
    }
}

fn list(values: Vec<Tree>) -> Tree {
    if values.is_empty() {
        Tree::Nothing
    } else {
        Tree::List(values)
    }
}

/// What a newtype holds. Records are a list of at most one piece here.
fn sole(mut values: Vec<Tree>, name: &str) -> Tree {
    assert_eq!(values.len(), 1, "{name} is not a newtype");
    match values.remove(0) {
        Tree::List(mut pieces) if name == "Records" => pieces.remove(0),
        value => value,
    }
}

/// The text that Kafka has for a UUID, if this is the text that everybody else has.
fn uuid(word: &str) -> Option<String> {
    if word.len() != 36 || word.matches('-').count() != 4 {
        return None;
    }
    let bits = u128::from_str_radix(&word.replace('-', ""), 16).ok()?;
    Some(TopicId(bits.to_be_bytes()).to_string())
}

#[test]
fn a_debug_text_is_read_back() {
    #[derive(Debug)]
    #[allow(dead_code)]
    struct Outer {
        text: &'static str,
        list: Vec<Option<i32>>,
        none: Option<Vec<u8>>,
    }
    let tree = Tree::of(&Outer {
        text: "a\\\"b, ",
        list: vec![Some(-1), None],
        none: Some(vec![]),
    });
    let fields = BTreeMap::from([
        ("text".to_owned(), Tree::Atom("\"a\\\\\\\"b, \"".to_owned())),
        (
            "list".to_owned(),
            Tree::List(vec![Tree::Atom("-1".to_owned()), Tree::Nothing]),
        ),
        ("none".to_owned(), Tree::Nothing),
    ]);
    assert_eq!(tree, Tree::Structure("Outer".to_owned(), fields));
}
