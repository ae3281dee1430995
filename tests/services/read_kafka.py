"""Prints a topic's messages as JSON lines, as a Python service reads them.

usage: read_kafka.py BOOTSTRAP TOPIC COUNT
"""

import json
import sys

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

bootstrap, topic, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "read_kafka", "enable.auto.commit": False})
partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
for message in consumer.consume(count, timeout=30):
    if message.error():
        sys.exit(f"{topic}: {message.error()}")
    headers = {name: value.decode() for name, value in message.headers() or []}
    row = {"partition": message.partition(), "offset": message.offset(), "headers": headers}
    print(json.dumps(row | {"key": message.key().decode(), "value": message.value().decode()}))
consumer.close()
