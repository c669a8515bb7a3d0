//! `demo --drill`.
use crate::cli::{DemoArgs, Failure};

/// Placeholder until the producer is there.
pub(super) fn run(_args: &DemoArgs) -> Result<u8, Failure> {
    Err(Failure::Failed(anyhow::anyhow!("not available yet")))
}
