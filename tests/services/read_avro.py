"""Prints a topic's Avro messages as JSON lines, as Confluent's own client reads them.

usage: read_avro.py BOOTSTRAP TOPIC COUNT REGISTRY
"""

import json
import sys

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

bootstrap, topic, count, registry = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
deserialize = AvroDeserializer(SchemaRegistryClient({"url": registry}))
consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "read_avro", "enable.auto.commit": False})
partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
for message in consumer.consume(count, timeout=30):
    if message.error():
        sys.exit(f"{topic}: {message.error()}")
    record = deserialize(message.value(), SerializationContext(topic, MessageField.VALUE))
    record["timestamp"] = record["timestamp"].isoformat(timespec="microseconds")
    print(json.dumps(record))
consumer.close()
