"""What turned out to be true: records of their own, joined with their predictions by id."""

from __future__ import annotations

import datetime
import sqlite3
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import Store

import predlog

README = Path(__file__).parent.parent.parent / "README.md"
KNOWN = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)


def tell(logger: predlog.Logger) -> None:
    """Two predictions, of which one turns out; what is told of it is corrected."""
    for id, score in (("order-17", 5.2), ("order-18", 7.0)):
        assert logger.log("wine", {"alcohol": 9.4}, {"score": score}, id=id, model_version="1")
    assert logger.actuals("order-17", "wine", {"score": 4.0}, model_version="1", timestamp=KNOWN)
    assert logger.actuals("order-17", "wine", {"score": 6.5}, revision=2)


def test_they_join_in_sqlite(store: Store) -> None:
    with store.logger() as logger:
        tell(logger)
    rows = store.rows()
    first, second = (row for row in rows if row["model_name"] == "wine.actuals")
    assert (first["id"], first["inputs"], first["outputs"], first["model_version"], first["metadata"]) == ("order-17", None, {"score": 4.0}, "1", None)
    assert first["timestamp"] == KNOWN.timestamp() * 1e6
    assert (second["model_version"], second["metadata"]) == (None, {"revision": "2"})
    database = sqlite3.connect(store.dir / "predictions.db")
    joined = database.execute('SELECT p.id, p.score, a.score FROM model_wine p JOIN "model_wine.actuals" a ON a.id = p.id ORDER BY a.time').fetchall()
    database.close()
    assert joined == [("order-17", 5.2, 4.0), ("order-17", 5.2, 6.5)]


def test_they_join_in_parquet(store: Store) -> None:
    with store.logger(direct={"store": "parquet"}) as logger:
        tell(logger)
        assert logger.flush()
    tables = {}
    for model in ("wine", "wine.actuals"):
        files = sorted((store.dir / "predictions" / f"model_name={model}").glob("date=*/*.parquet"))
        assert files, model
        # The files themselves: their directories would be columns.
        tables[model] = [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]
    assert len(tables["wine"]) == 2
    predicted = {row["id"]: row["outputs"]["score"] for row in tables["wine"]}
    told = [(predicted[row["id"]], row["outputs"]["score"], dict(row["metadata"] or [])) for row in tables["wine.actuals"]]
    assert sorted(told, key=lambda one: one[1]) == [(5.2, 4.0, {}), (5.2, 6.5, {"revision": "2"})]
    assert all("inputs" not in row or row["inputs"] is None for row in tables["wine.actuals"])


def test_the_readmes_line(store: Store) -> None:
    [line] = [line for line in README.read_text().splitlines() if line.startswith("predlog.actuals(")]
    predlog.init(direct={"dir": str(store.dir)})
    exec(line, {"predlog": predlog})
    predlog.close()
    [row] = store.rows()
    assert (row["model_name"], row["id"], row["outputs"], row["metadata"]) == ("wine.actuals", "order-17", {"quality": 6.0}, {"revision": "2"})


def test_values_of_any_kind_and_ids_that_are_no_text(store: Store) -> None:
    with store.logger() as logger:
        assert logger.log("m", None, None, id=17)
        assert logger.actuals(17, "m", 6.5)
        assert logger.actuals(id=18, model_name="m", actuals=object(), timestamp="never")
        assert logger.snapshot()["encoded_as_text"] == 2
    rows = store.rows()
    assert [row["id"] for row in rows] == ["17", "17", "18"]
    assert rows[1]["outputs"] == 6.5
    assert rows[2]["outputs"].startswith("<object object") and rows[2]["metadata"] == {"timestamp": "never"}


def test_what_is_refused_says_why_and_is_counted(store: Store) -> None:
    with store.logger() as logger:
        refused = [
            logger.actuals(None, "m", 1),
            logger.actuals("", "m", 1),
            logger.actuals("i", "", 1),
            logger.actuals("i", "m" * 249, 1),
            logger.actuals("i", "_predlog_ledger", 1),
        ]
        assert logger.actuals("i", "m" * 248, 1).problem is None
        assert logger.snapshot()["dropped"] == {"invalid": 5}
    assert [(bool(outcome), outcome.reason) for outcome in refused] == [(False, "invalid")] * 5
    problems = [outcome.problem or "" for outcome in refused]
    assert all(problem.startswith("id: expected 1 to 256 bytes") for problem in problems[:2])
    assert all("for actuals at most 248" in problem for problem in problems[2:4])
    assert "another name" in problems[4] and problems[4] in repr(refused[4]).replace("\\", "")
    assert [row["model_name"] for row in store.rows()] == ["m" * 248 + ".actuals"]


def test_strict_raises(store: Store) -> None:
    with store.logger(strict=True) as logger:
        with pytest.raises(TypeError, match="type=object: expected"):
            logger.actuals("i", "m", object())
        with pytest.raises(TypeError, match="timestamp"):
            logger.actuals("i", "m", 1, timestamp="never")
    assert store.rows() == []
