"""A logger with a SQLite store, what is in it, and a Flask application that is watched."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import flask
import pytest

import predlog
from predlog import _capture
from predlog.flask import PredictionLog


class Store:
    """The SQLite store below a directory of its own."""

    def __init__(self, dir: Path) -> None:
        self.dir = dir

    def logger(self, **options: Any) -> predlog.Logger:
        return predlog.Logger({"direct": {"dir": str(self.dir)}}, **options)

    def rows(self) -> list[dict[str, Any]]:
        """All records in the order of their times; JSON columns are parsed."""
        database = sqlite3.connect(self.dir / "predictions.db")
        database.row_factory = sqlite3.Row
        rows = [dict(row) for row in database.execute("SELECT * FROM predictions ORDER BY timestamp, writer, seq")]
        database.close()
        for row in rows:
            for column in ("inputs", "outputs", "metadata"):
                row[column] = None if row[column] is None else json.loads(row[column])
        return rows


def logged(store: Store) -> list[tuple[Any, ...]]:
    """Inputs, outputs and error of each row, those of a batch in their order."""
    rows = sorted(store.rows(), key=lambda row: (row["timestamp"], -1 if row["row_index"] is None else row["row_index"]))
    return [(row["inputs"], row["outputs"], row["error"]) for row in rows]


def shown(row: dict[str, Any]) -> tuple[Any, ...]:
    """What a request's row says of it."""
    assert row["latency_ms"] >= 0
    return row["model_name"], row["inputs"], row["outputs"], row["status_code"], row["error"]


def flask_app(logger: predlog.Logger | None, **routes: str) -> flask.Flask:
    """An application whose routes, `/` for `__`, are models of these names."""
    app = flask.Flask("test")
    PredictionLog(app, routes={f"/{path.replace('__', '/')}": model for path, model in routes.items()}, logger=logger)
    return app


@pytest.fixture(autouse=True)
def nothing_told_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """That no default logger can be opened is told once, and each test's configuration is another."""
    monkeypatch.setattr(_capture, "_failed", None)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")
