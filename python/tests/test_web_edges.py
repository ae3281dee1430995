"""What requests and responses can be, beside JSON in and JSON out: the integrations never change them, and never fail them."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from conftest import Store, flask_app, shown
from fastapi import BackgroundTasks, FastAPI, Request, Response, WebSocket
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.routing import Mount, Route

import predlog
from predlog import _capture, asgi

Message = dict[str, Any]
JSON = {"content-type": "application/json"}


async def echo(request: Request) -> JSONResponse:
    await request.body()
    return JSONResponse({"path": request.url.path})


def test_asgi_bodies(store: Store) -> None:
    app = FastAPI()

    @app.api_route("/predict", methods=["GET", "HEAD", "OPTIONS", "POST"])
    async def predict(request: Request) -> Response:
        return Response(json.dumps(len(await request.body())), media_type="application/json; charset=utf-8")

    with store.logger() as logger:
        client = TestClient(asgi.PredictionLogMiddleware(app, routes={"/predict": "m"}, logger=logger))
        body = json.dumps({"a": 1}).encode()
        assert client.post("/predict", content=body, headers={"content-type": "Application/JSON; charset=utf-8"}).json() == len(body)
        client.post("/predict", content=body)
        client.post("/predict", content=b"{broken", headers=JSON)
        client.post("/predict", content=gzip.compress(body), headers={**JSON, "content-encoding": "gzip"})
        client.post("/predict", content=b"no gzip", headers={**JSON, "content-encoding": "gzip"})
        client.post("/predict", content=gzip.compress(b'"' + b"x" * 2_000_000 + b'"'), headers={**JSON, "content-encoding": "gzip"})
        client.post("/predict", content=body, headers={**JSON, "content-encoding": "br"})
        client.post("/predict", content=b'"' + b"x" * 2_000_000 + b'"', headers=JSON)
        client.post("/predict", content=b"a=1", headers={"content-type": "application/x-www-form-urlencoded"})
        client.get("/predict?a=1&b=x%20y&c=")
        assert client.head("/predict").status_code == client.options("/predict").status_code == 200
    inputs = [row["inputs"] for row in store.rows()]
    assert inputs == [{"a": 1}, {"a": 1}, "{broken", {"a": 1}, None, None, None, None, None, {"a": "1", "b": "x y", "c": ""}]


def test_asgi_bodies_in_parts(store: Store) -> None:
    large = b'"' + b"x" * 600_000
    exchanges: list[tuple[list[bytes], list[bytes], bytes, Any, Any]] = [
        ([b'{"a":', b"", b"1}"], [b"", b"[1,", b"2]"], b"application/json", {"a": 1}, [1, 2]),
        ([large, b'y"'], [b"1", b""], b"application/json", (large + b'y"').decode().strip('"'), 1),
        ([large, large], [large, large, b'"'], b"application/json", None, None),
        ([b"1"], [b"a", b"b"], b"text/plain", {"q": "1"}, None),
        ([], [b"[2]", b""], b"application/json", {"q": "1"}, [2]),
    ]
    with store.logger() as logger:
        for request, response, kind, _inputs, _outputs in exchanges:
            sent: list[Message] = []
            received = iter(request)

            async def app(_scope: Any, receive: Any, send: Any) -> None:
                for _ in request:
                    await receive()
                await send({"type": "http.response.start", "status": 200, "headers": [[b"Content-Type", kind]]})
                for at, part in enumerate(response):
                    await send({"type": "http.response.body", "body": part, "more_body": at < len(response) - 1})

            async def receive() -> Message:
                return {"type": "http.request", "body": next(received), "more_body": True}

            async def send(message: Any) -> None:
                sent.append(message)

            scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"q=1", "headers": [(b"content-type", kind)]}
            asyncio.run(asgi.PredictionLogMiddleware(app, routes={"/predict": "m"}, logger=logger)(scope, receive, send))
            assert [message["body"] for message in sent[1:]] == response
    assert [(row["inputs"], row["outputs"]) for row in store.rows()] == [exchange[3:] for exchange in exchanges]


def test_a_response_that_is_packed(store: Store) -> None:
    app = FastAPI()
    app.add_middleware(GZipMiddleware, minimum_size=1)

    @app.get("/predict")
    async def predict() -> dict[str, str]:
        return {"score": "x" * 2_000}

    with store.logger() as logger:
        app.add_middleware(asgi.PredictionLogMiddleware, routes={"/predict": "m"}, logger=logger)
        response = TestClient(app).get("/predict")
        assert response.headers["content-encoding"] == "gzip"
    assert store.rows()[0]["outputs"] == {"score": "x" * 2_000}


def test_templates_mounts_and_prefixes(store: Store) -> None:
    inner = FastAPI()

    @inner.get("/models/list")
    async def names() -> list[str]:
        return []

    @inner.get("/models/{name}")
    async def model(name: str) -> str:
        return name

    plain = Starlette(routes=[Mount("/v2", Starlette(routes=[Route("/files/{path:path}", echo), Route("/items/{id:int}", echo)]))])
    app = FastAPI()
    app.mount("/api", inner)
    app.mount("/plain", plain)
    routes = {"/api/models/{name}": "api", "/plain/v2/files/{path:path}": "file", "/plain/v2/items/{id:int}": "item"}
    with store.logger() as logger:
        wrapped = asgi.PredictionLogMiddleware(app, routes=routes, logger=logger)
        client = TestClient(wrapped)
        assert client.get("/api/models/list").json() == []
        assert client.get("/api/models/a").json() == "a"
        assert client.get("/api/models/a/b").status_code == 404
        assert client.get("/plain/v2/files/a/b.c").status_code == 200
        assert client.get("/plain/v2/items/7").status_code == 200
        assert TestClient(wrapped, root_path="/proxy").get("/proxy/api/models/b").json() == "b"
    assert [shown(row)[:3] for row in store.rows()] == [
        ("api", None, "a"),
        ("file", None, {"path": "/plain/v2/files/a/b.c"}),
        ("item", None, {"path": "/plain/v2/items/7"}),
        ("api", None, "b"),
    ]


def test_routes_are_the_same_whatever_their_parameters_are_called(store: Store) -> None:
    app = FastAPI()

    @app.get("/models/{model_id}")
    async def model(model_id: str) -> str:
        return model_id

    @app.get("/items/{n:int}")
    async def item(n: int) -> int:
        return n

    @app.get("/files/{rest:path}")
    async def file(rest: str) -> str:
        return rest

    @app.get("/concrete/list")
    async def every() -> str:
        return "every"

    @app.get("/concrete/{name}")
    async def concrete(name: str) -> str:
        return name

    routes = {"/models/{id}": "model", "/items/{n}": "item", "/files/{path:path}": "file", "/concrete/wine": "wine", "/concrete/{id}": "concrete"}
    with store.logger() as logger:
        client = TestClient(asgi.PredictionLogMiddleware(app, routes=routes, logger=logger))
        for path in ("models/a", "items/7", "files/a/b", "concrete/wine", "concrete/other", "concrete/list"):
            assert client.get(f"/{path}").status_code == 200
    assert [shown(row)[::2][:2] for row in store.rows()] == [("model", "a"), ("item", 7), ("file", "a/b"), ("wine", "wine"), ("concrete", "other")]


def test_headers_that_are_too_long_lose_no_record(store: Store) -> None:
    app = FastAPI()
    app.add_api_route("/predict", lambda: 1)
    headers = {"X-Request-ID": "r" * 1_025, "traceparent": "t" * 2_000}
    with store.logger(strict=True) as logger:
        assert TestClient(asgi.PredictionLogMiddleware(app, routes={"/predict": "m"}, logger=logger)).get("/predict", headers=headers).json() == 1
        other = flask_app(logger, predict="m")
        other.add_url_rule("/predict", view_func=lambda: {"a": 1})
        assert other.test_client().get("/predict", headers=headers).json == {"a": 1}
        counters = logger.snapshot()
        assert counters["dropped"] == {} and counters["encoded_as_text"] == 4
    rows = store.rows()
    assert [row["request_id"] for row in rows] == [row["traceparent"] for row in rows] == [None, None]
    assert [row["metadata"] for row in rows] == [{"request_id": "r" * 1_025, "traceparent": "t" * 2_000}] * 2


def test_parameters_that_are_there_twice(store: Store) -> None:
    app = FastAPI()
    app.add_api_route("/predict", lambda: 1)
    with store.logger() as logger:
        TestClient(asgi.PredictionLogMiddleware(app, routes={"/predict": "m"}, logger=logger)).get("/predict?a=1&a=2&b=")
        other = flask_app(logger, predict="m")
        other.add_url_rule("/predict", view_func=lambda: {"a": 1})
        other.test_client().get("/predict?a=1&a=2&b=")
    assert [row["inputs"] for row in store.rows()] == [{"a": ["1", "2"], "b": ""}] * 2


class Odd:
    """Raises for whatever it is asked."""

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("asked")


def test_a_decorated_handler_answers_whatever_its_values_are(store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(_capture, "_told", False)
    with store.logger() as logger:

        @asgi.log_predictions(model_name="m", logger=logger)
        def view(_value: Any) -> Response:
            return Response(memoryview(b'{"a":1}'), media_type="application/json")

        with caplog.at_level(logging.ERROR, "predlog"):
            assert view({"x": 1}).body == b'{"a":1}'
            assert view(Odd()).status_code == view(Odd()).status_code == 200
        assert [record.message for record in caplog.records if "not logged" in record.message] == ["a prediction is not logged; others that fail are not told"]
    assert [shown(row) for row in store.rows()] == [("m", {"x": 1}, {"a": 1}, 200, None)]


def test_websockets_and_lifespans_pass(store: Store) -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, int]]:
        seen.append("started")
        yield {"state": 1}
        seen.append("ended")

    app = FastAPI(lifespan=lifespan)

    @app.websocket("/predict")
    async def chat(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_json(await socket.receive_json())
        await socket.close()

    @app.get("/predict")
    async def predict(request: Request) -> int:
        return int(request.state.state)

    with store.logger() as logger:
        app.add_middleware(asgi.PredictionLogMiddleware, routes={"/predict": "m"}, logger=logger)
        with TestClient(app) as client:
            with client.websocket_connect("/predict") as socket:
                socket.send_json([1])
                assert socket.receive_json() == [1]
            assert client.get("/predict").json() == 1
        # The end of the lifespan has delivered it.
        assert len(store.rows()) == 1
    assert seen == ["started", "ended"]


def test_a_request_is_logged_before_its_background_tasks(store: Store) -> None:
    app = FastAPI()

    with store.logger() as logger:
        app.add_middleware(asgi.PredictionLogMiddleware, routes={"/predict": "m"}, logger=logger)

        def afterwards() -> None:
            assert logger.snapshot()["accepted"] == 1
            raise RuntimeError("later")

        @app.get("/predict")
        async def predict(tasks: BackgroundTasks) -> int:
            tasks.add_task(afterwards)
            return 1

        assert TestClient(app, raise_server_exceptions=False).get("/predict").json() == 1
    assert [shown(row) for row in store.rows()] == [("m", None, 1, 200, None)]


def scope(path: str = "/predict") -> Message:
    return {"type": "http", "method": "POST", "path": path, "headers": [(b"content-type", b"application/json")], "query_string": b""}


async def never() -> Message:
    await asyncio.sleep(3600)
    raise AssertionError


def test_a_cancelled_request_is_logged_and_stays_cancelled(store: Store) -> None:
    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        await receive()

    async def send(_message: Any) -> None:
        raise AssertionError

    async def main(logger: predlog.Logger) -> None:
        task = asyncio.ensure_future(asgi.PredictionLogMiddleware(app, routes={"/predict": "m"}, logger=logger)(scope(), never, send))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with store.logger() as logger:
        asyncio.run(main(logger))
    assert [shown(row) for row in store.rows()] == [("m", None, None, 500, "CancelledError: ")]


def test_a_client_that_goes_away_and_an_error_midway(store: Store) -> None:
    """What was sent until then is what the record has; the error goes on to the server."""

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Content-Type", b"application/json")]})
        await send({"type": "http.response.body", "body": b"[1,", "more_body": True})
        raise ConnectionError("gone")

    messages = iter([{"type": "http.request", "body": b"[5", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Message:
        return next(messages)

    async def send(_message: Message) -> None:
        pass

    with store.logger() as logger:
        middleware = asgi.PredictionLogMiddleware(app, routes={"/predict": "m"}, logger=logger)
        with pytest.raises(ConnectionError):
            asyncio.run(middleware(scope(), receive, send))
    assert [shown(row) for row in store.rows()] == [("m", "[5", "[1,", 200, "ConnectionError: gone")]


def test_an_error_that_another_middleware_answers(store: Store) -> None:
    """The outermost one sees the answer first, and then the exception."""
    app = FastAPI()

    @app.get("/predict")
    async def predict() -> None:
        raise ValueError("broken")

    with store.logger() as logger:
        outer = asgi.PredictionLogMiddleware(app, routes={"/predict": "m"}, logger=logger)
        assert TestClient(outer, raise_server_exceptions=False).get("/predict").status_code == 500
    assert [shown(row) for row in store.rows()] == [("m", None, None, 500, "ValueError: broken")]


def test_a_decorated_handler_that_answers_responses(store: Store) -> None:
    app = FastAPI()
    logger = store.logger()

    @app.post("/json")
    @asgi.log_predictions(model_name="json", logger=logger)
    async def as_json(request: Request, a: int) -> Response:
        return JSONResponse({"a": a}, status_code=201)

    @app.post("/stream")
    @asgi.log_predictions(model_name="stream", logger=logger)
    async def as_stream(a: int) -> Response:
        return StreamingResponse(iter(["1"]), media_type="application/json")

    client = TestClient(app)
    assert client.post("/json?a=1").status_code == 201
    assert client.post("/stream?a=2").json() == 1
    logger.close()
    assert [shown(row) for row in store.rows()] == [("json", {"a": 1}, {"a": 1}, 201, None), ("stream", {"a": 2}, None, 200, None)]
    assert logger.snapshot()["encoded_as_text"] == 0
