"""Defects of wrapped models that were found by hand: each test failed before its repair."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from conftest import Store
from sklearn.base import clone
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import predlog
from predlog import _capture

X = np.array([[0.0, 1.0], [1.0, 3.0], [2.0, 0.5], [3.0, 2.0]])
Y = [0, 1, 0, 1]


def logged(store: Store) -> list[tuple[Any, ...]]:
    rows = sorted(store.rows(), key=lambda row: (row["timestamp"], -1 if row["row_index"] is None else row["row_index"]))
    return [(row["model_name"], row["inputs"], row["outputs"], row["error"]) for row in rows]


CHANGES: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "fit": (LogisticRegression(), lambda model: model.fit(X, Y)),
    "partial_fit": (SGDClassifier(random_state=0), lambda model: model.partial_fit(X, Y, classes=[0, 1])),
    "set_params": (LogisticRegression().fit(X, Y), lambda model: model.set_params(C=3.0)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_answers_the_model_answers_the_wrapped_one(store: Store, name: str) -> None:
    model, change = CHANGES[name]
    with store.logger() as logger:
        wrapped = predlog.wrap(model, logger=logger)
        assert change(wrapped) is wrapped
        answers = change(wrapped).predict(X[:2]).tolist()
    assert logged(store) == [(type(model).__name__, row, answer, None) for row, answer in zip(X[:2].tolist(), answers)]


def test_clones_are_bare(store: Store) -> None:
    """They always were: what answers the model itself is wrapped, and these are not."""
    with store.logger() as logger:
        copied = clone(predlog.wrap(LogisticRegression(C=3.0), logger=logger))
    assert type(copied) is LogisticRegression and copied.C == 3.0


def test_a_wrapped_model_is_a_step_of_a_pipeline(store: Store) -> None:
    with store.logger() as logger:
        pipeline = make_pipeline(StandardScaler(), predlog.wrap(LogisticRegression(), logger=logger))
        assert list(pipeline.named_steps) == ["standardscaler", "logisticregression"]
        answers = pipeline.fit(X, Y).predict(X[:2]).tolist()
    scaled = pipeline[0].transform(X[:2]).tolist()
    assert logged(store) == [("LogisticRegression", row, answer, None) for row, answer in zip(scaled, answers)]


@pytest.mark.parametrize("height", [2, 3])
def test_means_and_deviations_are_those_of_their_rows(store: Store, height: int) -> None:
    """As many arrays as there are rows, or not."""
    with store.logger() as logger:
        wrapped = predlog.wrap(GaussianProcessRegressor().fit(X, Y), model_name="gp", logger=logger)
        means, deviations = wrapped.predict(X[:height] + 0.25, return_std=True)
    rows = zip((X[:height] + 0.25).tolist(), means.tolist(), deviations.tolist())
    assert logged(store) == [("gp", row, [mean, deviation], None) for row, mean, deviation in rows]


class Answers:
    """A model that was trained with two features, and answers what it was made with."""

    feature_names_in_ = ("a", "b")

    def __init__(self, answers: Any) -> None:
        self.answers = answers

    def predict(self, _rows: Any) -> Any:
        return self.answers


def test_bins_of_a_wrapped_models_frame_are_text(store: Store) -> None:
    with store.logger() as logger:
        predlog.wrap(Answers(np.array([0, 1])), model_name="m", logger=logger).predict(pd.DataFrame({"a": pd.cut([1, 5], [0, 4, 10]), "b": [0.5, 1.5]}))
    assert logged(store) == [("m", {"a": "(0, 4]", "b": 0.5}, 0, None), ("m", {"a": "(4, 10]", "b": 1.5}, 1, None)]


@pytest.mark.parametrize("odd", [[object(), object()], [1, object()], object()], ids=["every row", "one row", "no rows"])
def test_a_strict_logger_costs_a_wrapped_model_no_answer(store: Store, odd: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(_capture, "_told", False)
    with store.logger(strict=True) as logger, caplog.at_level(logging.ERROR, "predlog"):
        wrapped = predlog.wrap(Answers(odd), model_name="m", logger=logger)
        assert wrapped.predict([[1, 2], [3, 4]]) is odd and wrapped.predict([[1, 2], [3, 4]]) is odd
    assert [record.message for record in caplog.records if "not logged" in record.message] == ["a prediction is not logged; others that fail are not told"]


class Mute(Exception):
    """Has no text."""

    def __repr__(self) -> str:
        raise RuntimeError("asked")

    __str__ = __repr__


class Fails:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def predict(self, _rows: Any) -> Any:
        raise self.error


def test_an_error_without_a_text_reaches_the_caller(store: Store) -> None:
    error = Mute()
    with store.logger() as logger:
        with pytest.raises(Mute) as raised:
            predlog.wrap(Fails(error), model_name="m", logger=logger).predict([1])
    assert raised.value is error
    assert logged(store) == [("m", 1, None, "Mute: ?")]


ROWS: dict[str, tuple[Any, list[Any]]] = {
    "longer": ([[1, 2, 3], [4, 5]], [[1, 2, 3], {"a": 4, "b": 5}]),
    "shorter": ([[1]], [[1]]),
    "array": (np.array([[1, 2, 3]]), [[1, 2, 3]]),
    "text": (["hi", "hello"], ["hi", "hello"]),
    "bytes": ([b"hi"], ["aGk="]),
    "no rows at all": ([[1, 2], 3], [{"a": 1, "b": 2}, 3]),
    "a series of text": (pd.Series(["hi", "hello"]), ["hi", "hello"]),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_that_are_no_rows_of_the_features_are_kept_whole(store: Store, name: str) -> None:
    rows, expected = ROWS[name]
    with store.logger() as logger:
        predlog.wrap(Answers([0] * len(rows)), model_name="m", logger=logger).predict(rows)
    assert logged(store) == [("m", row, 0, None) for row in expected]


def test_a_matrix_of_quantiles_has_no_features(store: Store) -> None:
    booster = xgboost.train({"nthread": 1}, xgboost.DMatrix(X, Y, feature_names=["a", "b"]), num_boost_round=2)
    matrix = xgboost.QuantileDMatrix(X, feature_names=["a", "b"], nthread=1)
    with store.logger() as logger:
        answers = predlog.wrap(booster, model_name="m", logger=logger).predict(matrix)
    assert logged(store) == [("m", str(matrix), [float(answer) for answer in answers], None)]
