//! What can be wrong with a configuration, and where: one message per mistake.

use std::fmt;

/// One mistake, with the place that it was written at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// `file:line:column`, the name of an environment variable, or a `--set` argument.
    pub(crate) origin: String,
    /// What is wrong and, where it can be said, what would be right.
    pub(crate) message: String,
}

impl Problem {
    /// A mistake at `origin`.
    pub(crate) fn new(origin: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            origin: origin.into(),
            message: message.into(),
        }
    }

    /// The line that it is on, if it is in a file.
    pub(crate) fn line(&self) -> usize {
        let mut parts = self.origin.rsplit(':');
        parts.nth(1).and_then(|line| line.parse().ok()).unwrap_or(0)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)
    }
}

/// Every mistake of a configuration at once; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
pub(crate) struct Problems(pub(crate) Vec<Problem>);

/// The candidate that `word` is most likely a slip of, if one is near enough to be worth saying.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_a_different_word_is_not() {
        assert_eq!(nearest("lissten", ["listen", "tls"]), Some("listen"));
        assert_eq!(nearest("bananas", ["listen", "tls"]), None);
    }
}
