//! Moves of replicas, step by step.

use super::*;
use crate::command::Move;

impl Log {
    /// A topic of one partition on these of four daemons.
    fn placed(replicas: &[NodeId]) -> Self {
        let mut log = Self::with(4);
        let mut create = CreateTopic::new("orders", TOPIC, 1, 3);
        create.assignment = Some(vec![replicas.to_vec()]);
        log.must(&Command::CreateTopic(create));
        log
    }

    fn reassign_with(&mut self, replicas: Option<&[NodeId]>, resize: bool) -> Result<(), MetaError> {
        let moves = vec![Move {
            topic: TOPIC,
            partition: 0,
            replicas: replicas.map(<[_]>::to_vec),
        }];
        match self.must(&Command::Reassign { moves, resize }) {
            Outcome::Reassigned(mut results) => results.remove(0),
            other => panic!("{other:?}"),
        }
    }

    fn reassign(&mut self, replicas: &[NodeId]) -> Result<(), MetaError> {
        self.reassign_with(Some(replicas), true)
    }

    fn cancel(&mut self) -> Result<(), MetaError> {
        self.reassign_with(None, true)
    }

    /// The leader proposes this set.
    fn grow_to(&mut self, isr: &[NodeId]) {
        let change = self.isr_change(isr);
        self.alter_isr(change).unwrap();
    }

    fn min_isr(&mut self, value: &str) {
        self.must(&Command::AlterConfigs {
            resource: ConfigResource::Topic(TOPIC),
            replace: false,
            changes: BTreeMap::from([(
                "min.insync.replicas".to_owned(),
                ConfigChange::Set(value.to_owned()),
            )]),
        });
    }
}

#[test]
fn replicas_are_added_first_and_dropped_when_the_new_ones_are_in_sync() {
    let mut log = Log::placed(&[1, 2]);
    let epoch = log.partition().leader_epoch;
    log.reassign(&[2, 3]).unwrap();
    let moving = log.partition().clone();
    assert_eq!(moving.replicas, [2, 3, 1]);
    assert_eq!((moving.adding(), moving.removing()), (vec![3], vec![1]));
    assert_eq!(
        (moving.leader, moving.leader_epoch),
        (Some(1), epoch),
        "nothing stops"
    );
    assert_eq!(moving.isr, [2, 1]);
    log.grow_to(&[1, 2, 3]);
    let moved = log.partition();
    assert_eq!(moved.replicas, [2, 3]);
    assert_eq!(moved.isr, [2, 3]);
    assert_eq!(moved.reassignment, None);
    assert_eq!((moved.leader, moved.leader_epoch), (Some(2), epoch + 1));
}

#[test]
fn a_drop_ends_the_epoch_even_if_the_leader_stays() {
    let mut log = Log::placed(&[1, 2]);
    let epoch = log.partition().leader_epoch;
    log.reassign(&[1, 3]).unwrap();
    log.grow_to(&[1, 2, 3]);
    assert_eq!(log.partition().leader, Some(1));
    assert_eq!(log.partition().leader_epoch, epoch + 1);
}

#[test]
fn a_replication_factor_grows_and_shrinks() {
    let mut log = Log::placed(&[1, 2]);
    let epoch = log.partition().leader_epoch;
    log.reassign(&[1, 2, 3]).unwrap();
    log.grow_to(&[1, 2, 3]);
    assert_eq!(log.partition().replicas, [1, 2, 3]);
    assert_eq!(log.partition().leader_epoch, epoch, "nothing was dropped");
    log.reassign(&[2]).unwrap();
    assert_eq!(
        log.partition().replicas,
        [2],
        "what needs no copying is done at once"
    );
    assert_eq!(log.partition().leader, Some(2));
    let refused = log.reassign_with(Some(&[2, 3]), false);
    assert!(matches!(refused, Err(MetaError::InvalidReplicationFactor(_))));
    assert_eq!(log.reassign_with(Some(&[3]), false), Ok(()));
}

#[test]
fn a_move_is_taken_back() {
    let mut log = Log::placed(&[1, 2]);
    assert_eq!(log.cancel(), Err(MetaError::NoReassignment));
    log.reassign(&[3, 4]).unwrap();
    log.grow_to(&[1, 2, 3]);
    assert_eq!(log.partition().isr, [3, 1, 2]);
    log.cancel().unwrap();
    let back = log.partition();
    assert_eq!((&back.replicas, &back.isr), (&vec![1, 2], &vec![1, 2]));
    assert_eq!((back.leader, &back.reassignment), (Some(1), &None));
    assert_eq!(log.cancel(), Err(MetaError::NoReassignment));
}

#[test]
fn a_move_is_not_taken_back_to_replicas_that_could_not_lead() {
    let mut log = Log::placed(&[1]);
    log.min_isr("1");
    log.reassign(&[3, 4]).unwrap();
    log.grow_to(&[1, 3]);
    log.fence(1);
    assert_eq!(log.partition().isr, [3]);
    assert!(matches!(log.cancel(), Err(MetaError::InvalidAssignment(_))));
    assert_eq!(log.partition().leader, Some(3));
}

#[test]
fn a_move_may_be_changed_on_its_way() {
    let mut log = Log::placed(&[1, 2]);
    log.reassign(&[3, 2]).unwrap();
    log.grow_to(&[1, 2, 3]);
    assert_eq!(log.partition().replicas, [3, 2], "that one is done");
    log.reassign(&[1, 4]).unwrap();
    log.reassign(&[4, 3]).unwrap();
    let moving = log.partition();
    assert_eq!(moving.replicas, [4, 3, 1, 2]);
    assert_eq!((moving.adding(), moving.removing()), (vec![4], vec![1, 2]));
    log.reassign(&[3, 2]).unwrap();
    assert_eq!(log.partition().reassignment, None, "back to where it was");
    assert_eq!(log.partition().replicas, [3, 2]);
}

#[test]
fn the_old_replicas_serve_until_enough_new_ones_do() {
    let mut log = Log::placed(&[1, 2]);
    log.min_isr("2");
    log.reassign(&[3, 4]).unwrap();
    log.shrink_to(&[1]);
    log.grow_to(&[1, 3]);
    assert_eq!(log.partition().replicas, [3, 4, 1, 2], "4 is missing");
    log.grow_to(&[1, 3, 4]);
    assert_eq!(log.partition().replicas, [3, 4]);

    let mut log = Log::placed(&[1, 2]);
    log.min_isr("2");
    log.fence(2);
    log.reassign(&[2, 3]).unwrap();
    log.grow_to(&[1, 3]);
    assert_eq!(
        log.partition().replicas,
        [2, 3, 1],
        "acks=all would be refused without 1"
    );
    log.unfence(2);
    log.grow_to(&[1, 2, 3]);
    assert_eq!(log.partition().replicas, [2, 3]);
}

#[test]
fn more_replicas_are_not_asked_for_than_there_were_or_will_be() {
    let mut log = Log::placed(&[1]);
    log.min_isr("2");
    let min = |log: &Log| {
        let topic = log.image.topic_by_id(TOPIC).unwrap();
        log.image.min_isr(topic, log.partition(), Some(1))
    };
    log.reassign(&[2]).unwrap();
    assert_eq!(min(&log), 1, "a move does not stop writes");
    log.grow_to(&[1, 2]);
    log.reassign(&[2, 1]).unwrap();
    assert_eq!(min(&log), 1);
    log.grow_to(&[1, 2]);
    assert_eq!(min(&log), 2);
}

#[test]
fn targets_must_make_sense() {
    let mut log = Log::placed(&[1, 2]);
    for bad in [&[][..], &[1, 1], &[1, 9]] {
        assert!(
            matches!(log.reassign(bad), Err(MetaError::InvalidAssignment(_))),
            "{bad:?}"
        );
    }
    assert_eq!(log.reassign(&[1, 2]), Ok(()), "it is there already");
    assert_eq!(log.partition().reassignment, None);
    log.reassign(&[2, 1]).unwrap();
    assert_eq!(log.partition().replicas, [2, 1], "another preferred leader");
    assert_eq!(log.partition().leader, Some(1), "who is elected on its own");
}
