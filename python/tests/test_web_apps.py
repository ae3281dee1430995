"""How applications are built around the integrations: routes that overlap, handlers that others decorate, several extensions, no logger."""

from __future__ import annotations

import asyncio
import collections
import functools
import inspect
import json
import logging
import socket
import threading
import types
from collections.abc import Iterator
from typing import Any

import flask
import pydantic
import pytest
from conftest import Store, flask_app, shown
from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Mount, Route
from werkzeug.serving import make_server

import predlog
from predlog import _capture, asgi
from predlog.flask import PredictionLog


def fastapi_app(routes: list[str]) -> Any:
    app = FastAPI()
    for route in routes:
        method, path = route.split()
        app.add_api_route(path, lambda path=path: {"took": path}, methods=[method])
    return app


def starlette_app(routes: list[str]) -> Any:
    def route(method: str, path: str) -> Route:
        async def took(_request: Request) -> JSONResponse:
            return JSONResponse({"took": path})

        return Route(path, took, methods=[method])

    return Starlette(routes=[route(*text.split()) for text in routes])


def mounted_app(routes: list[str]) -> Any:
    return Starlette(routes=[Mount("/sub", starlette_app(routes))])


ACTIONS = ["GET /v1/models/{name}", "POST /v1/models/{name}:predict"]
ITEMS = ["GET /items/{id:int}", "GET /items/{name}"]
CROSS = ["GET /wine/{op}", "GET /{kind}/predict"]
FILES = ["GET /files/{p:path}/meta", "GET /files/{p:path}"]
ID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"


@pytest.mark.parametrize("make", [fastapi_app, starlette_app, mounted_app])
@pytest.mark.parametrize(
    ("routes", "listed", "requests"),
    [
        (ACTIONS, ["/v1/models/{name}", "/v1/models/{name}:predict"], {"GET /v1/models/wine": 0, "POST /v1/models/wine:predict": 1}),
        (ACTIONS, ["/v1/models/{id}"], {"GET /v1/models/wine": 0, "POST /v1/models/wine:predict": None}),
        (ACTIONS[:1], ["/v1/models/{name}:predict"], {"GET /v1/models/wine": None, "GET /v1/models/wine:predict": 0}),
        (ITEMS, ["/items/{name}", "/items/{id:int}"], {"GET /items/7": 1, "GET /items/abc": 0}),
        (ITEMS, ["/items/{id:int}"], {"GET /items/7": 0, "GET /items/abc": None}),
        (ITEMS[1:], ["/items/{id:float}", "/items/{id:uuid}"], {"GET /items/7.5": 0, f"GET /items/{ID}": 1, "GET /items/abc": None}),
        (CROSS, ["/{kind}/predict", "/wine/{op}"], {"GET /wine/predict": 1, "GET /beer/predict": 0, "GET /wine/train": 1}),
        (CROSS, ["/{kind}/predict", "/{any:path}"], {"GET /wine/predict": 1, "GET /beer/predict": 0, "GET /other": 1}),
        (FILES, ["/files/{p:path}", "/files/{p:path}/meta"], {"GET /files/a/b/meta": 1, "GET /files/a/b": 0}),
    ],
)
def test_routes_that_overlap(store: Store, make: Any, routes: list[str], listed: list[str], requests: dict[str, int | None]) -> None:
    """A request is logged by the route that the application took."""
    prefix = "/sub" if make is mounted_app else ""
    with store.logger() as logger:
        logged = asgi.PredictionLogMiddleware(make(routes), routes={prefix + route: str(at) for at, route in enumerate(listed)}, logger=logger)
        client = TestClient(logged)
        for request in requests:
            method, path = request.split()
            client.request(method, prefix + path)
    assert [row["model_name"] for row in store.rows()] == [str(at) for at in requests.values() if at is not None]


def test_routes_that_overlap_of_an_application_that_does_not_tell_which_it_took(store: Store) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await JSONResponse(1)(scope, receive, send)

    with store.logger() as logger:
        client = TestClient(asgi.PredictionLogMiddleware(app, routes={"/items/{id:int}": "int", "/items/{name}": "name"}, logger=logger))
        for path in ("/items/7", "/items/abc"):
            client.get(path)
    assert [row["model_name"] for row in store.rows()] == ["int", "name"]


def test_routes_that_an_application_tells_in_part(store: Store) -> None:
    """Mounts of what does not tell its routes, and a route whose path is its router's prefix."""

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        await JSONResponse(1)(scope, receive, send)

    router = APIRouter()
    router.add_api_route("", lambda: 1)
    app = FastAPI()
    app.include_router(router, prefix="/items/{id}")
    app.mount("/plain", Starlette(routes=[Mount("/api", plain)]))
    with store.logger() as logger:
        client = TestClient(asgi.PredictionLogMiddleware(app, routes={"/plain/api/models/{name}": "model", "/items/{id}": "item"}, logger=logger))
        for path in ("/plain/api/models/a", "/items/7"):
            assert client.get(path).status_code == 200
    assert [row["model_name"] for row in store.rows()] == ["model", "item"]


def plainly(handler: Any) -> Any:
    @functools.wraps(handler)
    def decorated(*arguments: Any, **keywords: Any) -> Any:
        return handler(*arguments, **keywords)

    return decorated


class Handler:
    async def __call__(self, a: int) -> dict[str, int]:
        await asyncio.sleep(0.02)
        if a < 0:
            raise HTTPException(404, "negative")
        return {"a": a}


async def handle(a: int) -> dict[str, int]:
    return await Handler()(a)


HANDLERS = {
    "function": handle,
    "decorated": plainly(handle),
    "object": Handler(),
    "decorated object": plainly(Handler()),
    "partial": functools.partial(handle),
    "partial object": functools.partial(Handler()),
}


@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS)
def test_a_handler_that_answers_an_awaitable(store: Store, handler: Any) -> None:
    """What is logged is the answer, and not that one is to come."""
    app = FastAPI()
    with store.logger() as logger:
        logged = asgi.log_predictions(model_name="m", logger=logger)(handler)
        app.add_api_route("/predict", logged, methods=["GET"])
        assert inspect.iscoroutinefunction(logged) == (handler not in (HANDLERS["decorated"], HANDLERS["decorated object"]))
        client = TestClient(app)
        assert client.get("/predict?a=1").json() == {"a": 1}
        assert client.get("/predict?a=-1").status_code == 404
    rows = store.rows()
    assert [shown(row) for row in rows] == [("m", {"a": 1}, {"a": 1}, 200, None), ("m", {"a": -1}, None, 404, "HTTPException: 404: negative")]
    assert all(row["latency_ms"] >= 19 for row in rows)


class Item(pydantic.BaseModel):
    x: float


def test_the_annotations_of_a_decorated_handler_are_no_text() -> None:
    """FastAPI up to 0.123.0 evaluates text with the names of predlog's module."""

    async def handler(item: Item, n: int = 1) -> dict[str, float]:
        return {"y": item.x}

    def unknown(item: Missing) -> None:  # type: ignore[name-defined] # noqa: F821
        pass

    decorate = asgi.log_predictions(model_name="m")
    for logged in (decorate(handler), decorate(plainly(handler))):
        signature = inspect.signature(logged)
        assert [parameter.annotation for parameter in signature.parameters.values()] == [Item, int]
        assert signature.return_annotation == dict[str, float]
    assert inspect.signature(decorate(unknown)).parameters["item"].annotation == "Missing"


def test_flask_bodies_that_the_view_reads_by_itself(store: Store) -> None:
    """As a whole or not at all."""
    with store.logger() as logger:
        app = flask_app(logger, part="part", rest="rest", whole="whole", line="line", raw="raw", uncached="uncached", form="form")

        def view(name: str, read: Any) -> None:
            app.add_url_rule(f"/{name}", name, lambda: {"read": read(flask.request)}, methods=["POST"])

        view("part", lambda request: request.stream.read(4).decode())
        view("rest", lambda request: [request.stream.read(4).decode(), request.get_data().decode()])
        view("whole", lambda request: json.load(request.stream))
        view("line", lambda request: json.loads(request.stream.readline()))
        view("raw", lambda request: request.environ["wsgi.input"].read(4).decode())
        view("uncached", lambda request: request.get_json(cache=False))
        view("form", lambda request: dict(request.form))
        client = app.test_client()
        for path in ("part", "rest", "whole", "line", "raw", "uncached", "form"):
            assert client.post(f"/{path}", data=b'{"a":1}\n', content_type="application/json").status_code == 200
        assert client.post("/whole?q=1", data=b"[1]", content_type="application/json").json == {"read": [1]}
    rows = store.rows()
    assert [(row["model_name"], row["inputs"]) for row in rows if row["inputs"] is not None] == [("form", {"a": 1}), ("whole", {"q": "1"})]
    assert len(rows) == 8


def test_what_is_left_of_a_body_under_flasks_own_server(store: Store) -> None:
    """All that has come is in its buffer: the body's rest, and the next request."""
    with store.logger() as logger:
        app = flask_app(logger, part="part")
        app.add_url_rule("/part", view_func=lambda: {"read": flask.request.stream.read(4).decode()}, methods=["POST"])
        server = make_server("127.0.0.1", 0, app)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with socket.create_connection(("127.0.0.1", server.server_port), timeout=5) as client:
                head = b"POST /part HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n"
                client.sendall(head + b'{"p":1234567}' + head + b'{"p":7654321}')
                received = b""
                while part := client.recv(4096):
                    received += part
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
    assert received.partition(b" ")[2].startswith(b"200")
    assert [shown(row) for row in store.rows()][:1] == [("part", None, {"read": '{"p"'}, 200, None)]


def test_two_extensions_with_the_same_route(store: Store, tmp_path: Any) -> None:
    audit = Store(tmp_path / "audit")
    with store.logger() as logger, audit.logger() as other:
        app = flask_app(logger, predict="m")
        PredictionLog(app, routes={"/predict": "audited"}, logger=other)

        @app.get("/predict")
        def predict() -> dict[str, float]:
            return {"a": 1 / (1 - len(flask.request.args))}

        client = app.test_client()
        assert client.get("/predict").json == {"a": 1}
        assert client.get("/predict?fail=1").status_code == 500
    for name, each in (("m", store), ("audited", audit)):
        assert [shown(row) for row in each.rows()] == [
            (name, None, {"a": 1}, 200, None),
            (name, {"fail": "1"}, None, 500, "ZeroDivisionError: division by zero"),
        ]


def test_a_response_of_parts_that_are_no_list_stays_as_it_is(store: Store) -> None:
    parts = [b"[1,", b"2]"]
    bodies = {"deque": collections.deque(parts), "tuple": tuple(parts), "list": parts}
    with store.logger() as logger:
        app = flask_app(logger, **{kind: kind for kind in bodies})
        for kind, body in bodies.items():
            app.add_url_rule(f"/{kind}", kind, lambda body=body: flask.Response(body, mimetype="application/json"))
        client = app.test_client()
        for kind, body in bodies.items():
            response = client.get(f"/{kind}")
            assert "Content-Length" not in response.headers or kind != "deque"
            assert response.data == b"[1,2]"
    assert [shown(row)[:3] for row in store.rows()] == [("deque", None, None), ("tuple", None, [1, 2]), ("list", None, [1, 2])]


def test_what_an_exceptions_handler_answers(store: Store) -> None:
    """Starlette's own for all exceptions stands outside of all middleware of the application: README.md says so."""
    for wrapped in (False, True):
        app: Any = FastAPI()

        app.add_exception_handler(Exception, lambda _request, _error: JSONResponse({"e": 1}, status_code=503))
        app.add_api_route("/predict", lambda: 1 / 0)
        with store.logger() as logger:
            if wrapped:
                app = asgi.PredictionLogMiddleware(app, routes={"/predict": "wrapped"}, logger=logger)
            else:
                app.add_middleware(asgi.PredictionLogMiddleware, routes={"/predict": "within"}, logger=logger)
            assert TestClient(app, raise_server_exceptions=False).get("/predict").status_code == 503
    error = "ZeroDivisionError: division by zero"
    assert [shown(row) for row in store.rows()] == [("within", None, None, 500, error), ("wrapped", None, {"e": 1}, 503, error)]


def test_a_stream_that_fails_midway(store: Store) -> None:
    """A middleware of Starlette's base class within predlog's ends it first: README.md says so."""

    class Base(BaseHTTPMiddleware):
        async def dispatch(self, request: Any, call_next: Any) -> Any:
            return await call_next(request)

    def parts() -> Iterator[bytes]:
        yield b"[1,"
        raise RuntimeError("midway")

    with store.logger() as logger:
        for within in (False, True):
            app = FastAPI()
            app.add_api_route("/predict", lambda: StreamingResponse(parts(), media_type="application/json"))
            if within:
                app.add_middleware(Base)
            app.add_middleware(asgi.PredictionLogMiddleware, routes={"/predict": "m"}, logger=logger)
            with pytest.raises(RuntimeError, match="midway"):
                TestClient(app).get("/predict")
    assert [shown(row) for row in store.rows()] == [("m", None, "[1,", 200, "RuntimeError: midway"), ("m", None, "[1,", 200, None)]


def test_a_default_logger_that_cannot_be_opened_is_not_tried_with_each_request(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    predlog.close()
    now, tries = [1000.0], []
    monkeypatch.setattr(_capture, "_failed", None)
    monkeypatch.setattr(_capture, "time", types.SimpleNamespace(monotonic=lambda: now[0]))

    def fails() -> Any:
        tries.append(now[0])
        raise ValueError("nonsense")

    with monkeypatch.context() as broken, caplog.at_level(logging.ERROR, "predlog"):
        broken.setattr(_capture, "opened", fails)
        for _ in range(400):
            assert _capture.default() is None
            now[0] += 0.05
        waits = [round(later - earlier, 2) for earlier, later in zip(tries, tries[1:])]
        assert waits == sorted(waits) and waits[0] <= 0.15 and 5 <= waits[-1] <= 5.1 and len(tries) < 12
        assert len([record for record in caplog.records if "not logged" in record.message]) == 1
        # One that the application has made counts at once.
        assert _capture.default() is None
        broken.undo()
        with predlog.init(direct={"dir": str(store.dir)}) as logger:
            assert _capture.default() is logger
        predlog.close()
        broken.setattr(_capture, "opened", fails)
        assert _capture.default() is None
        assert len([record for record in caplog.records if "not logged" in record.message]) == 2
