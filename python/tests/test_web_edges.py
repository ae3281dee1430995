"""What requests and responses can be, beside JSON in and JSON out: the integrations never change them, and never fail them."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import flask
import pytest
from conftest import Store
from fastapi import BackgroundTasks, FastAPI, Request, Response, WebSocket
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from werkzeug.middleware.dispatcher import DispatcherMiddleware

import predlog
from predlog import _capture, asgi
from predlog.flask import PredictionLog, log_predictions

Message = dict[str, Any]
JSON = {"content-type": "application/json"}


def shown(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["model_name"], row["inputs"], row["outputs"], row["status_code"], row["error"]


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


def test_a_response_that_a_flask_view_aborts_with(store: Store) -> None:
    app = flask.Flask("test")
    with store.logger() as logger:

        @app.get("/predict")
        @log_predictions(model_name="m", logger=logger)
        def predict() -> Any:
            flask.abort(flask.make_response(flask.jsonify(e=1), 418))

        assert app.test_client().get("/predict").status_code == 418
    assert [shown(row) for row in store.rows()] == [("m", None, {"e": 1}, 418, None)]


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


def flask_app(logger: predlog.Logger | None, **routes: str) -> flask.Flask:
    app = flask.Flask("test")
    PredictionLog(app, routes={f"/{path.replace('__', '/')}": model for path, model in routes.items()}, logger=logger)
    return app


def test_flask_bodies(store: Store) -> None:
    with store.logger() as logger:
        app = flask_app(logger, predict="m")

        @app.route("/predict", methods=["GET", "POST"])
        def predict() -> Any:
            return {"read": len(flask.request.get_data())}

        client = app.test_client()
        body = json.dumps({"a": 1}).encode()
        assert client.post("/predict", data=body, content_type="application/json; charset=utf-8").json == {"read": len(body)}
        client.post("/predict", data=b"{broken", headers=JSON)
        client.post("/predict", data=gzip.compress(body), headers={**JSON, "content-encoding": "gzip"})
        client.post("/predict", data=b'"' + b"x" * 2_000_000 + b'"', headers=JSON)
        client.post("/predict", data={"a": "1"})
        client.get("/predict?a=1")
        assert client.head("/predict").status_code == client.options("/predict").status_code == 200
    assert [row["inputs"] for row in store.rows()] == [{"a": 1}, "{broken", {"a": 1}, None, None, {"a": "1"}]


def test_flask_edges(store: Store) -> None:
    with store.logger() as logger:
        app = flask_app(logger, v1__predict="blueprint", large="large", stream="stream", teardown="teardown", packed="packed")
        blueprint = flask.Blueprint("v1", __name__, url_prefix="/v1")

        @blueprint.post("/predict")
        def predict() -> Any:
            flask.abort(409, "busy")

        @app.post("/large")
        def large() -> Any:
            return {"size": len(flask.request.get_json())}

        @app.get("/stream")
        def stream() -> Any:
            def parts() -> Iterator[str]:
                yield "1"
                raise RuntimeError("midway")

            return flask.Response(flask.stream_with_context(parts()), mimetype="application/json")

        @app.get("/teardown")
        def teardown() -> Any:
            @flask.after_this_request
            def later(response: Any) -> Any:
                return response

            return [1]

        @app.get("/packed")
        def packed() -> Any:
            response = flask.jsonify(x=1)
            response.set_data(gzip.compress(response.get_data()))
            response.headers["Content-Encoding"] = "gzip"
            return response

        @app.teardown_request
        def fails(_error: BaseException | None) -> None:
            if flask.request.path == "/teardown":
                raise RuntimeError("teardown")

        app.register_blueprint(blueprint)
        app.config["MAX_CONTENT_LENGTH"] = 100
        client = app.test_client()
        assert client.post("/v1/predict", json={"a": 1}).status_code == 409
        assert client.post("/large", json="x" * 1_000).status_code == 413
        with pytest.raises(RuntimeError, match="midway"):
            _ = client.get("/stream").data
        with pytest.raises(RuntimeError, match="teardown"):
            client.get("/teardown")
        assert client.get("/packed").headers["Content-Encoding"] == "gzip"
    assert [shown(row) for row in store.rows()] == [
        ("blueprint", {"a": 1}, None, 409, None),
        ("large", None, None, 413, None),
        ("stream", None, None, 200, None),
        ("teardown", None, [1], 200, None),
        ("packed", None, {"x": 1}, 200, None),
    ]


@pytest.mark.parametrize("dispatcher_within", [False, True])
def test_flask_applications_that_share_a_server_log_their_own_requests(store: Store, dispatcher_within: bool) -> None:
    with store.logger() as logger:
        outer, unwatched, inner = flask.Flask("outer"), flask.Flask("unwatched"), flask_app(logger, predict="inner")
        for app in (outer, unwatched, inner):
            app.add_url_rule("/predict", view_func=lambda app=app: {"app": app.name})

        def dispatch() -> None:
            outer.wsgi_app = DispatcherMiddleware(outer.wsgi_app, {"/inner": inner, "/unwatched": unwatched})  # type: ignore[method-assign]

        if dispatcher_within:
            dispatch()
        PredictionLog(outer, routes={"/predict": "outer"}, logger=logger)
        if not dispatcher_within:
            dispatch()
        client = outer.test_client()
        for path, name in (("/predict", "outer"), ("/inner/predict", "test"), ("/unwatched/predict", "unwatched")):
            assert client.get(path).json == {"app": name}
    assert [shown(row) for row in store.rows()] == [("outer", None, {"app": "outer"}, 200, None), ("inner", None, {"app": "test"}, 200, None)]


def test_flask_routes_of_two_extensions(store: Store) -> None:
    with store.logger() as logger:
        app = flask.Flask("test")
        for name in ("one", "two"):
            PredictionLog(app, routes={f"/{name}": name}, model_version=f"of {name}", logger=logger)
            app.add_url_rule(f"/{name}", name, lambda name=name: 1 / 0 if flask.request.args else {"name": name})
        client = app.test_client()
        for path in ("/one", "/two"):
            assert client.get(path).status_code == 200
            assert client.get(f"{path}?fail=1").status_code == 500
    error = "ZeroDivisionError: division by zero"
    assert [(row["model_version"], *shown(row)) for row in store.rows()] == [
        ("of one", "one", None, {"name": "one"}, 200, None),
        ("of one", "one", {"fail": "1"}, None, 500, error),
        ("of two", "two", None, {"name": "two"}, 200, None),
        ("of two", "two", {"fail": "1"}, None, 500, error),
    ]


def test_what_flask_gives_up_on_is_logged_once(store: Store) -> None:
    with store.logger() as logger:
        app, copying = flask_app(logger, exits="exits", fails="fails"), flask.Flask("copying")
        wsgi_app = copying.wsgi_app
        copying.wsgi_app = lambda environ, start_response: wsgi_app({**environ}, start_response)  # type: ignore[method-assign]
        PredictionLog(copying, routes={"/copied": "copied"}, logger=logger)

        @app.get("/exits")
        def exits() -> Any:
            raise SystemExit(3)

        @copying.get("/copied")
        def copied() -> Any:
            raise ValueError("through to the server")

        @app.get("/fails")
        def fails() -> Any:
            return {"answer": 1}

        @app.after_request
        def _fails_later(response: flask.Response) -> flask.Response:
            if flask.request.path == "/fails":
                raise RuntimeError("after the request")
            return response

        client = app.test_client()
        with pytest.raises(SystemExit):
            client.get("/exits")
        assert client.get("/fails").status_code == 500
        copying.config["PROPAGATE_EXCEPTIONS"] = True
        with pytest.raises(ValueError, match="through"):
            copying.test_client().get("/copied")
    assert [shown(row) for row in store.rows()] == [
        ("exits", None, None, 500, "SystemExit: 3"),
        ("fails", None, None, 500, "RuntimeError: after the request"),
        ("copied", None, None, 500, "ValueError: through to the server"),
    ]


def test_a_wrong_configuration_fails_no_request(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    predlog.close()
    monkeypatch.setenv("PREDLOG_DIRECT__STORE", "nonsense")
    app = flask_app(None, predict="m")
    app.add_url_rule("/predict", view_func=lambda: {"a": 1})
    with caplog.at_level(logging.ERROR, "predlog"):
        assert app.test_client().get("/predict").json == {"a": 1}
    assert "PREDLOG_DIRECT__STORE" in caplog.text or "nonsense" in caplog.text
    with TestClient(asgi.PredictionLogMiddleware(FastAPI(), routes={"/docs": "m"})) as client:
        assert client.get("/docs").status_code == 200
