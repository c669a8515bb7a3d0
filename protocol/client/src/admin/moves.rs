//! Where replicas are and who leads: reassignments (KIP-455) and elections (KIP-460).

use std::collections::BTreeMap;

use tradewind_wire::error::ErrorCode;
use tradewind_wire::ids::NodeId;
use tradewind_wire::messages::alter_partition_reassignments::{ReassignablePartition, ReassignableTopic};
use tradewind_wire::messages::elect_leaders::TopicPartitions;
use tradewind_wire::messages::{
    AlterPartitionReassignmentsRequest, ElectLeadersRequest, ListPartitionReassignmentsRequest,
};

use super::{Outcomes, refusal};
use crate::client::Client;
use crate::consumer::assignor::TopicPartition;
use crate::error::ClientError;

/// A move of replicas that is not done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reassignment {
    /// All brokers that have a replica, those to come and those to go included.
    pub replicas: Vec<NodeId>,
    /// The brokers to come.
    pub adding: Vec<NodeId>,
    /// The brokers to go.
    pub removing: Vec<NodeId>,
}

impl Reassignment {
    /// The brokers that have a replica when it is done, the preferred leader first.
    pub fn target(&self) -> Vec<NodeId> {
        let stays = |broker: &NodeId| !self.removing.contains(broker);
        self.replicas.iter().copied().filter(stays).collect()
    }
}

/// Who may be elected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Election {
    /// The preferred replica, if it is in sync.
    Preferred,
    /// Any replica, even one that lacks records: they are lost.
    Unclean,
}

impl Client {
    /// Moves partitions to these brokers, the preferred leader first; `None` takes a pending move back. The moves
    /// themselves go on after the answer.
    pub async fn alter_reassignments(
        &self,
        moves: &BTreeMap<TopicPartition, Option<Vec<NodeId>>>,
    ) -> Result<Outcomes, ClientError> {
        let mut topics: BTreeMap<&str, Vec<ReassignablePartition>> = BTreeMap::new();
        for ((topic, partition), replicas) in moves {
            topics.entry(topic).or_default().push(ReassignablePartition {
                partition_index: *partition,
                replicas: replicas.clone(),
            });
        }
        let topic = |(name, partitions): (&str, _)| ReassignableTopic {
            name: name.into(),
            partitions,
        };
        let request = AlterPartitionReassignmentsRequest {
            timeout_ms: self.timeout_ms(),
            topics: topics.into_iter().map(topic).collect(),
            ..Default::default()
        };
        let answer = self
            .at_controller(|_| request.clone(), |answer| vec![answer.error_code])
            .await?;
        refusal(
            "move replicas".to_owned(),
            answer.error_code,
            answer.error_message.as_deref(),
        )?;
        let mut outcomes = Outcomes::new();
        for topic in answer.responses {
            for one in topic.partitions {
                let what = format!("move {}-{}", topic.name, one.partition_index);
                let outcome = refusal(what, one.error_code, one.error_message.as_deref());
                outcomes.insert((topic.name.to_string(), one.partition_index), outcome);
            }
        }
        Ok(outcomes)
    }

    /// The moves that are not done yet.
    pub async fn list_reassignments(&self) -> Result<BTreeMap<TopicPartition, Reassignment>, ClientError> {
        let request = ListPartitionReassignmentsRequest {
            timeout_ms: self.timeout_ms(),
            topics: None,
        };
        let answer = self
            .at_controller(|_| request.clone(), |answer| vec![answer.error_code])
            .await?;
        refusal(
            "list moves".to_owned(),
            answer.error_code,
            answer.error_message.as_deref(),
        )?;
        let mut moves = BTreeMap::new();
        for topic in answer.topics {
            for one in topic.partitions {
                let pending = Reassignment {
                    replicas: one.replicas,
                    adding: one.adding_replicas,
                    removing: one.removing_replicas,
                };
                moves.insert((topic.name.to_string(), one.partition_index), pending);
            }
        }
        Ok(moves)
    }

    /// Elects leaders for these partitions, or for all (`None`). A partition whose leader is the right one already has
    /// the error `ELECTION_NOT_NEEDED`, or is not in the result if all were asked for.
    pub async fn elect_leaders(
        &self,
        election: Election,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<Outcomes, ClientError> {
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in partitions.unwrap_or_default() {
            topics.entry(topic).or_default().push(*partition);
        }
        let topic = |(name, partitions): (&str, _)| TopicPartitions {
            topic: name.into(),
            partitions,
        };
        let request = ElectLeadersRequest {
            election_type: match election {
                Election::Preferred => 0,
                Election::Unclean => 1,
            },
            topic_partitions: partitions.map(|_| topics.into_iter().map(topic).collect()),
            timeout_ms: self.timeout_ms(),
        };
        let answer = self
            .at_controller(|_| request.clone(), |answer| vec![answer.error_code])
            .await?;
        refusal("elect leaders".to_owned(), answer.error_code, None)?;
        let mut outcomes = Outcomes::new();
        for topic in answer.replica_election_results {
            for one in topic.partition_result {
                let what = format!("elect a leader of {}-{}", topic.topic, one.partition_id);
                let outcome = refusal(what, one.error_code, one.error_message.as_deref());
                outcomes.insert((topic.topic.to_string(), one.partition_id), outcome);
            }
        }
        // Asked for all, old brokers name those as well that have nothing to elect.
        if partitions.is_none() {
            let needless = |outcome: &Result<(), ClientError>| matches!(outcome, Err(error) if error.code() == Some(ErrorCode::ElectionNotNeeded));
            outcomes.retain(|_, outcome| !needless(outcome));
        }
        Ok(outcomes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_ends_where_its_removals_are_gone() {
        let pending = Reassignment {
            replicas: vec![4, 5, 1, 2],
            adding: vec![4, 5],
            removing: vec![1],
        };
        assert_eq!(pending.target(), [4, 5, 2]);
    }
}
