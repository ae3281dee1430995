"""Writes a small hive-partitioned table whose columns grow from file to file, to hold the readers against.

    make_table.py DIRECTORY
"""

import sys
from datetime import date
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

NOON = 1_795_435_200_000_000  # 2026-11-23T12:00:00Z in microseconds

TIMESTAMP = pa.timestamp("us", tz="UTC")
METADATA = pa.map_(pa.string(), pa.string())

EARLY = pa.schema(
    [
        ("id", pa.string()),
        ("timestamp", TIMESTAMP),
        ("inputs", pa.struct([("age", pa.int64()), ("bmi", pa.float64())])),
        ("outputs", pa.struct([("score", pa.float64())])),
        ("metadata", METADATA),
        ("writer", pa.string()),
        ("seq", pa.int64()),
    ]
)
# A nested field (inputs.city), a field of a nested struct (outputs.why.top) and a column (latency_ms) that come later.
LATER = pa.schema(
    [
        ("id", pa.string()),
        ("timestamp", TIMESTAMP),
        ("inputs", pa.struct([("age", pa.int64()), ("bmi", pa.float64()), ("city", pa.string())])),
        ("outputs", pa.struct([("score", pa.float64()), ("why", pa.struct([("top", pa.string())]))])),
        ("latency_ms", pa.float64()),
        ("metadata", METADATA),
        ("writer", pa.string()),
        ("seq", pa.int64()),
    ]
)


def write(root: Path, model: str, day: date, name: str, schema: pa.Schema, rows: list) -> None:
    folder = root / f"model_name={quote(model, safe='')}" / f"date={day.isoformat()}"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / name)


def main() -> None:
    root = Path(sys.argv[1])
    first = {
        "id": "r0",
        "timestamp": NOON,
        "inputs": {"age": 41, "bmi": 0.1},
        "outputs": {"score": float("nan")},
        "metadata": [("k", "v"), ("a", "b")],
        "writer": "w-00",
        "seq": 0,
    }
    second = first | {"id": "r1", "timestamp": NOON + 1, "outputs": {"score": float("inf")}, "metadata": None, "seq": 1}
    third = first | {
        "id": "r2",
        "timestamp": NOON + 2,
        "inputs": {"age": 9_007_199_254_740_993, "bmi": 1e-7, "city": "Zürich"},
        "outputs": {"score": float("-inf"), "why": {"top": "bmi"}},
        "latency_ms": 1.5,
        "seq": 2,
    }
    fourth = first | {"id": "r3", "timestamp": NOON + 3, "outputs": {"score": 1.0}, "metadata": [], "seq": 3}
    write(root, "a/b", date(2026, 11, 23), "a.parquet", EARLY, [second, first])
    write(root, "a/b", date(2026, 11, 24), "b.parquet", LATER, [third])
    write(root, "007", date(2026, 11, 23), "c.parquet", EARLY, [fourth])


if __name__ == "__main__":
    main()
