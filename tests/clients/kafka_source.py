"""Apache Kafka as the source of two flows, one for each naming: topics, their growth and settings, a group's positions.

Environment: SOURCE (a real Kafka), TARGET (the folder with the programs).
"""

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import ConfigResource, NewPartitions, ResourceType

from confluent import RUN, SOURCE, admin, consumer, create, ends, produce, take
from mesh import Mesh
from suite import CODECS, main, records, same, until

# (bootstrap of a cluster that mirrors SOURCE, what stands before a mirror's name there)
MIRRORS = []


def fill(topic, sent, **config):
    """Sends in order. Without idempotence that takes one request in flight: a broker of Apache Kafka may refuse a partition
    that it has told us of a moment ago, and what is sent again then comes after what was under way."""
    if not config.get("enable.idempotence"):
        config["max.in.flight.requests.per.connection"] = 1
    produce(topic, sent, **config)


def mirrored(topic, partitions=3):
    goal = ends(SOURCE, topic, partitions)
    for west, prefix in MIRRORS:
        name = prefix + topic
        until(90, f"{name} has the ends {goal}", lambda: ends(west, name, partitions) == goal)


def read(bootstrap, topic, count, partitions=3):
    member = consumer("unused", bootstrap)
    member.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
    found = take(member, count)
    member.close()
    return found


def whole(topic, sent, partitions=3):
    """Asserts that each mirror has what was sent, at the offsets of the source."""
    original = sorted(read(SOURCE, topic, len(sent), partitions), key=lambda record: record[:2])
    for west, prefix in MIRRORS:
        found = read(west, prefix + topic, len(sent), partitions)
        same(found, sent)
        assert sorted(found, key=lambda record: record[:2]) == original, f"{prefix}{topic} is not what the source has"


def topics():
    """Kafka as source: topics of every codec arrive whole, in both namings."""
    for codec in CODECS:
        topic, sent = f"source-{RUN}-{codec}", list(records(2000))
        create(topic)
        fill(topic, sent, **{"compression.type": codec, "enable.idempotence": codec == "lz4"})
        mirrored(topic)
        whole(topic, sent)


def growth():
    """Kafka as source: new partitions and settings follow, in both namings."""
    topic = f"source-{RUN}-grows"
    create(topic, 2, **{"retention.ms": "3600000"})
    [future] = admin().create_partitions([NewPartitions(topic, 4)]).values()
    future.result(30)
    sent = list(records(1000))

    def partitions():
        return len(admin().list_topics(topic, 10).topics[topic].partitions) == 4

    until(30, "four partitions", partitions)
    fill(topic, sent)
    mirrored(topic, 4)
    whole(topic, sent, 4)
    for west, prefix in MIRRORS:
        resource = ConfigResource(ResourceType.TOPIC, prefix + topic)
        [future] = admin(west).describe_configs([resource]).values()
        assert future.result(30)["retention.ms"].value == "3600000"


def groups():
    """Kafka as source: a group's positions arrive, and it carries on in the mirror, in both namings."""
    topic = group = f"source-{RUN}-group"
    sent = list(records(2000))
    create(topic)
    fill(topic, sent)
    first = consumer(group, SOURCE)
    first.subscribe([topic])
    part = take(first, 700)
    first.commit(asynchronous=False)
    places = [TopicPartition(topic, p) for p in range(3)]
    committed = {p.partition: p.offset for p in first.committed(places, 10)}
    first.close()
    mirrored(topic)

    def arrived(west, name):
        there = Consumer({"bootstrap.servers": west, "group.id": group})
        try:
            found = there.committed([TopicPartition(name, p) for p in range(3)], 10)
            return {p.partition: p.offset for p in found} == committed
        except KafkaException:
            return False
        finally:
            there.close()

    for west, prefix in MIRRORS:
        name = prefix + topic
        until(60, f"positions {committed} of {name}", lambda: arrived(west, name))
        second = consumer(group, west)
        second.subscribe([name])
        rest = take(second, 2000 - 700)
        second.close()
        same(part + rest, sent)


if __name__ == "__main__":
    with Mesh("--source-kafka", SOURCE) as prefixed, Mesh("--source-kafka", SOURCE, "--naming", "identity") as identical:
        MIRRORS += [(prefixed["west"], "east."), (identical["west"], "")]
        main([topics, growth, groups])
