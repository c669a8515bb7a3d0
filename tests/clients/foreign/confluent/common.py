"""What the three parts share: clients, topics with records in them, and polls that wait for a condition."""

import functools
import itertools

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from suite import RUN, SOURCE, until

counter = itertools.count()


def fresh(word):
    """A name that nobody had before."""
    return f"{word}-{RUN}-{next(counter)}"


@functools.cache
def admin():
    return AdminClient({"bootstrap.servers": SOURCE})


def done(futures):
    """The results of `{key: future}`, by key."""
    return {key: future.result(30) for key, future in futures.items()}


def refused(future):
    """The error code with which `future` fails."""
    try:
        found = future.result(30)
    except KafkaException as error:
        return error.args[0].code()
    raise AssertionError(f"not refused: {found}")


def topic(partitions=3, **config):
    """Creates a topic and waits until every daemon's metadata may have it."""
    name = fresh("topic")
    done(admin().create_topics([NewTopic(name, partitions, config=config)], operation_timeout=30))
    until(20, "metadata has the topic", lambda: known(name) == partitions)
    return name


def known(name):
    """How many partitions with a leader the topic has in a daemon's eyes."""
    found = admin().list_topics(timeout=10).topics.get(name)
    return 0 if found is None or found.error else sum(p.leader >= 0 for p in found.partitions.values())


def producer(**config):
    return Producer({"bootstrap.servers": SOURCE, "acks": "all", **config})


def fill(name, count, partition=None, **config):
    """Produces `count` records, `number` in the value, and returns their delivered messages."""
    delivered, client = [], producer(**config)
    for number in range(count):
        options = {} if partition is None else {"partition": partition}
        client.produce(
            name, str(number), key=f"k{number % 7}", on_delivery=lambda e, m: delivered.append(e or m), **options
        )
        client.poll(0)
    assert client.flush(60) == 0, "not delivered in 60 s"
    errors = [d for d in delivered if isinstance(d, KafkaError)]
    assert not errors, errors[:3]
    return delivered


def consumer(group=None, protocol="classic", **config):
    """A consumer of the group, which reads from the beginning and commits when it is told."""
    base = {
        "bootstrap.servers": SOURCE, "group.id": group or fresh("group"), "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "topic.metadata.refresh.interval.ms": 1000, "group.protocol": protocol,
    }
    if protocol == "classic":
        base["session.timeout.ms"] = 10000
    elif "partition.assignment.strategy" in config:
        del config["partition.assignment.strategy"]
    return Consumer({**base, **config})


def take(member, count, seconds=30):
    """Polls `count` messages; an unknown topic is waited for."""
    found = []

    def more():
        for message in member.consume(count - len(found), 0.5):
            if message.error():
                if message.error().code() not in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._PARTITION_EOF):
                    raise KafkaException(message.error())
                continue
            found.append(message)
        return len(found) >= count

    until(seconds, f"{count} messages", more)
    return found


def settle(members, counts, seconds=30):
    """Polls the members until they hold so many partitions each, in any order, and no partition twice."""

    def settled():
        for member in members:
            message = member.poll(0.1)
            if message is not None and message.error():
                raise KafkaException(message.error())
        held = [[(p.topic, p.partition) for p in member.assignment()] for member in members]
        everything = list(itertools.chain(*held))
        return sorted(map(len, held)) == sorted(counts) and len(set(everything)) == len(everything)

    until(seconds, f"the members hold {counts} partitions", settled)
