"""confluent-kafka (librdkafka) as producer, consumer, group member and administrator."""

import functools
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from suite import CODECS, MIRRORED, PREFIX, READ, RUN, SOURCE, main, records, same, until

COUNT = 5000


@functools.cache
def admin(bootstrap=SOURCE):
    return AdminClient({"bootstrap.servers": bootstrap})


def create(topic, partitions=3, **config):
    for future in admin().create_topics([NewTopic(topic, partitions, config=config)], operation_timeout=30).values():
        future.result(30)


def produce(topic, sent, bootstrap=SOURCE, **config):
    lost = []
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 5, **config})
    for key, value, headers, timestamp in sent:
        while True:
            try:
                producer.produce(
                    topic, value, key, headers=headers, timestamp=timestamp,
                    on_delivery=lambda error, _: lost.append(error) if error else None,
                )
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    assert producer.flush(60) == 0, "not all delivered in 60 s"
    assert not lost, f"{len(lost)} not delivered, first: {lost[0]}"


def consumer(group, bootstrap=READ, **config):
    return Consumer({
        "bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest", "check.crcs": True,
        "enable.auto.commit": False, "session.timeout.ms": 10000, "topic.metadata.refresh.interval.ms": 1000, **config,
    })


def plain(message):
    return (
        message.partition(), message.offset(), message.key(), message.value(), message.headers(), message.timestamp()[1],
    )


def take(member, count, seconds=60):
    """Polls `count` records."""
    found, deadline = [], time.monotonic() + seconds
    while len(found) < count and time.monotonic() < deadline:
        message = member.poll(0.5)
        if message is None:
            continue
        if message.error():
            if message.error().code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                continue
            raise KafkaException(message.error())
        found.append(plain(message))
    assert len(found) == count, f"read {len(found)} of {count} in {seconds} s"
    return found


def ends(bootstrap, topic, partitions=3):
    member = consumer("ends", bootstrap)
    try:
        return [member.get_watermark_offsets(TopicPartition(topic, p), 2)[1] for p in range(partitions)]
    except KafkaException:
        return None
    finally:
        member.close()


def mirrored(topic):
    if MIRRORED:
        goal = ends(SOURCE, topic)
        until(60, f"{PREFIX}{topic} has the ends {goal}", lambda: ends(READ, PREFIX + topic) == goal)


def every_codec():
    """confluent-kafka: five codecs, keys, headers, nulls and timestamps, there and back."""
    for codec in CODECS:
        topic = f"confluent-{RUN}-{codec}"
        create(topic)
        sent = list(records(COUNT))
        produce(topic, sent, **{"compression.type": codec})
        mirrored(topic)
        member = consumer("unused")
        member.assign([TopicPartition(PREFIX + topic, p, OFFSET_BEGINNING) for p in range(3)])
        same(take(member, COUNT), sent)
        assert member.poll(0.5) is None, "more was read than sent"
        member.close()


def idempotent():
    """confluent-kafka: an idempotent producer with five requests in flight."""
    topic = f"confluent-{RUN}-idempotent"
    create(topic)
    sent = list(records(COUNT))
    produce(topic, sent, **{"enable.idempotence": True, "compression.type": "lz4", "batch.num.messages": 50})
    mirrored(topic)
    member = consumer(f"confluent-{RUN}-idempotent")
    member.subscribe([PREFIX + topic])
    same(take(member, COUNT), sent)
    member.close()


def group_shares_and_resumes():
    """confluent-kafka: two members share the partitions, one leaves, a later one resumes at the commit."""
    topic, group = f"confluent-{RUN}-group", f"confluent-{RUN}-group"
    create(topic, 4)
    sent = list(records(2000))
    produce(topic, sent)
    first, second = consumer(group, SOURCE), consumer(group, SOURCE)
    first.subscribe([topic])

    def assigned(*members):
        for member in members:
            member.poll(0.05)
        return [len(member.assignment()) for member in members]

    until(30, "the first member has all four", lambda: assigned(first) == [4])
    second.subscribe([topic])
    until(40, "each has two", lambda: assigned(first, second) == [2, 2])
    first.close()
    second.close()

    third = consumer(group, SOURCE)
    third.subscribe([topic])
    part = take(third, 700)
    third.commit(asynchronous=False)
    third.close()
    fourth = consumer(group, SOURCE)
    fourth.subscribe([topic])
    rest = take(fourth, 2000 - 700)
    fourth.close()
    same(part + rest, sent)


def offsets_by_time():
    """confluent-kafka: offsets for a time, for the beginning and for the end."""
    topic = f"confluent-{RUN}-lz4"
    mirrored(topic)
    member = consumer("unused")
    member.assign([TopicPartition(PREFIX + topic, 0, OFFSET_BEGINNING)])
    found = take(member, 100)
    _, offset, *_, timestamp = found[50]
    [by_time] = member.offsets_for_times([TopicPartition(PREFIX + topic, 0, timestamp)], 10)
    assert by_time.offset == offset, f"asked for {timestamp}, got {by_time.offset}, not {offset}"
    low, high = member.get_watermark_offsets(TopicPartition(PREFIX + topic, 0), 10)
    assert low == 0 and high > 100
    member.close()
    asked = {TopicPartition(PREFIX + topic, 0): OffsetSpec.latest()}
    [latest] = [f.result(10) for f in admin(READ).list_offsets(asked).values()]
    assert latest.offset == high


def administration():
    """confluent-kafka: topics, partitions, configs and groups administered."""
    topic, client = f"confluent-{RUN}-admin", admin()
    create(topic, 2, **{"retention.ms": "3600000"})
    [again] = client.create_topics([NewTopic(topic, 2)]).values()
    try:
        again.result(10)
        raise AssertionError("a topic was created twice")
    except KafkaException as error:
        assert error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS, error
    [future] = client.create_partitions([NewPartitions(topic, 5)]).values()
    future.result(10)
    until(10, "five partitions", lambda: len(client.list_topics(topic, 10).topics[topic].partitions) == 5)
    resource = ConfigResource(ResourceType.TOPIC, topic)
    [future] = client.describe_configs([resource]).values()
    assert future.result(10)["retention.ms"].value == "3600000"
    change = ConfigEntry("retention.ms", "7200000", incremental_operation=AlterConfigOpType.SET)
    [future] = client.incremental_alter_configs(
        [ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[change])]
    ).values()
    future.result(10)

    def altered():
        [answer] = client.describe_configs([resource]).values()
        return answer.result(10)["retention.ms"].value == "7200000"

    until(10, "the config is altered", altered)
    assert client.describe_cluster().result(10).nodes
    group = f"confluent-{RUN}-idempotent"
    here = admin(READ)
    listed = here.list_consumer_groups().result(10)
    assert group in [g.group_id for g in listed.valid], listed
    [future] = here.describe_consumer_groups([group]).values()
    assert future.result(10).state.name == "EMPTY", future.result(10).state
    [future] = here.delete_consumer_groups([group]).values()
    future.result(10)
    [future] = client.delete_topics([topic], operation_timeout=10).values()
    future.result(30)
    until(10, "the topic is gone", lambda: topic not in client.list_topics(timeout=10).topics)


def errors():
    """confluent-kafka: an oversized record and an unknown topic are told, not lost."""
    topic = f"confluent-{RUN}-limits"
    create(topic, 1, **{"max.message.bytes": "20000"})
    codes = []
    producer = Producer({"bootstrap.servers": SOURCE, "message.max.bytes": 2000000})
    producer.produce(topic, bytes(100000), on_delivery=lambda error, _: codes.append(error.code() if error else None))
    producer.flush(30)
    assert codes == [KafkaError.MSG_SIZE_TOO_LARGE], codes
    member = consumer(f"confluent-{RUN}-nowhere", **{"allow.auto.create.topics": False})
    member.subscribe([f"confluent-{RUN}-nowhere"])

    def unknown():
        message = member.poll(0.5)
        return message and message.error() and message.error().code() == KafkaError.UNKNOWN_TOPIC_OR_PART

    until(20, "an unknown topic is told", unknown)
    member.close()


if __name__ == "__main__":
    main([every_codec, idempotent, group_shares_and_resumes, offsets_by_time, administration, errors])
