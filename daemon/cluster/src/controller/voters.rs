//! Who votes in the Raft group: one of up to two daemons, three of up to four, five of more. Pure.

use std::collections::BTreeSet;

use tradewind_wire::ids::NodeId;

/// How many of so many daemons vote.
pub(crate) fn count(members: usize) -> usize {
    match members {
        0..=2 => 1,
        3..=4 => 3,
        _ => 5,
    }
}

/// Who is to vote, of those who do by now and those who could. The leader stays; whoever is not fit goes first. Nobody is
/// added unless that makes the full number: an even group loses its majority no later than the odd one below it.
pub(crate) fn choose(
    wanted: usize,
    voters: &BTreeSet<NodeId>,
    fit: &BTreeSet<NodeId>,
    leader: NodeId,
) -> BTreeSet<NodeId> {
    let mut chosen = voters.clone();
    while chosen.len() > wanted {
        let others = || chosen.iter().copied().filter(|node| *node != leader);
        let unfit = others().rfind(|node| !fit.contains(node));
        let Some(goes) = unfit.or_else(|| others().next_back()) else {
            break;
        };
        chosen.remove(&goes);
    }
    let missing = wanted.saturating_sub(chosen.len());
    let more: Vec<NodeId> = fit.difference(&chosen).copied().take(missing).collect();
    if more.len() == missing {
        chosen.extend(more);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(wanted: usize, voters: &[NodeId], fit: &[NodeId]) -> Vec<NodeId> {
        let set = |nodes: &[NodeId]| nodes.iter().copied().collect();
        choose(wanted, &set(voters), &set(fit), 2).into_iter().collect()
    }

    #[test]
    fn a_group_grows_when_it_can_reach_its_number() {
        assert_eq!(chosen(3, &[2], &[1, 2]), [2]);
        assert_eq!(chosen(3, &[2], &[1, 2, 4]), [1, 2, 4]);
        assert_eq!(chosen(5, &[1, 2, 3], &[1, 2, 3, 4]), [1, 2, 3]);
        assert_eq!(chosen(5, &[1, 2, 3], &[1, 2, 3, 4, 5, 6]), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_voter_that_is_gone_is_replaced_by_whoever_is_fit() {
        assert_eq!(chosen(3, &[2, 3], &[2, 3, 4]), [2, 3, 4]);
        assert_eq!(chosen(3, &[2, 3], &[2, 3]), [2, 3]);
    }

    #[test]
    fn a_group_shrinks_by_those_who_are_not_fit_and_never_by_its_leader() {
        assert_eq!(chosen(3, &[1, 2, 3, 4, 5], &[2, 3, 4, 5]), [2, 3, 4]);
        assert_eq!(chosen(1, &[1, 2, 3], &[1, 2, 3]), [2]);
        assert_eq!(chosen(1, &[2], &[]), [2]);
    }

    #[test]
    fn a_full_group_stays_as_it_is_even_with_somebody_away() {
        assert_eq!(chosen(3, &[1, 2, 3], &[2, 4]), [1, 2, 3]);
    }
}
