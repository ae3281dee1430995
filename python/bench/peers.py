"""What the benches compare with, and what they all log: a dict of 12 features and an answer."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))
from kafka_broker import broker  # noqa: E402

__all__ = ["INPUTS", "OUTPUTS", "PEERS", "RECORD", "TOPIC", "Peer", "broker", "create_topic", "predlog_config"]

TOPIC = "bench"
INPUTS = {f"feature_{number}": 0.5 + number * 1.37 for number in range(12)}
OUTPUTS = {"score": 5.2}
#: What a server that calls a Kafka client sends. It stays the same dict, so that making it costs none of them anything.
RECORD = {"model_name": "wine", "model_version": "1", "inputs": INPUTS, "outputs": OUTPUTS}
FLUSH_SECONDS = 120.0


def create_topic(brokers: str) -> None:
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": brokers})  # Without it, what it was asked for is cancelled.
    [created] = admin.create_topics([NewTopic(TOPIC, 6, 1)]).values()
    created.result()


def predlog_config(brokers: str, directory: str, **kafka: Any) -> dict[str, Any]:
    return {"mode": "kafka", "kafka": {"brokers": brokers, "topic": TOPIC, "deadline": "60s", "fallback": {"dir": directory}, **kafka}}


class Peer:
    """A Kafka client: `send()` gives it the record once, `flush()` waits until all are delivered, `times(count)` are those of single calls in ns."""

    send: Callable[[], Any]

    def flush(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Ends it, where its end by itself is not quiet."""

    def run(self, count: int) -> None:
        send = self.send
        for _ in range(count):
            send()

    def times(self, count: int) -> list[int]:
        return timed(self.send, count)


def timed(call: Callable[[], Any], count: int) -> list[int]:
    """The time of each of `count` calls, one after the other, in ns."""
    clock = time.perf_counter_ns
    times = []
    for _ in range(count):
        start = clock()
        call()
        times.append(clock() - start)
    return times


class Confluent(Peer):
    def __init__(self, brokers: str, encode: Callable[[Any], Any], **properties: Any) -> None:
        from confluent_kafka import Producer

        producer = Producer(
            {"bootstrap.servers": brokers, "linger.ms": 10, "compression.type": "lz4", "acks": "all", "enable.idempotence": True, **properties}
        )

        def send() -> None:
            try:
                producer.produce(TOPIC, encode(RECORD))
            except BufferError:
                # The queue is full: as its manual says, reports are taken, and the record is given again.
                while True:
                    producer.poll(0.01)
                    try:
                        return producer.produce(TOPIC, encode(RECORD))
                    except BufferError:
                        pass

        self.send = send
        self._producer = producer

    def flush(self) -> None:
        assert self._producer.flush(FLUSH_SECONDS) == 0


class KafkaPython(Peer):
    def __init__(self, brokers: str, **properties: Any) -> None:
        from kafka import KafkaProducer

        producer = KafkaProducer(bootstrap_servers=brokers, acks="all", linger_ms=10, **properties)
        self.send = lambda: producer.send(TOPIC, orjson.dumps(RECORD))
        self._producer = producer

    def flush(self) -> None:
        self._producer.flush(FLUSH_SECONDS)


class Aiokafka(Peer):
    def __init__(self, brokers: str) -> None:
        from aiokafka import AIOKafkaProducer

        self._loop = asyncio.new_event_loop()

        async def start() -> Any:
            producer = AIOKafkaProducer(bootstrap_servers=brokers, acks="all", linger_ms=10, value_serializer=orjson.dumps)
            await producer.start()
            return producer

        self._producer = self._loop.run_until_complete(start())

    def run(self, count: int) -> None:
        async def sends() -> None:
            for _ in range(count):
                await self._producer.send(TOPIC, RECORD)

        self._loop.run_until_complete(sends())

    def times(self, count: int) -> list[int]:
        async def sends() -> list[int]:
            clock = time.perf_counter_ns
            times = []
            for _ in range(count):
                start = clock()
                await self._producer.send(TOPIC, RECORD)
                times.append(clock() - start)
            return times

        return self._loop.run_until_complete(sends())

    def flush(self) -> None:
        self._loop.run_until_complete(self._producer.flush())

    def close(self) -> None:
        self._loop.run_until_complete(self._producer.stop())


PEERS: dict[str, Callable[[str], Peer]] = {
    "confluent-kafka, orjson": lambda brokers: Confluent(brokers, orjson.dumps),
    "confluent-kafka, json.dumps": lambda brokers: Confluent(brokers, json.dumps),
    "aiokafka send, orjson": Aiokafka,
    "kafka-python send, orjson": KafkaPython,
}
