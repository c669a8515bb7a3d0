//! The region epochs of what is shared with other clusters: numbers that only rise.
//!
//! Both directions between two clusters have one number, kept by the other cluster's name. So one side's may be above what
//! the other knows: that one was built anew, or flows both ways were failed over while neither heard of the other. A source
//! therefore tells its own with every question of its guard, and a failover begins above the highest that was told.

use tradewind_wire::failback::FailbackStep;
use tradewind_wire::flow::FlowSource;
use tradewind_wire::region::MAX_REGION_EPOCH;

use crate::command::{MetaError, Outcome};
use crate::image::Image;

/// Refuses what no cluster comes to by itself: ours rises with it, and must be able to rise further.
pub(super) fn bounded(region_epoch: u64) -> Result<(), MetaError> {
    if region_epoch > MAX_REGION_EPOCH {
        return Err(MetaError::Region(format!(
            "region epoch {region_epoch} is larger than any that a cluster comes to"
        )));
    }
    Ok(())
}

/// `source`, from which a flow comes, has told the region epoch that it has with this cluster.
pub(super) fn heard(image: &mut Image, source: &str, region_epoch: u64) -> Result<Outcome, MetaError> {
    bounded(region_epoch)?;
    let comes = image
        .flows
        .values()
        .any(|flow| flow.source == source && matches!(flow.spec.source, FlowSource::Mesh(_)));
    if !comes {
        return Err(MetaError::Region(format!("no flow comes from {source}")));
    }
    let highest = image.heard_epochs.entry(source.to_owned()).or_default();
    *highest = region_epoch.max(*highest);
    Ok(Outcome::Done)
}

/// A region epoch for the topics of flow `name` that is above all that is known of either side's.
pub(super) fn above_all(image: &Image, name: &str) -> u64 {
    let Some(flow) = image.flows.get(name) else {
        return 1;
    };
    let of = |known: Option<&u64>| known.map_or(1, |known| known.saturating_add(1));
    let own = of(image.regions.get(&flow.source));
    let heard = of(image.heard_epochs.get(&flow.source));
    // One that was not promoted has a number above the source's, too.
    let begun = flow.switchover.as_ref().map_or(0, |last| last.region_epoch);
    own.max(heard).max(begun)
}

/// What a failover at `peer` must be above for this side to give way to it: what both sides have known. A failover of this
/// side's own that `peer` has not confirmed is about other topics, and would keep both sides from giving way for ever, were
/// its number counted.
pub(super) fn floor(image: &Image, peer: &str) -> u64 {
    let telling = image.flows.values().find_map(|flow| {
        let failback = flow.failback.as_ref().filter(|_| flow.source == peer)?;
        (failback.step == FailbackStep::Telling).then_some(failback.floor?)
    });
    let own = image.regions.get(peer).copied();
    telling.or(own).unwrap_or(0)
}

/// Both sides know this region epoch.
pub(super) fn agree(image: &mut Image, peer: &str, region_epoch: u64) {
    for flow in image.flows.values_mut().filter(|flow| flow.source == peer) {
        if let Some(floor) = flow
            .failback
            .as_mut()
            .and_then(|failback| failback.floor.as_mut())
        {
            *floor = region_epoch.max(*floor);
        }
    }
    raise(image, peer, region_epoch);
}

/// The region epoch with `peer` is at least this.
pub(super) fn raise(image: &mut Image, peer: &str, region_epoch: u64) {
    let own = image.regions.entry(peer.to_owned()).or_default();
    *own = region_epoch.max(*own);
}
