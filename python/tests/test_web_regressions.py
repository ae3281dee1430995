"""Defects of the Flask and ASGI integrations that were found by hand: each test failed before its repair."""

from __future__ import annotations

import asyncio
import enum
import gzip
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import fastapi
import flask
import pytest
from conftest import Store, flask_app, shown
from fastapi import FastAPI, Request, Response
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.routing import Route
from test_servers import served
from werkzeug.serving import make_server
from werkzeug.wrappers import Response as WerkzeugResponse

import predlog
from predlog import _capture, asgi
from predlog.flask import log_predictions

REFUSED = {"error": "no key"}
#: The same views, under the dev server of this process and under gunicorn.
SOURCE = """
import flask, predlog
from predlog.flask import PredictionLog, log_predictions
predlog.init()
app = flask.Flask("test")
PredictionLog(app, routes={"/view": "view", "/before": "before", "/read": "read"})

@app.before_request
def before():
    if flask.request.path == "/before":
        return {"error": "no key"}, 401

@app.post("/view")
def view():
    return {"error": "no key"}, 401

@app.post("/before")
def never():
    raise AssertionError

@app.post("/read")
def read():
    return flask.request.get_json()

@app.post("/decorated")
@log_predictions(model_name="decorated")
def decorated():
    return {"error": "no key"}, 401
"""
VIEWS = ("view", "before", "decorated")


def answer(port: int, path: str, body: bytes, length: int) -> tuple[int, Any]:
    """Status and JSON of a POST that says a `length` of its own, and keeps its connection open; TimeoutError where it is waited for."""
    head = f"POST /{path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(head + body)
        received = b""
        while not received.endswith(b"}\n"):
            part = client.recv(4096)
            assert part, received
            received += part
    first, _, rest = received.partition(b"\r\n\r\n")
    return int(first.split()[1]), json.loads(rest)


@contextmanager
def dev_server(store: Store) -> Iterator[int]:
    """The dev server, in a thread, with the default logger."""
    names: dict[str, Any] = {}
    exec(SOURCE, names)
    server = make_server("127.0.0.1", 0, names["app"], threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        predlog.close()


@pytest.mark.parametrize("server", ["werkzeug", "gunicorn"])
def test_a_body_that_no_one_reads_is_not_waited_for(store: Store, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has come of it is kept, where that is all of it."""
    monkeypatch.setenv("PREDLOG_DIRECT__DIR", str(store.dir))
    running = dev_server(store) if server == "werkzeug" else served(store, "unread_app", SOURCE, "gunicorn", "--bind", "127.0.0.1:{port}", "unread_app:app")
    with running as port:
        for view in VIEWS:
            assert answer(port, view, b"", 100) == (401, REFUSED)
            assert answer(port, view, b'{"a":', 100) == (401, REFUSED)
            assert answer(port, view, b'{"a":1}', 7) == (401, REFUSED)
        assert answer(port, "read", b'{"a":2}', 7) == (200, {"a": 2})
    expected = [(view, inputs, REFUSED, 401, None) for view in VIEWS for inputs in (None, None, {"a": 1})]
    assert [shown(row) for row in store.rows()] == [*expected, ("read", {"a": 2}, {"a": 2}, 200, None)]


def test_the_rest_of_a_body_is_no_request(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a body that came in parts nothing is taken from the server, which would take the rest for the connection's next request."""
    monkeypatch.setenv("PREDLOG_DIRECT__DIR", str(store.dir))
    rest = b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"smuggled\":1}"[:80]
    command = ("gunicorn", "--worker-class", "gthread", "--threads", "2", "--bind", "127.0.0.1:{port}", "parts_app:app")
    with served(store, "parts_app", SOURCE, *command) as port, socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        head = f"POST /view HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {5 + len(rest)}\r\n\r\n"
        client.sendall(head.encode() + b'{"a":')
        received = b""
        while not received.endswith(b"}\n"):
            received += client.recv(4096)
        assert received.startswith(b"HTTP/1.1 401")
        client.sendall(rest + b"GET /next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = b""
        while part := client.recv(4096):
            received += part
    # Of the next request, or nothing where the server has closed the connection.
    assert not received or received.startswith(b"HTTP/1.1 404"), received
    assert [shown(row) for row in store.rows()] == [("view", None, REFUSED, 401, None)]


def test_flask_bodies_without_a_type_or_a_reader(store: Store) -> None:
    with store.logger() as logger:
        app = flask_app(logger, forced="forced", unread="unread", uncached="uncached")
        app.add_url_rule("/forced", "forced", lambda: flask.request.get_json(force=True), methods=["POST"])
        app.add_url_rule("/unread", "unread", lambda: (REFUSED, 401), methods=["POST"])
        app.add_url_rule("/uncached", "uncached", lambda: flask.request.get_json(), methods=["POST"])
        client = app.test_client()
        assert client.post("/forced", data=b'{"a":1}').json == {"a": 1}
        assert client.post("/unread", json={"a": 2}).status_code == 401
        assert client.post("/uncached", json={"a": 3}).json == {"a": 3}
    assert [shown(row) for row in store.rows()] == [
        ("forced", {"a": 1}, {"a": 1}, 200, None),
        ("unread", {"a": 2}, REFUSED, 401, None),
        ("uncached", {"a": 3}, {"a": 3}, 200, None),
    ]


def test_flasks_decorator_logs_no_head_and_what_is_aborted_with_a_response(store: Store) -> None:
    app = flask.Flask("test")
    with store.logger() as logger:

        @app.route("/head", methods=["GET", "OPTIONS"])
        @log_predictions(model_name="head", logger=logger)
        def head() -> Any:
            return {"method": flask.request.method}

        @app.get("/abort")
        @log_predictions(model_name="abort", logger=logger)
        def abort() -> Any:
            flask.abort(WerkzeugResponse('{"a":1}', status=418, mimetype="application/json"))

        client = app.test_client()
        assert client.head("/head").status_code == client.options("/head").status_code == client.get("/head").status_code == 200
        assert client.get("/abort").status_code == 418
    assert [shown(row) for row in store.rows()] == [("head", None, {"method": "GET"}, 200, None), ("abort", None, {"a": 1}, 418, None)]


def test_a_response_that_is_packed_outside_of_the_middleware(store: Store) -> None:
    app = FastAPI()
    app.add_api_route("/predict", lambda: {"score": "x" * 2_000})
    with store.logger() as logger:
        app.add_middleware(asgi.PredictionLogMiddleware, routes={"/predict": "m"}, logger=logger)
        app.add_middleware(GZipMiddleware, minimum_size=1)
        response = TestClient(app).get("/predict")
    assert response.headers["content-encoding"] == "gzip" and response.json() == {"score": "x" * 2_000}
    assert [shown(row) for row in store.rows()] == [("m", None, {"score": "x" * 2_000}, 200, None)]


class Refusal(JSONResponse):
    """A class of the application's own."""


class Kind(enum.Enum):
    RED = "red"


def test_what_a_decorated_handler_is_given_and_answers(store: Store) -> None:
    app = FastAPI()
    with store.logger() as logger:

        @app.get("/own")
        @asgi.log_predictions(model_name="own", logger=logger)
        async def own(a: int) -> Response:
            return Refusal({"a": a}, status_code=503)

        @app.get("/injected")
        @asgi.log_predictions(model_name="injected", logger=logger)
        def injected(a: int, response: fastapi.Response) -> dict[str, int]:
            response.status_code = 202
            return {"a": a}

        @app.get("/enum")
        @asgi.log_predictions(model_name="enum", logger=logger)
        async def chosen(kind: Kind) -> str:
            return kind.name

        client = TestClient(app)
        assert client.get("/own?a=1").status_code == 503
        assert client.get("/injected?a=1&b=2").status_code == 202
        assert client.get("/enum?kind=red").json() == "RED"
    assert [shown(row) for row in store.rows()] == [
        ("own", {"a": 1}, {"a": 1}, 503, None),
        ("injected", {"a": 1}, {"a": 1}, 202, None),
        ("enum", {"kind": "red"}, "RED", 200, None),
    ]


def test_arguments_without_names_are_logged_beside_those_with_names(store: Store) -> None:
    with store.logger() as logger:

        @asgi.log_predictions(model_name="m", logger=logger)
        def predict(features: Any, threshold: float = 0.0, *more: int) -> int:
            return 1

        class Service:
            @asgi.log_predictions(model_name="m", logger=logger)
            def predict(self, a: int, b: int) -> int:
                return 1

        assert predict({"x": 1}, threshold=0.5) == predict({"x": 1}) == predict({"x": 1}, 0.5, 7) == Service().predict(1, b=3) == 1
    expected = [{"features": {"x": 1}, "threshold": 0.5}, {"x": 1}, {"features": {"x": 1}, "threshold": 0.5, "2": 7}, {"a": 1, "b": 3}]
    assert [row["inputs"] for row in store.rows()] == expected


def test_a_decorated_handler_with_a_request_alone_has_its_body_as_inputs(store: Store) -> None:
    with store.logger() as logger:

        @asgi.log_predictions(model_name="read", logger=logger)
        async def read(request: Request) -> JSONResponse:
            return JSONResponse({"got": await request.json()})

        @asgi.log_predictions(model_name="unread", logger=logger)
        async def unread(request: Request) -> JSONResponse:
            return JSONResponse(REFUSED, status_code=401)

        client = TestClient(Starlette(routes=[Route("/read", read, methods=["POST"]), Route("/unread", unread, methods=["POST"])]))
        assert client.post("/read", json={"a": 1}).json() == {"got": {"a": 1}}
        assert client.post("/unread", json={"a": 1}).status_code == 401
    assert [shown(row) for row in store.rows()] == [("read", {"a": 1}, {"got": {"a": 1}}, 200, None), ("unread", None, REFUSED, 401, None)]


def test_generators_that_a_decorated_handler_answers_are_the_callers_alone(store: Store) -> None:
    with store.logger() as logger:

        @asgi.log_predictions(model_name="async", logger=logger)
        async def parts(x: int) -> AsyncIterator[int]:
            yield x
            yield x + 1

        @asgi.log_predictions(model_name="sync", logger=logger)
        def sync_parts(x: int) -> Iterator[int]:
            yield x
            yield x + 1

        async def every() -> list[int]:
            return [part async for part in parts(x=1)]

        assert asyncio.run(every()) == list(sync_parts(x=1)) == [1, 2]
        assert logger.snapshot()["encoded_as_text"] == 0
    assert [shown(row) for row in store.rows()] == [("async", {"x": 1}, None, 200, None), ("sync", {"x": 1}, None, 200, None)]


def test_a_route_of_any_path_logs_requests_of_every_route(store: Store) -> None:
    app = FastAPI()
    for path in ("/models/a", "/deep/er/path", "/items/{id}"):
        app.add_api_route(path, lambda path=path: {"path": path})
    with store.logger() as logger:
        client = TestClient(asgi.PredictionLogMiddleware(app, routes={"/{rest:path}": "any"}, logger=logger))
        for path in ("/models/a", "/deep/er/path", "/items/7"):
            assert client.get(path).status_code == 200
    outputs = [{"path": path} for path in ("/models/a", "/deep/er/path", "/items/{id}")]
    assert [shown(row)[:4] for row in store.rows()] == [("any", None, output, 200) for output in outputs]


@pytest.mark.parametrize(
    ("packed", "plain"),
    [
        (gzip.compress(b'{"a":1,') + gzip.compress(b'"b":2}'), b'{"a":1,"b":2}'),
        (gzip.compress(b"[1]") + gzip.compress(b"  \n"), b"[1]  \n"),
        (gzip.compress(b"[1") + gzip.compress(b",2]")[:-1], None),
        (gzip.compress(b"[1]") + b"\0\0", b"[1]"),
        (gzip.compress(b"[1]") + b"rest", b"[1]"),
        (gzip.compress(b"") * 50_000, None),
    ],
    ids=["two", "blank", "cut", "zeros", "rest", "many"],
)
def test_gzip_of_several_members_is_unpacked_whole(packed: bytes, plain: bytes | None) -> None:
    body = _capture.as_json(packed, "gzip")
    assert (None if body is None else bytes(body)) == plain
