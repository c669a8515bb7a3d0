//! What stands on a command line of the suites' programs: pairs of `--name` and a value.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// The pairs that nobody has taken yet.
#[derive(Debug)]
pub struct Options(BTreeMap<String, String>);

impl Options {
    /// Reads the pairs. Of a name that is said twice the last value counts.
    pub fn read(arguments: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut pairs = BTreeMap::new();
        let mut rest = arguments.into_iter();
        while let Some(name) = rest.next() {
            let value = rest.next().with_context(|| format!("{name} needs a value"))?;
            pairs.insert(name, value);
        }
        Ok(Self(pairs))
    }

    /// The value of `name`, if it was said.
    pub fn take<T: FromStr<Err: Display>>(&mut self, name: &str) -> Result<Option<T>> {
        let parse = |value: String| {
            let parsed = value.parse();
            parsed.map_err(|error: T::Err| anyhow::anyhow!("{name} {value}: {error:#}"))
        };
        self.0.remove(name).map(parse).transpose()
    }

    /// The values of `name`, between commas, if it was said.
    pub fn take_list<T: FromStr<Err: Display>>(&mut self, name: &str) -> Result<Option<Vec<T>>> {
        let parse = |value: String| {
            let one = |text: &str| {
                let parsed = text.parse();
                parsed.map_err(|error: T::Err| anyhow::anyhow!("{name} {text}: {error:#}"))
            };
            value.split(',').map(one).collect()
        };
        self.0.remove(name).map(parse).transpose()
    }

    /// Refuses what nobody took; `usage` says what there is.
    pub fn end(self, usage: &str) -> Result<()> {
        if let Some(name) = self.0.keys().next() {
            bail!("unknown option {name}; {usage}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Options> {
        Options::read(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn what_is_said_is_taken_and_what_is_left_is_refused() {
        let mut options = read("--kills 7 --systems a,b --json x").unwrap();
        assert_eq!(options.take::<u64>("--kills").unwrap(), Some(7));
        assert_eq!(options.take::<u64>("--rounds").unwrap(), None);
        let systems = options.take_list::<String>("--systems").unwrap();
        assert_eq!(systems, Some(vec!["a".to_owned(), "b".to_owned()]));
        let told = options.end("there is --kills").unwrap_err().to_string();
        assert_eq!(told, "unknown option --json; there is --kills");
    }

    #[test]
    fn a_value_that_is_missing_or_no_number_is_named() {
        let told = read("--kills").unwrap_err().to_string();
        assert_eq!(told, "--kills needs a value");
        let told = read("--kills many").unwrap().take::<u64>("--kills").unwrap_err();
        assert!(told.to_string().starts_with("--kills many: "), "{told}");
    }
}
