"""The servers of `servers.py`: Flask and FastAPI, each with the logging that the variable LOGGING names, and a route `/plain` that logs nothing."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
from fastapi import FastAPI, Request
from flask import Flask, request
from peers import TOPIC

LOGGING = os.environ.get("LOGGING", "none")
BROKERS = os.environ.get("BROKERS", "")
Send = Callable[[dict[str, Any], dict[str, float]], None]


def nothing(_inputs: dict[str, Any], _outputs: dict[str, float]) -> None:
    """No logging."""


def sender() -> Send:
    """What a handler calls beside its answer."""
    if LOGGING == "confluent-kafka":
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": BROKERS, "linger.ms": 10, "compression.type": "lz4"})

        def send(inputs: dict[str, Any], outputs: dict[str, float]) -> None:
            producer.produce(TOPIC, orjson.dumps({"inputs": inputs, "outputs": outputs}))
            producer.poll(0)

        return send
    if LOGGING == "kafka-python":
        from kafka import KafkaProducer

        sync = KafkaProducer(bootstrap_servers=BROKERS, linger_ms=10, value_serializer=orjson.dumps)
        return lambda inputs, outputs: sync.send(TOPIC, {"inputs": inputs, "outputs": outputs}) and None
    if LOGGING in ("predlog", "predlog-kafka", "predlog-away"):
        import predlog

        logger = predlog.init(None if LOGGING == "predlog" else {"mode": "kafka", "kafka": {"brokers": BROKERS, "topic": TOPIC}})

        def log(inputs: dict[str, Any], outputs: dict[str, float]) -> None:
            logger.log(model_name="wine", model_version="1", inputs=inputs, outputs=outputs, status_code=200)

        return log
    return nothing


def score(inputs: dict[str, Any]) -> dict[str, float]:
    return {"score": sum(inputs.values())}


flask_app = Flask(__name__)
flask_send = sender() if os.environ.get("FRAMEWORK") == "flask" else nothing
ROUTES = {"/predict": "wine"}

if LOGGING == "predlog-middleware" and os.environ.get("FRAMEWORK") == "flask":
    import predlog
    from predlog.flask import PredictionLog

    predlog.init()
    PredictionLog(flask_app, routes=ROUTES, model_version="1")


@flask_app.post("/plain")
def flask_plain() -> dict[str, float]:
    inputs = request.get_json()
    outputs = score(inputs)
    nothing(inputs, outputs)
    return outputs


@flask_app.post("/predict")
def flask_predict() -> dict[str, float]:
    inputs = request.get_json()
    outputs = score(inputs)
    flask_send(inputs, outputs)
    return outputs


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.nothing, app.state.send = nothing, sender()
    if LOGGING == "aiokafka":
        from aiokafka import AIOKafkaProducer

        producer = AIOKafkaProducer(bootstrap_servers=BROKERS, linger_ms=10, value_serializer=orjson.dumps)
        await producer.start()
        app.state.send = lambda inputs, outputs: producer.send(TOPIC, {"inputs": inputs, "outputs": outputs})
    yield


fastapi_app = FastAPI(lifespan=lifespan)
if LOGGING == "predlog-middleware" and os.environ.get("FRAMEWORK") == "fastapi":
    import predlog
    from predlog.asgi import PredictionLogMiddleware

    predlog.init()
    fastapi_app.add_middleware(PredictionLogMiddleware, routes=ROUTES, model_version="1")


async def answer(inputs: dict[str, float], send: Callable[[dict[str, float], dict[str, float]], Awaitable[Any] | None]) -> dict[str, float]:
    outputs = score(inputs)
    sent = send(inputs, outputs)
    if sent is not None:
        await sent
    return outputs


@fastapi_app.post("/plain")
async def fastapi_plain(request: Request, inputs: dict[str, float]) -> dict[str, float]:
    return await answer(inputs, request.app.state.nothing)


@fastapi_app.post("/predict")
async def fastapi_predict(request: Request, inputs: dict[str, float]) -> dict[str, float]:
    return await answer(inputs, request.app.state.send)
