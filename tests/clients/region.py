"""A region is lost, with confluent-kafka's producers and group members as the applications.

A group reads part of a topic in the east and commits; when the flow has no lag all daemons of the east are killed; after
`failover` the group, started anew against the west, gets every record after its commit once and none before it, and new
records can be produced. Environment: TARGET (the folder with the programs).
"""

import os

os.environ.setdefault("SOURCE", "unused")

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from mesh import Mesh
from suite import main, records, until

COUNT, PART = 6000, 2000


def create(bootstrap, topic):
    client = AdminClient({"bootstrap.servers": bootstrap})
    [future] = client.create_topics([NewTopic(topic, 4)], operation_timeout=30).values()
    future.result(30)


def produce(bootstrap, topic, sent, codec):
    lost = []
    producer = Producer({
        "bootstrap.servers": bootstrap, "enable.idempotence": True, "compression.type": codec, "linger.ms": 5,
    })
    for key, value, headers, timestamp in sent:
        producer.produce(
            topic, value, key, headers=headers, timestamp=timestamp,
            on_delivery=lambda error, _: lost.append(error) if error else None,
        )
        producer.poll(0)
    assert producer.flush(60) == 0 and not lost, f"{len(lost)} not delivered: {lost[:1]}"


def consume(bootstrap, group, topic, count, seconds=60):
    """Reads `count` records as a member of the group, commits exactly those, and leaves."""
    member = Consumer({
        "bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "enable.auto.offset.store": False, "session.timeout.ms": 10000,
    })
    member.subscribe([topic])
    found = []

    def more():
        for message in member.consume(count - len(found), 0.5):
            if message.error():
                if message.error().code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise KafkaException(message.error())
                continue
            found.append((message.partition(), message.offset(), message.key(), message.value(), message.headers()))
            member.store_offsets(message)
        return len(found) >= count

    try:
        until(seconds, f"{count} records of {topic}", more)
        extra = member.poll(1.0) if count == COUNT - PART else None
        assert extra is None or extra.error(), "the group gets more than it should"
        member.commit(asynchronous=False)
    finally:
        member.close()
    return found


def lose(naming, codec, daemons="3"):
    with Mesh("--naming", naming, "--daemons", daemons) as mesh:
        east, west = mesh["east"], mesh["west"]
        create(east, "orders")
        sent = list(records(COUNT))
        produce(east, "orders", sent, codec)
        read = consume(east, "billing", "orders", PART)
        until(90, "the flow has no lag", lambda: mesh.is_level(1, len({p for p, *_ in read})))

        mesh.tell("kill east")
        report = mesh.ask("failover", "east->west", "--accept-loss")
        topic = "east.orders" if naming == "prefix" else "orders"
        assert [t["topic"] for t in report["topics"] if t["topic"] == topic], report

        rest = consume(west, "billing", topic, COUNT - PART)
        numbers = [headers[0][1] for *_, headers in read + rest]
        assert sorted(numbers) == sorted(headers[0][1] for _, _, headers, _ in sent), "records are missing or repeated"
        places = [(partition, offset) for partition, offset, *_ in read + rest]
        assert len(set(places)) == COUNT, "an offset was read twice"
        produce(west, topic, list(records(500, seed=5)), codec)
        assert len(consume(west, "billing", topic, 500)) == 500


def prefix():
    """region lost with prefix naming, idempotent producers, zstd."""
    lose("prefix", "zstd")


def identity():
    """region lost with identity naming, idempotent producers, lz4."""
    lose("identity", "lz4")


def one_each():
    """region of one daemon lost, prefix naming, gzip."""
    lose("prefix", "gzip", "1")


if __name__ == "__main__":
    main([one_each, prefix, identity])
