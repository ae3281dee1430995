"""Models of all kinds that are wrapped, and the types of what users write."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import sklearn
from conftest import Store, logged
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import predlog
from predlog import _rows

X = np.array([[0.0, 1.0], [1.0, 3.0], [2.0, 0.5], [3.0, 2.0]])
Y = [0, 1, 0, 1]


# A large prediction loses nothing.


class First:
    def predict(self, rows: Any) -> Any:
        return rows[:, 0]


def test_rows_of_a_large_prediction_wait_for_room(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_rows, "ROW_SECONDS", 1e-3)  # A store may be slow; how long it is in earnest says the next test.
    monkeypatch.setattr(_rows, "MAX_WAIT_SECONDS", 60.0)
    with store.logger(logger={"queue_bytes": "8MiB"}) as logger:
        predlog.wrap(First(), model_name="m", logger=logger).predict(np.random.default_rng(0).random((200_000, 12)))
        assert logger.flush(60.0)
        totals = logger.snapshot()
    assert (totals["delivered"], totals["dropped"]) == (200_000, {})


@pytest.mark.parametrize(("height", "expected"), [(2, 40e-6), (1_000_000, 10.0)])
def test_rows_of_a_prediction_wait_in_proportion(store: Store, monkeypatch: pytest.MonkeyPatch, height: int, expected: float) -> None:
    waits: list[float] = []

    class Watched(predlog.Logger):
        def _log_columns(self, inputs: Any, outputs: Any, fields: Any, timeout: float) -> int:
            waits.append(timeout)
            return 0

    with Watched({"direct": {"dir": str(store.dir)}}) as logger:
        predlog.wrap(First(), logger=logger).predict(np.zeros((height, 1), "int8"))
    assert waits == [pytest.approx(expected)]


# Rows of another width, also of a sparse matrix.


class Named:
    """Was trained with two features."""

    feature_names_in_ = ("a", "b")

    def predict(self, rows: Any) -> Any:
        return np.zeros(rows.shape[0])


OTHER_WIDTHS: dict[str, tuple[Any, Any]] = {
    "wider": (np.array([[1.0, 2.0, 7.0]]), [1.0, 2.0, 7.0]),
    "narrower": (np.array([[1.0]]), [1.0]),
    "as wide": (np.array([[1.0, 2.0]]), {"a": 1.0, "b": 2.0}),
    "sparse": (scipy.sparse.csr_matrix([[1.0, 0.0, 7.0]]), {"0": 1.0, "2": 7.0}),
}


@pytest.mark.parametrize("name", OTHER_WIDTHS)
def test_a_row_of_another_width_than_the_features_is_whole(store: Store, name: str) -> None:
    rows, expected = OTHER_WIDTHS[name]
    with store.logger() as logger:
        predlog.wrap(Named(), logger=logger).predict(rows)
    assert logged(store) == [(expected, 0.0, None)]


# The inputs by any keyword.


class Keywords:
    def predict(self, x: Any = None, *, batch_size: int = 32, inputs: Any = None) -> Any:
        return x if inputs is None else inputs


@pytest.mark.parametrize("keywords", [{"x": [5]}, {"batch_size": 1, "x": [5]}, {"inputs": [5]}])
def test_inputs_by_other_keywords(store: Store, keywords: dict[str, Any]) -> None:
    with store.logger() as logger:
        assert predlog.wrap(Keywords(), logger=logger).predict(**keywords) == [5]
    assert logged(store) == [(5, 5, None)]


class Odd:
    def predict(self, rows: Any, method: str = "") -> Any:
        return [method] * len(rows)


def test_a_keyword_may_have_any_name(store: Store) -> None:
    with store.logger() as logger:
        assert predlog.wrap(Odd(), logger=logger).predict([5], method="ols") == ["ols"]
    assert logged(store) == [(5, "ols", None)]


# Methods that answer the model itself.


class Module:
    """Like those of torch and Keras: it is called, and most methods answer it."""

    def __init__(self, factor: int = 2) -> None:
        self.factor = factor

    def eval(self) -> Module:
        return self

    def to(self, device: str, *, blocking: bool = False) -> Module:
        return self

    def __call__(self, inputs: Any, *, training: bool = False) -> Any:
        return [value * self.factor for value in inputs]

    def __enter__(self) -> Module:
        return self

    def __exit__(self, *error: Any) -> bool:
        return error[0] is KeyError

    async def aclose(self) -> Module:
        return self


def routed(model: Any) -> Any:
    with sklearn.config_context(enable_metadata_routing=True):
        return model.set_fit_request(sample_weight=True)


CHANGES: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "eval": (Module(), lambda model: model.eval()),
    "to": (Module(), lambda model: model.to("cpu", blocking=True)),
    "set_output": (make_pipeline(StandardScaler(), LogisticRegression()), lambda model: model.set_output(transform="default")),
    "set_fit_request": (LogisticRegression(), routed),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_answers_the_model_answers_the_wrapped_one(store: Store, name: str) -> None:
    model, change = CHANGES[name]
    with store.logger() as logger:
        wrapped = predlog.wrap(model, logger=logger)
        assert change(wrapped) is wrapped


def test_a_model_that_is_wrapped_twice_stays_so(store: Store) -> None:
    with store.logger() as logger:
        wrapped = predlog.wrap(predlog.wrap(LogisticRegression(), logger=logger), logger=logger)
        assert wrapped.fit(X, Y) is wrapped


def test_other_methods_are_as_they_were(store: Store) -> None:
    with store.logger() as logger:
        wrapped = predlog.wrap(Module(), logger=logger)
        assert inspect.signature(wrapped.to) == inspect.signature(Module().to) and wrapped.to.__name__ == "to"
        assert inspect.iscoroutinefunction(wrapped.aclose)


# Models that are called.


def doubled(rows: list[int], *, plus: int = 0) -> list[int]:
    return [row * 2 + plus for row in rows]


def test_calls_are_predictions(store: Store) -> None:
    with store.logger() as logger:
        module, function = predlog.wrap(Module(), logger=logger), predlog.wrap(doubled, logger=logger)
        assert module([1, 2], training=True) == [2, 4] and module(inputs=[3]) == [6]
        assert function([4], plus=1) == [9] and predlog.wrap(doubled, model_name="named", logger=logger)([5]) == [10]
        with pytest.raises(TypeError):
            module(7)
        assert callable(module) and inspect.signature(function) == inspect.signature(doubled) and inspect.signature(module) == inspect.signature(Module())
    assert logged(store) == [(1, 2, None), (2, 4, None), (3, 6, None), (4, 9, None), (5, 10, None), (7, None, "TypeError: 'int' object is not iterable")]
    assert [row["model_name"] for row in store.rows()] == ["Module"] * 3 + ["doubled", "named", "Module"]


def test_what_cannot_be_called_still_cannot(store: Store) -> None:
    with store.logger() as logger:
        wrapped = predlog.wrap(First(), logger=logger)
        assert not callable(wrapped) and not hasattr(type(wrapped), "__enter__")


def test_a_wrapped_model_is_a_context(store: Store) -> None:
    with store.logger() as logger:
        wrapped = predlog.wrap(Module(), logger=logger)
        with wrapped as entered:
            assert entered is wrapped
            raise KeyError("taken by the model")


def test_a_called_model_can_be_pickled(store: Store) -> None:
    with store.logger() as logger:
        predlog.init({"direct": {"dir": str(store.dir / "other")}})
        assert pickle.loads(pickle.dumps(predlog.wrap(Module(3), logger=logger)))([1]) == [3]
        assert predlog.default().snapshot()["accepted"] == 1
        predlog.close()


# Async.


class Async:
    async def predict(self, rows: list[int]) -> list[int]:
        await asyncio.sleep(0.02)
        if rows == [0]:
            raise ValueError("zero")
        return [row * 2 for row in rows]

    def predict_proba(self, rows: list[int]) -> Any:
        return self.predict(rows)

    async def __call__(self, rows: list[int]) -> list[int]:
        return await self.predict(rows)


@pytest.mark.parametrize("name", ["predict", "predict_proba", "__call__"])
def test_async_models_are_logged_when_they_answer(store: Store, name: str) -> None:
    with store.logger() as logger:
        method = getattr(predlog.wrap(Async(), logger=logger), name)
        assert inspect.iscoroutinefunction(method) == inspect.iscoroutinefunction(getattr(Async(), name))
        assert asyncio.run(method([1, 2])) == [2, 4]
        with pytest.raises(ValueError, match="zero"):
            asyncio.run(method([0]))
    assert logged(store) == [(1, 2, None), (2, 4, None), (0, None, "ValueError: zero")]
    assert all(row["latency_ms"] >= 19 for row in store.rows())


async def later(rows: list[int]) -> list[int]:
    return rows


def test_async_functions_are_models(store: Store) -> None:
    with store.logger() as logger:
        assert asyncio.run(predlog.wrap(later, logger=logger)([1])) == [1]
    assert logged(store) == [(1, 1, None)]


# A failed prediction on no rows.


def test_a_failed_prediction_of_no_rows_is_a_record(store: Store) -> None:
    with store.logger() as logger:
        wrapped = predlog.wrap(LogisticRegression().fit(X, Y), logger=logger)
        with pytest.raises(ValueError):
            wrapped.predict(X[:0])
        assert logger.log_batch(X[:0], model_name="m") == 0
    [(inputs, outputs, error)] = logged(store)
    assert (inputs, outputs) == ([], None) and error.startswith("ValueError: Found array with 0 sample(s)")


# Types.

TYPED = """
import uuid
import numpy as np
import predlog
import predlog.flask

logger = predlog.Logger()
logger.log("m", 1, row_index=np.int64(3), status_code=np.int64(200), latency_ms=np.float32(1.5), sample_weight=np.float32(0.5))
logger.log_batch([1], model_name="m", request_id=uuid.uuid4())

@predlog.flask.log_predictions(model_name="m")
def view(name: str, *, count: int = 1) -> dict[str, float]:
    return {"a": 1.0}

reveal_type(view)
view(5)
"""


def test_types_of_numpy_and_of_views(tmp_path: Path) -> None:
    file = tmp_path / "typed.py"
    file.write_text(TYPED)
    result = subprocess.run([sys.executable, "-m", "mypy", "--strict", str(file)], capture_output=True, text=True, cwd=tmp_path)
    assert "def (name: str, *, count: int =) -> flask.wrappers.Response" in result.stdout
    assert [line.partition(": ")[2] for line in result.stdout.splitlines() if ": error: " in line] == [
        'error: Argument 1 to "view" has incompatible type "int"; expected "str"  [arg-type]'
    ]


def test_numbers_of_numpy_are_fields(store: Store) -> None:
    with store.logger() as logger:
        assert logger.log("m", 1, row_index=np.int64(3), status_code=np.int64(200), latency_ms=np.float32(1.5), sample_weight=np.float32(0.5))
        assert logger.log_batch([1], model_name="m", request_id=uuid.UUID(int=1)) == 1
    first, second = store.rows()
    assert (first["row_index"], first["status_code"], first["latency_ms"], first["sample_weight"]) == (3, 200, 1.5, 0.5)
    assert second["request_id"] == str(uuid.UUID(int=1))


# Names of CatBoost's features, values of onnxruntime.


class Cat:
    feature_names_ = ("a", "b")

    def predict(self, rows: Any) -> Any:
        return np.zeros(len(rows))


class Untrained(Cat):
    @property
    def feature_names_(self) -> Any:  # type: ignore[override]
        raise RuntimeError("not trained")


@pytest.mark.parametrize(("model", "expected"), [(Cat(), {"a": 1.0, "b": 2.0}), (Untrained(), [1.0, 2.0])], ids=["trained", "untrained"])
def test_features_have_the_names_of_catboost(store: Store, model: Any, expected: Any) -> None:
    with store.logger() as logger:
        predlog.wrap(model, logger=logger).predict(np.array([[1.0, 2.0]]))
    assert logged(store) == [(expected, 0.0, None)]


class OrtValue:
    def shape(self) -> list[int]:
        return [2]

    def numpy(self) -> Any:
        return np.array([1.5, 2.0])


def test_values_of_onnxruntime_are_arrays(store: Store) -> None:
    with store.logger(strict=True) as logger:
        assert logger.log("m", OrtValue(), [OrtValue()])
    assert logged(store) == [([1.5, 2.0], [[1.5, 2.0]], None)]
