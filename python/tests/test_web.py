"""Flask, ASGI servers and wrapped models."""

from __future__ import annotations

import copy
import io
import logging
import pickle
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import joblib
import numpy as np
import pandas as pd
import pydantic
import pytest
from conftest import Store, shown
from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.validation import check_is_fitted

import predlog
from predlog import asgi
from predlog.flask import PredictionLog, log_predictions

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_flask(store: Store) -> None:
    logger = store.logger()
    app = flask.Flask("test")
    log = PredictionLog(routes={"/auto/<name>": "auto", "/stream": "stream"}, logger=logger)
    log.init_app(app)

    @app.post("/auto/<name>")
    def auto(name: str) -> Any:
        if name == "bad":
            raise ValueError("bad name")
        return {"name": name}

    @app.get("/stream")
    def stream() -> Any:
        return flask.Response(iter(["1", "2"]), mimetype="application/json")

    @app.post("/decorated")
    @log_predictions(model_name="decorated", model_version="2", logger=logger)
    def decorated() -> Any:
        if flask.request.get_json()["x"] < 0:
            flask.abort(422)
        return {"y": 1}, 201

    @app.get("/health")
    def health() -> str:
        return "ok"

    client = app.test_client()
    assert client.post("/auto/a", json={"x": 1}, headers={"X-Request-Id": "r1"}).status_code == 200
    assert client.post("/auto/bad", json={"x": 2}).status_code == 500
    assert client.get("/stream?x=1").data == b"12"
    assert client.post("/decorated", json={"x": 1}).status_code == 201
    assert client.post("/decorated", json={"x": -1}).status_code == 422
    assert client.get("/health").status_code == 200
    app.config["PROPAGATE_EXCEPTIONS"] = True
    with pytest.raises(ValueError):
        client.post("/auto/bad", json={"x": 3})
    logger.close()
    rows = store.rows()
    assert rows[0]["request_id"] == "r1"
    assert [shown(row) for row in rows] == [
        ("auto", {"x": 1}, {"name": "a"}, 200, None),
        ("auto", {"x": 2}, None, 500, "ValueError: bad name"),
        ("stream", {"x": "1"}, None, 200, None),
        ("decorated", {"x": 1}, {"y": 1}, 201, None),
        ("decorated", {"x": -1}, None, 422, shown(rows[4])[4]),
        ("auto", {"x": 3}, None, 500, "ValueError: bad name"),
    ]
    assert rows[4]["error"].startswith("UnprocessableEntity: 422")


class Wine(pydantic.BaseModel):
    alcohol: float


def asgi_app(logger: predlog.Logger) -> FastAPI:
    app = FastAPI()
    routes = {"/predict": "wine", "/models/{name}": "named", "/stream": "stream"}
    app.add_middleware(asgi.PredictionLogMiddleware, routes=routes, model_version="1", logger=logger)

    @app.post("/predict")
    async def predict(wine: Wine) -> dict[str, float]:
        if wine.alcohol < 0:
            raise HTTPException(422, "negative")
        if wine.alcohol > 100:
            raise ValueError("too strong")
        return {"score": wine.alcohol / 2}

    @app.get("/models/{name}")
    def named(name: str) -> str:
        return name

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(iter(["a", "b"]), media_type="text/plain")

    @app.post("/async")
    @asgi.log_predictions(model_name="async", logger=logger)
    async def decorated(wine: Wine) -> dict[str, float]:
        return {"score": wine.alcohol}

    @app.post("/sync")
    @asgi.log_predictions(model_name="sync", logger=logger)
    def synchronous(wine: Wine) -> dict[str, float]:
        raise HTTPException(418, "teapot")

    @app.get("/health")
    def health() -> str:
        return "ok"

    return app


def test_fastapi(store: Store) -> None:
    logger = store.logger()
    client = TestClient(asgi_app(logger), raise_server_exceptions=False)
    assert client.post("/predict", json={"alcohol": 9}, headers={"x-request-id": "r1"}).json() == {"score": 4.5}
    assert client.post("/predict", json={"alcohol": -1}).status_code == 422
    assert client.post("/predict", json={"alcohol": 101}).status_code == 500
    assert client.get("/models/a").json() == "a"
    assert client.get("/stream").text == "ab"
    assert client.post("/async", json={"alcohol": 9}).json() == {"score": 9}
    assert client.post("/sync", json={"alcohol": 9}).status_code == 418
    assert client.get("/health").status_code == 200
    logger.close()
    rows = store.rows()
    assert rows[0]["request_id"] == "r1" and rows[0]["model_version"] == "1"
    assert [shown(row) for row in rows] == [
        ("wine", {"alcohol": 9}, {"score": 4.5}, 200, None),
        ("wine", {"alcohol": -1}, {"detail": "negative"}, 422, None),
        ("wine", {"alcohol": 101}, None, 500, "ValueError: too strong"),
        ("named", None, "a", 200, None),
        ("stream", None, None, 200, None),
        ("async", {"alcohol": 9.0}, {"score": 9.0}, 200, None),
        ("sync", {"alcohol": 9.0}, None, 418, shown(rows[6])[4]),
    ]
    assert rows[6]["error"].startswith("HTTPException")


def test_the_middleware_passes_each_message_at_once(store: Store) -> None:
    import asyncio

    sent: list[Any] = []
    seen: list[int] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        for part in (b"[1,", b"2]"):
            await send({"type": "http.response.body", "body": part, "more_body": part == b"[1,"})
            seen.append(len(sent))

    async def keep(message: Any) -> None:
        sent.append(message)

    async def nothing() -> Any:
        return {"type": "http.disconnect"}

    with store.logger() as logger:
        middleware = asgi.PredictionLogMiddleware(app, routes={"/p": "m"}, logger=logger)
        asyncio.run(middleware({"type": "http", "path": "/p", "headers": []}, nothing, keep))
    assert seen == [2, 3]
    assert store.rows()[0]["outputs"] == [1, 2]


def test_a_wrapped_model(store: Store) -> None:
    data = load_wine(as_frame=True)
    model = LogisticRegression(max_iter=50).fit(data.data / data.data.max(), data.target)
    with store.logger() as logger:
        wrapped = predlog.wrap(model, model_name="wine", model_version="1", logger=logger)
        frame: pd.DataFrame = (data.data / data.data.max()).head(3)
        assert np.array_equal(wrapped.predict(frame), model.predict(frame))
        wrapped.predict_proba(frame)
        with pytest.raises(ValueError):
            wrapped.predict([[1]])
        assert wrapped.classes_ is model.classes_
    rows = store.rows()
    assert [row["row_index"] for row in rows] == [0, 1, 2, 0, 1, 2, 0]
    assert len({row["request_id"] for row in rows}) == 3
    assert set(rows[0]["inputs"]) == set(frame.columns)
    assert len(rows[3]["outputs"]) == 3
    assert rows[6]["error"].startswith("ValueError")


@pytest.mark.parametrize("height", [2, 3])
def test_a_wrapped_model_of_several_outputs(store: Store, height: int) -> None:
    """As many outputs as rows, and not."""
    features = [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    model = DecisionTreeClassifier().fit(features, [[0, 0], [1, 1], [0, 2]])
    answers = model.predict_proba(features[:height])
    assert [len(answer) for answer in answers] == [height] * 2
    with store.logger() as logger:
        wrapped = predlog.wrap(model, logger=logger)
        assert [answer.tolist() for answer in wrapped.predict_proba(features[:height])] == [answer.tolist() for answer in answers]
        assert logger.log_batch(features[:height], answers, model_name="batch") == height
        assert logger.log_batch([1, 2], [np.zeros((1, 1)), np.ones((1, 1))], model_name="rows") == 2
    rows = store.rows()
    for name in ("DecisionTreeClassifier", "batch"):
        assert [row["outputs"] for row in rows if row["model_name"] == name] == [[answer[row].tolist() for answer in answers] for row in range(height)]
    assert [row["outputs"] for row in rows if row["model_name"] == "rows"] == [[[0.0]], [[1.0]]]


def test_what_a_wrapped_model_is_asked_the_model_answers() -> None:
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    wrapped = predlog.wrap(pipeline)
    with pytest.raises(NotFittedError):
        check_is_fitted(wrapped)
    with pytest.raises(NotFittedError):
        check_is_fitted(predlog.wrap(LogisticRegression()))
    wrapped.fit([[0.0], [1.0]], [0, 1])
    check_is_fitted(wrapped)
    check_is_fitted(predlog.wrap(pipeline[-1]))
    check_is_fitted(predlog.wrap(pipeline[-1]), "coef_")
    assert len(wrapped) == 2 and wrapped[0] is pipeline[0] and wrapped["logisticregression"] is pipeline[1]
    assert vars(wrapped) == vars(pipeline) and bool(wrapped)
    forest = RandomForestClassifier(3).fit([[0.0], [1.0]], [0, 1])
    assert list(predlog.wrap(forest)) == forest.estimators_
    plain = predlog.wrap(pipeline[-1])
    assert bool(plain) and not hasattr(plain, "__len__") and not hasattr(plain, "__iter__")
    with pytest.raises(TypeError):
        len(plain)


def by_joblib(model: Any) -> Any:
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    return joblib.load(file)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), by_joblib], ids=["copy", "deepcopy", "pickle", "joblib"])
def test_copies_of_a_wrapped_model_are_wrapped(store: Store, again: Any) -> None:
    model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    with store.logger() as logger:
        predlog.init(direct={"dir": str(store.dir)})
        wrapped = again(predlog.wrap(model, model_name="m", model_version="2", logger=logger))
        assert repr(wrapped).startswith("predlog.wrap(")
        assert wrapped.predict([[0.0]]).tolist() == [0]
        predlog.close()
    assert [(row["model_name"], row["model_version"]) for row in store.rows()] == [("m", "2")]


def test_a_wrapped_model_predicts_without_a_logger(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    predlog.close()
    monkeypatch.setenv("PREDLOG_DIRECT__STORE", "nonsense")
    model = predlog.wrap(LogisticRegression().fit([[0.0], [1.0]], [0, 1]))
    with caplog.at_level(logging.ERROR, "predlog"):
        assert model.predict([[0.0]]).tolist() == [0]
    assert "nonsense" in caplog.text


def test_what_is_masked_of_a_wrapped_models_inputs_is_null(store: Store) -> None:
    class Model:
        def predict(self, values: Any) -> Any:
            return [0] * len(values)

    with store.logger() as logger:
        predlog.wrap(Model(), logger=logger).predict(np.ma.array([[1.5, 2.0]], mask=[[False, True]]))
    assert [row["inputs"] for row in store.rows()] == [[1.5, None]]


@pytest.fixture
def example_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.chdir(tmp_path)
    yield Store(tmp_path / "predlog-data")
    predlog.close()


def test_the_flask_example(example_dir: Store) -> None:
    app = runpy.run_path(str(EXAMPLES / "flask_server.py"))["app"]
    assert app.test_client().post("/predict", json={"alcohol": 9}).get_json() == {"score": 4.5}
    predlog.close()
    assert shown(example_dir.rows()[0]) == ("wine", {"alcohol": 9}, {"score": 4.5}, 200, None)


def test_the_fastapi_example(example_dir: Store) -> None:
    app = runpy.run_path(str(EXAMPLES / "fastapi_server.py"))["app"]
    assert TestClient(app).post("/predict", json={"alcohol": 9}).json() == {"score": 4.5}
    predlog.close()
    assert shown(example_dir.rows()[0]) == ("wine", {"alcohol": 9}, {"score": 4.5}, 200, None)


@pytest.mark.parametrize("name", ["flask_server.py", "fastapi_server.py"])
def test_the_readme_has_the_examples_as_they_are(name: str) -> None:
    readme = (EXAMPLES.parent.parent / "README.md").read_text()
    assert f"```python\n{(EXAMPLES / name).read_text()}```" in readme


@pytest.mark.parametrize("checker", [["mypy", "--strict"], ["pyright", "--pythonpath", sys.executable]], ids=["mypy", "pyright"])
def test_types(checker: list[str]) -> None:
    checked = [*EXAMPLES.glob("*.py"), EXAMPLES.parent / "package" / "predlog"]
    command = [sys.executable, "-m", *checker, *map(str, checked)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=EXAMPLES.parent)
    assert result.returncode == 0, result.stdout
