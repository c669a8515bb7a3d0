#!/usr/bin/env python3
"""Read a topic as a member of a group, print the records, commit what was printed.

After a failover the same group goes on in the other region:

    ./consume.py 127.0.0.1:9092 billing orders            # east; stop it with ^C
    ./consume.py 127.0.0.1:9192 billing east.orders       # west; goes on where it stopped
"""
import sys

from confluent_kafka import Consumer

bootstrap, group, topic = sys.argv[1:]
consumer = Consumer({
    "bootstrap.servers": bootstrap,
    "group.id": group,
    "auto.offset.reset": "earliest",
    "enable.auto.commit": False,
})
consumer.subscribe([topic])
try:
    while True:
        record = consumer.poll(1.0)
        if record is None:
            continue
        if record.error():
            sys.exit(str(record.error()))
        print(record.value().decode(), flush=True)
        consumer.commit(record, asynchronous=False)
except KeyboardInterrupt:
    pass
finally:
    consumer.close()
