"""Apache Kafka as the source of a flow: topics, their growth and settings, and a group's positions.

Environment: SOURCE (a real Kafka), TARGET (the folder with the programs).
"""

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import ConfigResource, NewPartitions, ResourceType

from confluent import RUN, SOURCE, admin, consumer, create, ends, produce, take
from mesh import Mesh
from suite import CODECS, main, records, same, until

MESH = None


def west():
    return MESH["west"]


def mirrored(topic, partitions):
    goal = ends(SOURCE, topic, partitions)
    until(90, f"east.{topic} has the ends {goal}", lambda: ends(west(), f"east.{topic}", partitions) == goal)


def read(topic, count, partitions=3):
    member = consumer("unused", west())
    member.assign([TopicPartition(f"east.{topic}", p, 0) for p in range(partitions)])
    found = take(member, count)
    member.close()
    return found


def topics():
    """Kafka as source: topics of every codec arrive whole."""
    for codec in CODECS:
        topic, sent = f"source-{RUN}-{codec}", list(records(2000))
        create(topic)
        produce(topic, sent, **{"compression.type": codec, "enable.idempotence": codec == "lz4"})
        mirrored(topic, 3)
        same(read(topic, 2000), sent)


def growth():
    """Kafka as source: new partitions and settings follow."""
    topic = f"source-{RUN}-grows"
    create(topic, 2, **{"retention.ms": "3600000"})
    [future] = admin().create_partitions([NewPartitions(topic, 4)]).values()
    future.result(30)
    sent = list(records(1000))

    def partitions():
        return len(admin().list_topics(topic, 10).topics[topic].partitions) == 4

    until(30, "four partitions", partitions)
    produce(topic, sent)
    mirrored(topic, 4)
    same(read(topic, 1000, 4), sent)
    resource = ConfigResource(ResourceType.TOPIC, f"east.{topic}")
    [future] = admin(west()).describe_configs([resource]).values()
    assert future.result(30)["retention.ms"].value == "3600000"


def groups():
    """Kafka as source: a group's positions arrive, and it carries on in the mirror."""
    topic = group = f"source-{RUN}-group"
    sent = list(records(2000))
    create(topic)
    produce(topic, sent)
    first = consumer(group, SOURCE)
    first.subscribe([topic])
    part = take(first, 700)
    first.commit(asynchronous=False)
    places = [TopicPartition(topic, p) for p in range(3)]
    committed = {p.partition: p.offset for p in first.committed(places, 10)}
    first.close()
    mirrored(topic, 3)

    def arrived():
        there = Consumer({"bootstrap.servers": west(), "group.id": group})
        try:
            found = there.committed([TopicPartition(f"east.{topic}", p) for p in range(3)], 10)
            return {p.partition: p.offset for p in found} == committed
        except KafkaException:
            return False
        finally:
            there.close()

    until(60, f"positions {committed} in the west", arrived)
    second = consumer(group, west())
    second.subscribe([f"east.{topic}"])
    rest = take(second, 2000 - 700)
    second.close()
    same(part + rest, sent)


if __name__ == "__main__":
    with Mesh("--source-kafka", SOURCE) as MESH:
        main([topics, growth, groups])
