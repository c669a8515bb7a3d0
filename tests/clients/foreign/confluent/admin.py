"""confluent-kafka as an administrator."""

import warnings

from confluent_kafka import (
    OFFSET_END,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    ConsumerGroupType,
    ElectionType,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from common import admin, consumer, done, fill, fresh, known, producer, refused, settle, take, topic
from suite import both_protocols, told, until

warnings.simplefilter("ignore", DeprecationWarning)


def config_of(name, kind=ResourceType.TOPIC):
    [entries] = done(admin().describe_configs([ConfigResource(kind, name)])).values()
    return entries


def incremental(name, kind=ResourceType.TOPIC, **changes):
    """The future of a change: `key=(operation, value)`, with `_` for the dots of a key."""
    entries = [
        ConfigEntry(key.replace("_", "."), value, incremental_operation=operation)
        for key, (operation, value) in changes.items()
    ]
    [future] = admin().incremental_alter_configs([ConfigResource(kind, name, incremental_configs=entries)]).values()
    return future


def empty_group(*offsets):
    """A group that committed these offsets of a topic's partitions and has no members."""
    name, group = topic(len(offsets)), fresh("group")
    fill(name, 30)
    member = consumer(group)
    member.commit(offsets=[TopicPartition(name, p, o) for p, o in enumerate(offsets)], asynchronous=False)
    member.close()
    return name, group


def topics_are_created_as_asked():
    name = topic(4, **{"retention.ms": "1234567", "cleanup.policy": "compact"})
    found = config_of(name)
    assert (found["retention.ms"].value, found["cleanup.policy"].value) == ("1234567", "compact")
    assert known(name) == 4


def topics_are_created_with_assigned_replicas():
    name = fresh("placed")
    done(admin().create_topics([NewTopic(name, 2, replica_assignment=[[1, 2], [3, 1]])], operation_timeout=30))
    until(20, "metadata has it", lambda: known(name) == 2)
    parts = admin().list_topics(name, 10).topics[name].partitions
    assert [parts[p].replicas for p in (0, 1)] == [[1, 2], [3, 1]], parts


def only_validating_creates_nothing():
    name = fresh("validated")
    done(admin().create_topics([NewTopic(name, 1)], validate_only=True))
    assert known(name) == 0


def topics_are_refused_with_the_right_error():
    name = topic(1)

    def code(*args, **options):
        [future] = admin().create_topics([NewTopic(*args, **options)]).values()
        return refused(future)

    assert code(name, 1) == KafkaError.TOPIC_ALREADY_EXISTS
    assert code("a/b", 1) == KafkaError.TOPIC_EXCEPTION
    assert code(fresh("t"), 1, replication_factor=9) == KafkaError.INVALID_REPLICATION_FACTOR
    assert code(fresh("t"), 1, config={"no.such.thing": "1"}) == KafkaError.INVALID_CONFIG
    assert code(fresh("t"), 1, config={"retention.ms": "often"}) == KafkaError.INVALID_CONFIG
    assert code(fresh("t"), 1, replica_assignment=[[1, 77]]) == KafkaError.INVALID_REPLICA_ASSIGNMENT
    [future] = admin().delete_topics([fresh("nothing")]).values()
    assert refused(future) == KafkaError.UNKNOWN_TOPIC_OR_PART


def topics_are_deleted():
    name = topic(2)
    done(admin().delete_topics([name], operation_timeout=30))
    until(20, "it is gone", lambda: name not in admin().list_topics(timeout=10).topics)


def partitions_are_added():
    name = topic(1)
    done(admin().create_partitions([NewPartitions(name, 3)]))
    until(20, "three partitions", lambda: known(name) == 3)
    done(admin().create_partitions([NewPartitions(name, 4, [[2, 3, 1]])]))
    until(20, "four partitions", lambda: known(name) == 4)
    assert admin().list_topics(name, 10).topics[name].partitions[3].replicas == [2, 3, 1]
    [future] = admin().create_partitions([NewPartitions(name, 2)]).values()
    assert refused(future) == KafkaError.INVALID_PARTITIONS
    done(admin().create_partitions([NewPartitions(name, 9)], validate_only=True))
    assert known(name) == 4


def configs_tell_where_they_come_from():
    name = topic(1, **{"retention.ms": "3600000"})
    found = config_of(name)
    entry = found["retention.ms"]
    assert (entry.value, entry.is_default, ConfigSource(entry.source)) == (
        "3600000", False, ConfigSource.DYNAMIC_TOPIC_CONFIG,
    ), vars(entry)
    assert found["segment.ms"].is_default and ConfigSource(found["segment.ms"].source) == ConfigSource.DEFAULT_CONFIG
    assert entry.synonyms, "no synonyms"
    for key in ("cleanup.policy", "compression.type", "max.message.bytes", "min.insync.replicas", "delete.retention.ms",
                "unclean.leader.election.enable", "message.timestamp.type", "segment.bytes", "retention.bytes"):
        assert key in found, key


def configs_of_brokers_are_told():
    found = config_of("1", ResourceType.BROKER)
    assert found["log.retention.ms"].value or found["log.retention.hours"].value
    [future] = admin().describe_configs([ConfigResource(ResourceType.TOPIC, fresh("nothing"))]).values()
    assert refused(future) == KafkaError.UNKNOWN_TOPIC_OR_PART


def configs_are_altered_bit_by_bit():
    name = topic(1, **{"retention.ms": "3600000"})
    incremental(
        name, retention_ms=(AlterConfigOpType.SET, "7200000"), cleanup_policy=(AlterConfigOpType.APPEND, "compact")
    ).result(30)
    until(20, "it is altered", lambda: config_of(name)["retention.ms"].value == "7200000")
    assert set(config_of(name)["cleanup.policy"].value.split(",")) == {"delete", "compact"}
    incremental(
        name, retention_ms=(AlterConfigOpType.DELETE, None), cleanup_policy=(AlterConfigOpType.SUBTRACT, "delete")
    ).result(30)
    until(20, "it is the default", lambda: config_of(name)["retention.ms"].is_default)
    assert config_of(name)["cleanup.policy"].value == "compact"
    assert refused(incremental(name, retention_ms=(AlterConfigOpType.SET, "often"))) == KafkaError.INVALID_CONFIG
    assert refused(incremental(name, no_such=(AlterConfigOpType.SET, "1"))) == KafkaError.INVALID_CONFIG


def configs_are_replaced_as_a_whole():
    name = topic(1, **{"retention.ms": "3600000", "max.message.bytes": "50000"})
    done(admin().alter_configs([ConfigResource(ResourceType.TOPIC, name, set_config={"retention.ms": "99000"})]))
    until(20, "it is altered", lambda: config_of(name)["retention.ms"].value == "99000")
    assert config_of(name)["max.message.bytes"].is_default


def the_cluster_is_described():
    found = admin().describe_cluster(include_authorized_operations=False).result(30)
    assert found.cluster_id and found.controller and len(found.nodes) == len(admin().list_topics(timeout=10).brokers)


def topics_are_described():
    name, other = topic(2), fresh("nothing")
    futures = admin().describe_topics(TopicCollection([name, other]))
    found = futures[name].result(30)
    assert (found.name, found.is_internal, [p.id for p in found.partitions]) == (name, False, [0, 1])
    assert found.topic_id and all(p.leader and p.replicas and p.isr for p in found.partitions)
    assert refused(futures[other]) == KafkaError.UNKNOWN_TOPIC_OR_PART


@both_protocols
def groups_are_listed_and_described(protocol):
    name, group = topic(2), fresh("group")
    member = consumer(group, protocol, **{"client.id": "the member"})
    member.subscribe([name])
    settle([member], [2])
    kind = ConsumerGroupType.CLASSIC if protocol == "classic" else ConsumerGroupType.CONSUMER

    def stable():
        member.poll(0)
        return admin().describe_consumer_groups([group])[group].result(30).state == ConsumerGroupState.STABLE

    until(30, "the group is stable", stable)
    listed = admin().list_consumer_groups(states={ConsumerGroupState.STABLE}, types={kind}).result(30)
    [entry] = [g for g in listed.valid if g.group_id == group]
    assert (entry.state, entry.type) == (ConsumerGroupState.STABLE, kind), vars(entry)
    found = admin().describe_consumer_groups([group])[group].result(30)
    assert (found.group_id, found.type, found.coordinator.port > 0) == (group, kind, True)
    [one] = found.members
    assert (one.client_id, one.member_id) == ("the member", member.memberid()), vars(one)
    assert sorted(p.partition for p in one.assignment.topic_partitions) == [0, 1]
    [future] = admin().delete_consumer_groups([group]).values()
    assert refused(future) == KafkaError.NON_EMPTY_GROUP
    member.close()
    until(20, "it is empty", lambda: (
        admin().describe_consumer_groups([group])[group].result(30).state == ConsumerGroupState.EMPTY
    ))


def groups_are_deleted():
    _, group = empty_group(3)
    done(admin().delete_consumer_groups([group]))
    assert group not in [g.group_id for g in admin().list_consumer_groups().result(30).valid]
    [future] = admin().delete_consumer_groups([fresh("nothing")]).values()
    assert refused(future) == KafkaError.GROUP_ID_NOT_FOUND


def offsets_of_groups_are_told_and_altered():
    name, group = empty_group(3, 4)
    [found] = done(admin().list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])).values()
    assert {p.partition: p.offset for p in found.topic_partitions} == {0: 3, 1: 4}
    change = ConsumerGroupTopicPartitions(group, [TopicPartition(name, 0, 1)])
    done(admin().alter_consumer_group_offsets([change]))
    asked = ConsumerGroupTopicPartitions(group, [TopicPartition(name, 0), TopicPartition(name, 1)])
    [found] = done(admin().list_consumer_group_offsets([asked])).values()
    assert {p.partition: p.offset for p in found.topic_partitions} == {0: 1, 1: 4}


@both_protocols
def offsets_of_a_group_with_members_are_not_altered(protocol):
    name, group = topic(1), fresh("group")
    member = consumer(group, protocol)
    member.subscribe([name])
    settle([member], [1])
    change = ConsumerGroupTopicPartitions(group, [TopicPartition(name, 0, 1)])
    [future] = admin().alter_consumer_group_offsets([change]).values()
    try:
        found = future.result(30)
        codes = [p.error.code() for p in found.topic_partitions if p.error]
    except Exception as error:
        codes = [error.args[0].code()]
    assert codes == [KafkaError.UNKNOWN_MEMBER_ID], codes
    member.close()


def offsets_are_listed_by_every_rule():
    name, client = topic(1), producer()
    for moment in (1000, 5000, 3000):
        client.produce(name, b"", timestamp=1_700_000_000_000 + moment)
        client.flush(10)

    def asked(spec, **options):
        [found] = done(admin().list_offsets({TopicPartition(name, 0): spec}, **options)).values()
        return found.offset

    assert asked(OffsetSpec.earliest()) == 0
    assert asked(OffsetSpec.latest()) == 3
    assert asked(OffsetSpec.latest(), isolation_level=IsolationLevel.READ_COMMITTED) == 3
    assert asked(OffsetSpec.max_timestamp()) == 1
    assert asked(OffsetSpec.for_timestamp(1_700_000_001_500)) == 1
    assert asked(OffsetSpec.for_timestamp(1_700_000_009_000)) == -1


def records_are_deleted():
    name = topic(2)
    fill(name, 20, 0)
    fill(name, 20, 1)
    found = done(admin().delete_records([TopicPartition(name, 0, 7), TopicPartition(name, 1, OFFSET_END)]))
    assert [found[TopicPartition(name, p)].low_watermark for p in (0, 1)] == [7, 20], found
    member = consumer()
    assert member.get_watermark_offsets(TopicPartition(name, 0), 10) == (7, 20)
    member.assign([TopicPartition(name, 0, 0)])
    assert take(member, 13)[0].offset() == 7
    member.close()
    [future] = admin().delete_records([TopicPartition(name, 0, 1000)]).values()
    assert refused(future) == KafkaError.OFFSET_OUT_OF_RANGE


def leaders_are_elected():
    def code(error):
        """What the client answers with is the error itself or, by its version, an exception that holds it."""
        return None if error is None else (error.args[0] if isinstance(error, KafkaException) else error).code()

    name = topic(2)
    part, other = TopicPartition(name, 0), TopicPartition(fresh("nothing"), 0)
    found = admin().elect_leaders(ElectionType.PREFERRED, [part, other]).result(30)
    assert code(found[part]) in (None, KafkaError.ELECTION_NOT_NEEDED), found
    assert code(found[other]) == KafkaError.UNKNOWN_TOPIC_OR_PART, found
    everywhere = admin().elect_leaders(ElectionType.PREFERRED).result(30)
    assert {code(error) for error in everywhere.values()} <= {None, KafkaError.ELECTION_NOT_NEEDED}, everywhere


if __name__ == "__main__":
    told("admin", [
        topics_are_created_as_asked, topics_are_created_with_assigned_replicas, only_validating_creates_nothing,
        topics_are_refused_with_the_right_error, topics_are_deleted, partitions_are_added,
        configs_tell_where_they_come_from, configs_of_brokers_are_told, configs_are_altered_bit_by_bit,
        configs_are_replaced_as_a_whole, the_cluster_is_described, topics_are_described, groups_are_listed_and_described,
        groups_are_deleted, offsets_of_groups_are_told_and_altered, offsets_of_a_group_with_members_are_not_altered,
        offsets_are_listed_by_every_rule, records_are_deleted, leaders_are_elected,
    ])
