"""kafka-python as producer, consumer, group member and administrator."""

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.structs import OffsetAndMetadata

from suite import CODECS, MIRRORED, PREFIX, READ, RUN, SOURCE, main, records, same, until

COUNT = 3000


def create(topic, partitions=3):
    client = KafkaAdminClient(bootstrap_servers=SOURCE)
    client.create_topics([NewTopic(topic, partitions, -1)])
    client.close()


def produce(topic, sent, **config):
    producer = KafkaProducer(bootstrap_servers=SOURCE, acks="all", linger_ms=5, **config)
    futures = [
        producer.send(topic, value, key, headers=headers, timestamp_ms=timestamp)
        for key, value, headers, timestamp in sent
    ]
    producer.flush(60)
    for future in futures:
        future.get(60)
    producer.close()


def consumer(bootstrap=READ, group=None, **config):
    return KafkaConsumer(
        bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
        metadata_max_age_ms=1000, session_timeout_ms=10000, **config,
    )


def take(member, count, seconds=60):
    """Polls `count` records."""
    found = []

    def more():
        for batch in member.poll(timeout_ms=500, max_records=count - len(found)).values():
            for r in batch:
                found.append((r.partition, r.offset, r.key, r.value, list(r.headers), r.timestamp))
        return len(found) >= count

    until(seconds, f"{count} records", more)
    return found


def whole(topic, sent):
    """Reads `topic` from the beginning where READ says, and compares it with what was sent."""
    member = consumer()
    parts = [TopicPartition(PREFIX + topic, p) for p in range(3)]
    until(60, f"{PREFIX}{topic} exists", lambda: PREFIX + topic in member.topics())
    member.assign(parts)
    member.seek_to_beginning(*parts)
    same(take(member, len(sent)), sent)
    member.close()


def every_codec():
    """kafka-python: five codecs, keys, headers, nulls and timestamps, there and back."""
    for codec in CODECS:
        topic, sent = f"python-{RUN}-{codec}", list(records(COUNT))
        create(topic)
        produce(topic, sent, compression_type=None if codec == "none" else codec, enable_idempotence=False)
        whole(topic, sent)


def idempotent():
    """kafka-python: an idempotent producer."""
    topic, sent = f"python-{RUN}-idempotent", list(records(COUNT))
    create(topic)
    produce(topic, sent, compression_type="zstd", enable_idempotence=True)
    whole(topic, sent)


def group_shares_and_resumes():
    """kafka-python: two members share the partitions, and a later one resumes at the commit."""
    topic = group = f"python-{RUN}-group"
    create(topic, 4)
    sent = list(records(1000))
    produce(topic, sent)
    first, second = consumer(SOURCE, group), consumer(SOURCE, group)

    def assigned(*members):
        for member in members:
            member.poll(timeout_ms=200, max_records=1)
        return [len(member.assignment()) for member in members]

    first.subscribe([topic])
    until(30, "the first member has all four", lambda: assigned(first) == [4])
    second.subscribe([topic])
    until(60, "each has two", lambda: assigned(first, second) == [2, 2])
    first.close()
    second.close()

    third = consumer(SOURCE, group)
    third.subscribe([topic])
    part = take(third, 400)
    third.commit({
        TopicPartition(topic, p): OffsetAndMetadata(1 + max(offset for q, offset, *_ in part if q == p), "here", -1)
        for p in {p for p, *_ in part}
    })
    third.close()
    fourth = consumer(SOURCE, group)
    fourth.subscribe([topic])
    same(part + take(fourth, 600), sent)
    fourth.close()


def administration():
    """kafka-python: topics, groups and offsets are told."""
    client = KafkaAdminClient(bootstrap_servers=SOURCE)
    topic = group = f"python-{RUN}-group"
    assert topic in client.list_topics()
    [described] = client.describe_topics([topic])
    assert len(described["partitions"]) == 4, described
    assert client.describe_cluster()["brokers"]
    offsets = client.list_group_offsets({group: None})[group]
    assert sum(o.offset for o in offsets.values()) == 400, offsets
    client.delete_topics([topic])
    until(20, "the topic is gone", lambda: topic not in client.list_topics())
    client.close()


if __name__ == "__main__":
    main([every_codec, idempotent, group_shares_and_resumes, administration])
