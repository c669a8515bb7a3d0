//! Groups: listing, describing and deleting them.

use std::collections::BTreeMap;

use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::describe_groups::DescribedGroup;
use tradewind_wire::messages::{DeleteGroupsRequest, DescribeGroupsRequest, ListGroupsRequest};

use super::refusal;
use crate::client::Client;
use crate::error::ClientError;
use crate::net::pool::Lane;

/// A group as ListGroups tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupListing {
    /// The name.
    pub group: String,
    /// `consumer`, or whatever the members call it; empty for one that only keeps offsets.
    pub protocol_type: String,
    /// The state; empty from old brokers.
    pub state: String,
}

impl Client {
    /// The groups of all brokers. An error of one broker is an error of the whole, so that no group is missed unseen.
    pub async fn list_groups(&self) -> Result<Vec<GroupListing>, ClientError> {
        self.retrying(|| async move {
            let metadata = self.metadata(&[]).await?;
            let mut groups = BTreeMap::new();
            for node in metadata.brokers.keys() {
                let answer = self.send(*node, ListGroupsRequest::default()).await?;
                refusal(format!("groups of broker {node}"), answer.error_code, None)?;
                for group in answer.groups {
                    let listing = GroupListing {
                        group: group.group_id.to_string(),
                        protocol_type: group.protocol_type.to_string(),
                        state: group.group_state.to_string(),
                    };
                    groups.insert(listing.group.clone(), listing);
                }
            }
            Ok(groups.into_values().collect())
        })
        .await
    }

    /// Describes groups, each asked of its coordinator. A group that does not exist has the state `Dead`.
    pub async fn describe_groups(&self, groups: &[&str]) -> Result<Vec<DescribedGroup>, ClientError> {
        let limit = self.attempt_timeout();
        let mut described = Vec::with_capacity(groups.len());
        for group in groups {
            let build = |_| DescribeGroupsRequest {
                groups: vec![(*group).into()],
                ..Default::default()
            };
            let code = |answer: &tradewind_wire::messages::DescribeGroupsResponse| {
                let code = answer.groups.first().map_or(0, |group| group.error_code);
                ErrorCode::from_code(code)
            };
            let answer = self
                .at_coordinator(group, Lane::Short, limit, build, code)
                .await?;
            let what = format!("describe group {group}");
            let mut found = answer
                .groups
                .into_iter()
                .next()
                .ok_or_else(|| ClientError::Missing { what: what.clone() })?;
            if found.error_code == ErrorCode::GroupIdNotFound.code() {
                found.group_state = "Dead".into();
            } else {
                refusal(what, found.error_code, found.error_message.as_deref())?;
            }
            described.push(found);
        }
        Ok(described)
    }

    /// Deletes a group that has no members, with its offsets.
    pub async fn delete_group(&self, group: &str) -> Result<(), ClientError> {
        let limit = self.attempt_timeout();
        let build = |_| DeleteGroupsRequest {
            groups_names: vec![group.into()],
        };
        let code = |answer: &tradewind_wire::messages::DeleteGroupsResponse| {
            ErrorCode::from_code(answer.results.first().map_or(0, |result| result.error_code))
        };
        let answer = self
            .at_coordinator(group, Lane::Short, limit, build, code)
            .await?;
        refusal(format!("delete group {group}"), code(&answer).code(), None)
    }
}
