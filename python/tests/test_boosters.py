"""LightGBM and XGBoost, wrapped: their boosters, and their classes that are like scikit-learn's."""

from __future__ import annotations

import warnings
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import xgboost
from conftest import Store
from sklearn.datasets import load_breast_cancer, load_wine

import predlog

WINE: Any = load_wine(as_frame=True)
NAMES = list(WINE.data.columns)
ROWS: pd.DataFrame = WINE.data.head(5)
FIRST = ROWS.iloc[0].to_dict()


def as_float32(row: dict[str, float]) -> dict[str, float]:
    return {name: float(np.float32(value)) for name, value in row.items()}


def lightgbm_booster() -> lightgbm.Booster:
    # Names without what LightGBM replaces.
    parameters = {"objective": "multiclass", "num_class": 3, "verbose": -1, "num_threads": 1}
    return lightgbm.train(parameters, lightgbm.Dataset(WINE.data, WINE.target), num_boost_round=3)


def xgboost_booster(names: list[str] | None) -> xgboost.Booster:
    parameters = {"objective": "multi:softprob", "num_class": 3, "nthread": 1}
    return xgboost.train(parameters, xgboost.DMatrix(WINE.data.to_numpy(), WINE.target, feature_names=names), num_boost_round=3)


def check(store: Store, expected: Any, first: Any, method: str = "predict") -> list[dict[str, Any]]:
    """A record for each of the five rows, with its answer."""
    rows = sorted(store.rows(), key=lambda row: int(row["row_index"]))
    assert [row["row_index"] for row in rows] == [0, 1, 2, 3, 4], method
    assert len({row["request_id"] for row in rows}) == 1
    assert rows[0]["inputs"] == first
    assert [row["outputs"] for row in rows] == [pytest.approx(answer) for answer in np.asarray(expected).tolist()]
    assert all(row["error"] is None and row["latency_ms"] >= 0 for row in rows)
    return rows


@pytest.mark.parametrize("kind", ["pandas", "numpy", "sparse", "keyword"])
def test_lightgbms_booster(store: Store, kind: str) -> None:
    booster = lightgbm_booster()
    with store.logger() as logger:
        wrapped = predlog.wrap(booster, model_name="wine", model_version="1", logger=logger)
        inputs: Any = {"pandas": ROWS, "numpy": ROWS.to_numpy(), "sparse": scipy.sparse.csr_matrix(ROWS), "keyword": ROWS}[kind]
        answers = wrapped.predict(data=inputs) if kind == "keyword" else wrapped.predict(inputs)
    assert np.array_equal(answers, booster.predict(ROWS)) and np.shape(answers) == (5, 3)
    rows = check(store, answers, FIRST)
    assert {(row["model_name"], row["model_version"]) for row in rows} == {("wine", "1")}


def test_lightgbms_classes(store: Store) -> None:
    model = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1).fit(WINE.data, WINE.target)
    with store.logger() as logger:
        with warnings.catch_warnings():
            # scikit-learn's own: the model was trained with names, and is given none.
            warnings.simplefilter("ignore")
            answers = predlog.wrap(model, logger=logger).predict_proba(ROWS.to_numpy())
    rows = check(store, answers, FIRST, "predict_proba")
    assert rows[0]["model_name"] == "LGBMClassifier"


@pytest.mark.parametrize("names", [NAMES, None], ids=["named", "no names"])
def test_xgboosts_booster(store: Store, names: list[str] | None) -> None:
    booster = xgboost_booster(names)
    matrix = xgboost.DMatrix(ROWS.to_numpy(), feature_names=names)
    with store.logger() as logger:
        answers = predlog.wrap(booster, model_name="wine", logger=logger).predict(matrix)
    assert np.array_equal(answers, booster.predict(matrix))
    first = as_float32(FIRST)
    check(store, answers, first if names else {f"f{index}": value for index, value in enumerate(first.values())})


def test_what_a_dmatrix_does_not_have_is_not_in_the_record(store: Store) -> None:
    booster = xgboost_booster(NAMES)
    holes = ROWS.to_numpy().copy()
    holes[0, 1] = holes[2, 12] = np.nan
    holes[1, 0] = 0.0
    matrix = xgboost.DMatrix(holes, feature_names=NAMES)
    with store.logger() as logger:
        answers = predlog.wrap(booster, model_name="wine", logger=logger).predict(matrix)
    rows = check(store, answers, {name: value for name, value in as_float32(FIRST).items() if name != NAMES[1]})
    assert rows[1]["inputs"][NAMES[0]] == 0.0 and NAMES[12] not in rows[2]["inputs"] and len(rows[2]["inputs"]) == 12


@pytest.mark.parametrize("kind", ["pandas", "numpy"])
def test_xgboosts_booster_in_place(store: Store, kind: str) -> None:
    booster = xgboost_booster(NAMES)
    with store.logger() as logger:
        wrapped = predlog.wrap(booster, model_name="wine", logger=logger)
        answers = wrapped.inplace_predict(ROWS if kind == "pandas" else ROWS.to_numpy(), validate_features=kind == "pandas")
    check(store, answers, FIRST, "inplace_predict")


def test_xgboosts_classes(store: Store) -> None:
    model = xgboost.XGBClassifier(n_estimators=3, n_jobs=1).fit(WINE.data, WINE.target)
    with store.logger() as logger:
        answers = predlog.wrap(model, logger=logger).predict_proba(X=ROWS)
    rows = check(store, answers, FIRST, "predict_proba")
    assert rows[0]["model_name"] == "XGBClassifier"


def test_xgboosts_classes_without_names(store: Store) -> None:
    data: Any = load_breast_cancer()
    model = xgboost.XGBRegressor(n_estimators=3, n_jobs=1).fit(data.data, data.target)
    with store.logger() as logger:
        answers = predlog.wrap(model, logger=logger).predict(data.data[:5])
    check(store, answers, data.data[0].tolist())


def test_a_sparse_matrix_is_logged_as_what_it_stores(store: Store) -> None:
    # The first row has two values for one place, which add up.
    matrix = scipy.sparse.csr_matrix(([1.5, 2.5, 4.0], [1, 1, 0], [0, 2, 2, 3]), shape=(3, 2))
    with store.logger() as logger:
        assert logger.log_batch(matrix, [1, 2, 3], model_name="m") == 3
    assert matrix.nnz == 3, "the caller's own matrix is as it was"
    assert [row["inputs"] for row in sorted(store.rows(), key=lambda row: int(row["row_index"]))] == [{"1": 4.0}, {}, {"0": 4.0}]


def test_a_booster_that_refuses_is_logged_with_its_error(store: Store) -> None:
    with store.logger() as logger:
        wrapped = predlog.wrap(xgboost_booster(NAMES), model_name="wine", logger=logger)
        with pytest.raises(ValueError, match="feature_names mismatch"):
            wrapped.predict(xgboost.DMatrix(ROWS.to_numpy()[:2, :3], feature_names=NAMES[:3]))
    rows = store.rows()
    assert [set(row["inputs"]) for row in rows] == [set(NAMES[:3])] * 2
    assert all(row["outputs"] is None and row["error"].startswith("ValueError") for row in rows)
