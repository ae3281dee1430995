"""The examples with Kafka's configuration: the same code, and the records are on the topic."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from conftest import Store
from fastapi.testclient import TestClient
from kafka_broker import ROOT, broker

import predlog

EXAMPLES = Path(__file__).parent.parent / "examples"


def read(bootstrap: str, topic: str, count: int) -> list[dict[str, Any]]:
    """The records of all partitions; as many as there are after `count` have come."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "tests", "enable.auto.commit": False, "enable.partition.eof": True})
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    records: list[dict[str, Any]] = []
    ended: set[int] = set()
    while len(records) < count or len(ended) < len(partitions):
        message = consumer.poll(30)
        assert message is not None, f"{len(records)} of {count} records came"
        if message.error() is None:
            records.append(json.loads(message.value()))
            ended.discard(message.partition())
        else:
            ended.add(message.partition())
    consumer.close()
    return records


def test_servers_with_kafkas_configuration(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREDLOG_CONFIG", str(ROOT / "config" / "kafka.toml"))
    monkeypatch.setenv("PREDLOG_KAFKA__CREATE_TOPICS", "true")
    monkeypatch.setenv("PREDLOG_KAFKA__FALLBACK__DIR", str(store.dir))
    wine = {"alcohol": 9}
    (tmp_path / "kafka").mkdir()
    with broker(tmp_path / "kafka") as bootstrap:
        monkeypatch.setenv("PREDLOG_KAFKA__BROKERS", bootstrap)
        flask = runpy.run_path(str(EXAMPLES / "flask_server.py"))["app"]
        assert flask.test_client().post("/predict", json=wine).get_json() == {"score": 4.5}
        fastapi = runpy.run_path(str(EXAMPLES / "fastapi_server.py"))["app"]
        assert TestClient(fastapi).post("/predict", json=wine).json() == {"score": 4.5}
        assert predlog.default().flush(60.0)
        predlog.close()
        records = read(bootstrap, "predictions", 2)
    assert [(record["model_name"], record["inputs"], record["outputs"]) for record in records] == [("wine", wine, {"score": 4.5})] * 2
    assert {record["status_code"] for record in records} == {200}


def test_with_the_broker_away_a_call_does_not_raise_and_records_are_kept(store: Store) -> None:
    config = {"mode": "kafka", "kafka": {"brokers": "127.0.0.1:1", "fallback": {"dir": str(store.dir)}}}
    with predlog.Logger(config) as logger:
        for number in range(10_000):
            assert logger.log("m", {"number": number}, None)
        totals = logger.close()
    assert totals["accepted"] == 10_000 and totals["on_disk"] == 10_000 and totals["dropped"] == {}
