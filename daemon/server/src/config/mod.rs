//! Configuration: from files, environment and arguments to checked settings, or to every mistake at once.
//!
//! Three steps. Each source is read alone against the schema, so that a mistake is named by file, line and column
//! ([`source`]). The sources are layered, later ones over earlier ones, each value remembering its origin ([`layers`]).
//! The result is turned into types that cannot hold a wrong value ([`settings`]). Nothing here binds or creates
//! anything; certificate files are only looked for.

mod layers;
mod problem;
mod schema;
mod settings;
mod show;
mod source;
mod template;
mod units;

#[cfg(test)]
mod tests;

pub(crate) use layers::{Loaded, Overrides, load};
pub(crate) use problem::Problems;
pub(crate) use settings::{RemoteCluster, Settings};
pub(crate) use show::{Shown, show};
pub(crate) use template::template;
