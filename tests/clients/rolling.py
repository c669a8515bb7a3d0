"""A loaded cluster is restarted daemon by daemon and its replicas go round, with confluent-kafka (librdkafka) as the
applications: an idempotent producer, a group of two and a plain consumer. Not one delivery may fail and not one poll may
return an error; every record is there once, and in the order of sending within its partition.

Environment: TARGET (the folder with the programs).
"""

import json
import os
import subprocess
import sys
import threading
import time

os.environ.setdefault("SOURCE", "unused")

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from mesh import Mesh
from suite import main, until

PARTITIONS = 4


def tradewind(mesh, *arguments):
    """A command of the program, asked of the first daemon; what it prints."""
    program = os.environ.get("TRADEWIND_BIN") or f"{os.environ['TARGET']}/tradewind"
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{arguments}: exit code {done.returncode}: {done.stderr}"
    return done.stdout


def well(mesh):
    """Waits until every daemon is active and every replica in sync."""
    tradewind(mesh, "cluster", "status", "--wait", "60s", "--url", mesh["one-url"])


class Applications:
    """A producer and three consumers in threads of their own; the first error of any ends all."""

    def __init__(self, bootstrap, topic):
        self.bootstrap, self.topic = bootstrap, topic
        self.stop, self.errors = threading.Event(), []
        self.sent, self.acknowledged = [0] * PARTITIONS, [0] * PARTITIONS
        self.plain, self.shared = {}, {}
        work = [self.produce, self.follow, self.share, self.share]
        # Daemons, because librdkafka does not always end: see `ended`.
        self.threads = [threading.Thread(target=self.guarded, args=(one,), name=one.__name__, daemon=True) for one in work]
        for thread in self.threads:
            thread.start()

    def guarded(self, work):
        try:
            work()
        except Exception as error:
            self.errors.append(f"{work.__name__}: {error!r}")

    def produce(self):
        def delivered(error, message):
            if error:
                self.errors.append(f"delivery: {error}")
            else:
                self.acknowledged[message.partition()] += 1

        def told(error):
            # Lost connections are told to whoever asks; what counts is what becomes of records. A fatal one is the end.
            if error.fatal():
                self.errors.append(f"producer: {error}")

        producer = Producer({
            "bootstrap.servers": self.bootstrap, "enable.idempotence": True, "linger.ms": 2, "error_cb": told,
        })
        while not self.stop.is_set():
            for partition in range(PARTITIONS):
                producer.produce(self.topic, str(self.sent[partition]), partition=partition, on_delivery=delivered)
                self.sent[partition] += 1
            producer.poll(0)
            time.sleep(0.002)
        assert producer.flush(60) == 0, "not all delivered in 60 s"

    def consume(self, consumer, found):
        while not self.stop.is_set():
            message = consumer.poll(0.2)
            if message is not None:
                self.note(message, found)
        consumer.close()

    def note(self, message, found):
        if message.error():
            raise KafkaException(message.error())
        at = (message.partition(), message.offset())
        value = found.setdefault(at, message.value())
        assert value == message.value(), f"{at} was {value}, is {message.value()}"

    def consumer(self, **config):
        return Consumer({
            "bootstrap.servers": self.bootstrap, "auto.offset.reset": "earliest", "check.crcs": True, **config,
        })

    def follow(self):
        consumer = self.consumer(**{"group.id": "unused", "enable.auto.commit": False})
        consumer.assign([TopicPartition(self.topic, p, OFFSET_BEGINNING) for p in range(PARTITIONS)])
        self.consume(consumer, self.plain)

    def share(self):
        consumer = self.consumer(**{"group.id": "onlookers", "auto.commit.interval.ms": 300})
        consumer.subscribe([self.topic])
        self.consume(consumer, self.shared)

    def get_on(self, count=100):
        """Waits until every application has got on."""
        def counts():
            assert not self.errors or self.stop.is_set(), self.errors
            return [min(self.acknowledged), len(self.plain), len(self.shared)]
        before = counts()

        def have():
            if self.errors:
                raise RuntimeError(self.errors)
            return all(now >= was + count for now, was in zip(counts(), before))
        until(60, "every application gets on", have)

    def end(self):
        """Ends them, reads everything, and compares."""
        self.stop.set()
        for thread in self.threads:
            thread.join(90)
        assert not self.errors, self.errors
        assert self.sent == self.acknowledged, (self.sent, self.acknowledged)
        consumer = self.consumer(**{"group.id": "judge", "enable.auto.commit": False})
        consumer.assign([TopicPartition(self.topic, p, OFFSET_BEGINNING) for p in range(PARTITIONS)])
        log, deadline = {}, time.monotonic() + 60
        while len(log) < sum(self.sent) and time.monotonic() < deadline:
            message = consumer.poll(0.5)
            if message is not None:
                self.note(message, log)
        assert consumer.poll(1.0) is None, "there is more than was sent"
        consumer.close()
        for partition, count in enumerate(self.sent):
            values = [log.get((partition, offset)) for offset in range(count)]
            assert values == [str(number).encode() for number in range(count)], f"partition {partition}"
        for found in (self.plain, self.shared):
            assert found.items() <= log.items(), "somebody read what is not there"

    def ended(self):
        """To be asked when the cluster has ended: nobody may have waited for an answer of it until then. Somebody who waits
        even now, when every request has timed out (socket.timeout.ms is a minute), waits for his own threads: to close a
        consumer whose broker went and came back may take librdkafka for ever (its issues 4362 and 4486). That is said."""
        waiting = [thread for thread in self.threads if thread.is_alive()]
        deadline = time.monotonic() + 75
        for thread in waiting:
            thread.join(max(0, deadline - time.monotonic()))
        for thread in waiting:
            assert thread.is_alive(), f"{thread.name} ended only when the cluster had"
            print(f"  librdkafka did not end: {thread.name} is still in close(), without any cluster", flush=True)


def start(mesh, factor):
    admin = AdminClient({"bootstrap.servers": mesh["one"]})
    [future] = admin.create_topics([NewTopic("ledger", PARTITIONS, factor)], operation_timeout=30).values()
    future.result(30)
    well(mesh)
    applications = Applications(mesh["one"], "ledger")
    return applications


def restarted():
    """Every daemon is restarted, drained and not, and librdkafka hands out no error."""
    with Mesh("--one") as mesh:
        applications = start(mesh, 3)
        try:
            applications.get_on()
            for round in range(2):
                for id in "123":
                    if round == 1:
                        url = mesh["one-url"]
                        tradewind(mesh, "cluster", "drain", id, "--url", url)
                    mesh.tell(f"restart one {id}")
                    well(mesh)
                    if round == 1:
                        tradewind(mesh, "cluster", "undrain", id, "--url", url)
                    applications.get_on()
        finally:
            applications.stop.set()
        applications.end()
    applications.ended()


def moved():
    """All replicas go round the daemons, and librdkafka hands out no error."""
    with Mesh("--one") as mesh:
        applications = start(mesh, 2)
        try:
            applications.get_on()
            for replicas in ([1, 2], [2, 3], [3, 1], [2, 1]):
                plan = {
                    "version": 1,
                    "partitions": [
                        {"topic": "ledger", "partition": p, "replicas": replicas} for p in range(PARTITIONS)
                    ],
                }
                path = f"{mesh.folder.name}/plan.json"
                with open(path, "w", encoding="utf-8") as file:
                    json.dump(plan, file)
                tradewind(mesh, "topic", "reassign", "apply", path, "--execute", "--bootstrap", mesh["one"])
                well(mesh)
                tradewind(mesh, "topic", "reassign", "verify", path, "--bootstrap", mesh["one"])
                applications.get_on()
        finally:
            applications.stop.set()
        applications.end()
    applications.ended()


if __name__ == "__main__":
    try:
        main([restarted, moved])
    except SystemExit as end:
        # Without the destructors: a thread that is in close() for ever would meet them.
        sys.stdout.flush()
        os._exit(end.code)
