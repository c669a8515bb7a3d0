//! What cells measured, and the ratios between systems.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::median;

/// Figures by cell, system and name, one a round.
#[derive(Default)]
pub(crate) struct Figures(BTreeMap<(String, &'static str, &'static str), Vec<f64>>);

impl Figures {
    /// One more round's.
    pub(crate) fn note(&mut self, cell: &str, system: &'static str, figure: &'static str, value: f64) {
        let key = (cell.to_owned(), system, figure);
        self.0.entry(key).or_default().push(value);
    }

    /// The median of the rounds; not a number if there is none.
    pub(crate) fn of(&self, cell: &str, system: &'static str, figure: &'static str) -> f64 {
        let values = self.0.get(&(cell.to_owned(), system, figure));
        median(values.into_iter().flatten().copied())
    }

    /// The first system's median by the other's.
    pub(crate) fn ratio(&self, cell: &str, figure: &'static str, of: [&'static str; 2]) -> f64 {
        let [one, other] = of.map(|system| self.of(cell, system, figure));
        one / other
    }

    /// Every figure with its median and its rounds.
    pub(crate) fn json(&self) -> Value {
        let one = |((cell, system, figure), values): (&(String, &'static str, &'static str), &Vec<f64>)| {
            let median = self.of(cell, system, figure);
            json!({ "cell": cell, "system": system, "figure": figure, "median": median, "rounds": values })
        };
        self.0.iter().map(one).collect()
    }
}
