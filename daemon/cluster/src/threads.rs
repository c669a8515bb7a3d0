//! Where work runs that is no task: threads and the blocking pool in a daemon, the one thread of a simulation there.
//!
//! A simulation repeats a run only if nothing depends on how the operating system schedules threads, or on its random
//! numbers. It says so once, for its thread, with [`simulate`]; a daemon never does.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinError;
use tradewind_wire::ids::NodeId;

thread_local! {
    static SIMULATION: RefCell<Option<Rc<Simulation>>> = const { RefCell::new(None) };
}

/// What a simulation decides in the operating system's place.
pub struct Simulation {
    /// Random numbers for Raft's election timeouts.
    pub random: Box<dyn Fn() -> u64>,
    /// How long the flush of a log that begins now takes on this daemon.
    pub flush_takes: Box<dyn Fn(NodeId) -> Duration>,
}

/// From now on daemons that are started on this thread start no threads of their own: everything runs in tasks of the
/// runtime that starts them, which must be single-threaded, and logs are not compacted.
pub fn simulate(simulation: Simulation) {
    SIMULATION.set(Some(Rc::new(simulation)));
}

fn simulation() -> Option<Rc<Simulation>> {
    SIMULATION.with_borrow(Clone::clone)
}

/// Whether this is the thread of a simulation.
pub(crate) fn are_simulated() -> bool {
    SIMULATION.with_borrow(Option::is_some)
}

/// Runs `job`, which may wait for the disk, where it holds up no task.
pub(crate) async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    if are_simulated() {
        return Ok(job());
    }
    tokio::task::spawn_blocking(job).await
}

/// Random bits for Raft.
pub(crate) fn random() -> u64 {
    simulation().map_or_else(rand::random, |simulation| (simulation.random)())
}

/// How long a flush is to take in a simulation, besides what it takes.
pub(crate) fn flush_takes(node: NodeId) -> Duration {
    simulation().map_or(Duration::ZERO, |simulation| (simulation.flush_takes)(node))
}
