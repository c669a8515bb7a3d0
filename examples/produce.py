#!/usr/bin/env python3
"""Write the lines of a file to a topic: compressed, idempotent, acknowledged by every copy in sync.

    pip install confluent-kafka
    ./produce.py 127.0.0.1:9092 orders voyages.txt
"""
import sys

from confluent_kafka import Producer

bootstrap, topic, path = sys.argv[1:]
producer = Producer({
    "bootstrap.servers": bootstrap,
    "enable.idempotence": True,
    "compression.type": "zstd",
    "linger.ms": 5,
})
failed = []
with open(path, encoding="utf-8") as lines:
    for line in lines:
        line = line.rstrip("\n")
        # The ship is the key, so that what one ship reports stays in order.
        key = line.split(" ", 3)[-1].split(":")[0]
        producer.produce(topic, line, key, on_delivery=lambda error, _: error and failed.append(error))
        producer.poll(0)
producer.flush()
sys.exit(f"{len(failed)} records failed, the first with: {failed[0]}" if failed else 0)
