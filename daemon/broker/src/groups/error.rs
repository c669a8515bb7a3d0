//! Why the coordinator refuses something. Which Kafka code stands for it is decided in `crate::errors`.

/// A refusal of the group coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// The member id is not one of this group's.
    #[error("the member is not known to the group")]
    UnknownMember,
    /// The request speaks of another generation than the current one.
    #[error("the generation is not the group's current one")]
    IllegalGeneration,
    /// The group is rebalancing; the member has to join again.
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    /// No protocol, or not the protocol type, that all members share.
    #[error("the protocols offered do not fit the group's")]
    InconsistentProtocol,
    /// Another member took over this static instance id.
    #[error("another member has taken over this group instance id")]
    FencedInstance,
    /// The member has to join again under the id it is given here (KIP-394).
    #[error("the member has to join again under the id it was given")]
    MemberIdRequired,
    /// The session timeout lies outside of what the daemon allows.
    #[error("the session timeout is out of bounds")]
    InvalidSessionTimeout,
    /// The group has as many members as it may have.
    #[error("the group is full")]
    GroupFull,
    /// The group id is empty where it may not be.
    #[error("the group id is not valid")]
    InvalidGroup,
    /// No group of that id.
    #[error("no such group")]
    GroupNotFound,
    /// The group still has members.
    #[error("the group is not empty")]
    NotEmpty,
    /// The group reads the topic whose positions were to be deleted.
    #[error("the group is subscribed to the topic")]
    SubscribedToTopic,
    /// The member's epoch is not the one that the coordinator knows: it has to join again.
    #[error("the member's epoch is not its current one; it has to join again")]
    FencedEpoch,
    /// The member's epoch is not its current one: it has to hear of it first.
    #[error("the member's epoch is not its current one")]
    StaleEpoch,
    /// Another member has this static instance id and has not left.
    #[error("another member has this group instance id")]
    UnreleasedInstance,
    /// No assignor of that name.
    #[error("no such assignor")]
    UnsupportedAssignor,
    /// A subscription that is not a regular expression.
    #[error("the regular expression is not valid")]
    InvalidRegex,
    /// A request that does not make sense by itself.
    #[error("the request is not valid")]
    InvalidRequest,
    /// A request in a version that cannot say what this group needs to know.
    #[error("the version of the request is too old for a group of the consumer protocol")]
    UnsupportedVersion,
    /// The metadata of a commit is too long.
    #[error("the metadata of the commit is too long")]
    MetadataTooLarge,
    /// This daemon does not lead the group's partition (any more).
    #[error("this daemon does not coordinate the group")]
    NotCoordinator,
    /// The group's partition is still being read.
    #[error("the coordinator is loading")]
    Loading,
    /// What was asked for could not be replicated, or the offsets topic cannot be used yet.
    #[error("the coordinator is not available")]
    Unavailable,
}
