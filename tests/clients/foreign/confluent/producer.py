"""confluent-kafka as a producer."""

import json
import time
import zlib

from confluent_kafka import KafkaError, Producer, TopicPartition

from common import consumer, fill, fresh, producer, take, topic
from suite import SOURCE, told, until


def delivery_reports_say_where_and_when():
    name, before = topic(2), int(time.time() * 1000)
    for partition in range(2):
        delivered = fill(name, 50, partition)
        assert [m.offset() for m in delivered] == list(range(50))
        assert {m.partition() for m in delivered} == {partition}
        assert all(before <= m.timestamp()[1] <= time.time() * 1000 for m in delivered)
        assert all(m.latency() > 0 for m in delivered)


def each_level_of_acks():
    for acks in ("0", "1", "all"):
        name = topic(1)
        # Without acknowledgements nothing tells the client that the new leader does not know yet that it leads.
        fill(name, 1)
        fill(name, 20, acks=acks)
        member = consumer()
        member.assign([TopicPartition(name, 0, 1)])
        assert [m.value() for m in take(member, 20)] == [str(n).encode() for n in range(20)]
        member.close()


def keys_choose_partitions_as_crc32_does():
    name = topic(5)
    for message in fill(name, 30, partitioner="consistent"):
        assert message.partition() == zlib.crc32(message.key()) % 5


def headers_in_every_form():
    name, client = topic(1), producer()
    client.produce(name, b"list", headers=[("a", b"1"), ("a", "2"), ("none", None), ("empty", b"")])
    client.produce(name, b"dict", headers={"ü": "é"})
    client.produce(name, b"no")
    assert client.flush(30) == 0
    member = consumer()
    member.assign([TopicPartition(name, 0, 0)])
    found = [m.headers() for m in take(member, 3)]
    member.close()
    assert found == [[("a", b"1"), ("a", b"2"), ("none", None), ("empty", b"")], [("ü", "é".encode())], None], found


def null_and_empty_are_kept_apart():
    name, client = topic(1), producer()
    for key, value in ((None, b"v"), (b"", b"v"), (b"k", None), (b"k", b"")):
        client.produce(name, value, key)
    assert client.flush(30) == 0
    member = consumer()
    member.assign([TopicPartition(name, 0, 0)])
    assert [(m.key(), m.value()) for m in take(member, 4)] == [(None, b"v"), (b"", b"v"), (b"k", None), (b"k", b"")]
    member.close()


def timestamps_are_the_producers():
    name, client = topic(1), producer()
    client.produce(name, b"then", timestamp=1_600_000_000_000)
    assert client.flush(30) == 0
    member = consumer()
    member.assign([TopicPartition(name, 0, 0)])
    [message] = take(member, 1)
    member.close()
    assert message.timestamp() == (1, 1_600_000_000_000), message.timestamp()


def timestamps_are_the_brokers_if_so_configured():
    name, client, before = topic(1, **{"message.timestamp.type": "LogAppendTime"}), producer(), time.time() * 1000 - 1
    reported = []
    client.produce(name, b"now", timestamp=1_600_000_000_000, on_delivery=lambda e, m: reported.append(m.timestamp()))
    assert client.flush(30) == 0
    member = consumer()
    member.assign([TopicPartition(name, 0, 0)])
    [message] = take(member, 1)
    member.close()
    assert message.timestamp()[0] == 2 and before <= message.timestamp()[1] <= time.time() * 1000 + 1
    assert reported == [message.timestamp()], (reported, message.timestamp())


def an_idempotent_producer_keeps_the_order():
    name = topic(1)
    fill(name, 2000, **{
        "enable.idempotence": True, "max.in.flight.requests.per.connection": 5, "batch.num.messages": 10, "linger.ms": 0,
    })
    member = consumer()
    member.assign([TopicPartition(name, 0, 0)])
    assert [int(m.value()) for m in take(member, 2000)] == list(range(2000))
    member.close()


def topics_are_created_by_producing():
    name = fresh("auto")
    assert len(fill(name, 10)) == 10


def an_unknown_partition_is_refused():
    name, codes, client = topic(1), [], producer()
    client.list_topics(name, 10)
    try:
        client.produce(name, b"", partition=7, on_delivery=lambda e, _: codes.append(e.code()))
    except Exception as error:
        codes.append(error.args[0].code())
    client.flush(30)
    assert codes == [KafkaError._UNKNOWN_PARTITION], codes


def a_record_beyond_the_topics_limit_is_refused():
    name, codes = topic(1, **{"max.message.bytes": "10000"}), []
    client = producer(**{"message.max.bytes": 1000000})
    client.produce(name, bytes(50000), on_delivery=lambda e, _: codes.append(e.code()))
    client.produce(name, bytes(50), on_delivery=lambda e, _: codes.append(e and e.code()))
    assert client.flush(30) == 0
    assert KafkaError.MSG_SIZE_TOO_LARGE in codes, codes


def purged_messages_are_told():
    codes, client = [], Producer({"bootstrap.servers": SOURCE, "linger.ms": 60000})
    for _ in range(10):
        client.produce(fresh("purged"), b"x", on_delivery=lambda e, _: codes.append(e.code()))
    client.purge()
    client.flush(10)
    assert codes == [KafkaError._PURGE_QUEUE] * 10, codes


def statistics_name_every_daemon():
    seen = []
    client = producer(**{"statistics.interval.ms": 200, "stats_cb": lambda text: seen.append(json.loads(text))})
    client.list_topics(timeout=10)
    count = len(client.list_topics(timeout=10).brokers)

    def named():
        client.poll(0.2)
        return seen and sum(b["nodeid"] >= 0 for b in seen[-1]["brokers"].values()) == count

    until(20, "statistics name the daemons", named)


def metadata_names_the_cluster():
    client = producer()
    found = client.list_topics(timeout=10)
    assert found.cluster_id and found.controller_id in found.brokers, (found.cluster_id, found.controller_id)
    assert client.cluster_id(10) == found.cluster_id


if __name__ == "__main__":
    told("producer", [
        delivery_reports_say_where_and_when, each_level_of_acks, keys_choose_partitions_as_crc32_does,
        headers_in_every_form, null_and_empty_are_kept_apart, timestamps_are_the_producers,
        timestamps_are_the_brokers_if_so_configured, an_idempotent_producer_keeps_the_order,
        topics_are_created_by_producing, an_unknown_partition_is_refused, a_record_beyond_the_topics_limit_is_refused,
        purged_messages_are_told, statistics_name_every_daemon, metadata_names_the_cluster,
    ])
