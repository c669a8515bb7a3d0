//! Copying logs between daemons: the push protocol of [`tradewind_wire::mesh`] over one stream per pair and lane.
//!
//! - [`leader`]: the serving side, for followers of this cluster and mirrors of others;
//! - [`follower`]: the reading side;
//! - [`signal`]: which sessions of a stream have something to say. No task, timer or channel per partition.

pub(crate) mod follower;
pub(crate) mod leader;
pub(crate) mod signal;
