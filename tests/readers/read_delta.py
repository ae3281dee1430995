"""Reads a Delta table: prints its rows as NDJSON, what they come to, or its files.

    read_delta.py --reader delta-rs|duckdb rows|totals|count|files FOLDER_OR_S3_URL

`count` is for large tables: rows, distinct ids, the sum of inputs.n, rows of the model wine. It and `files` are for delta-rs alone.
"""

import argparse
import json
import os
import sys
from pathlib import Path


def open_table(path: str):
    from deltalake import DeltaTable

    # The keys come from the environment, as they do for every S3 client.
    options = {"AWS_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"], "AWS_ALLOW_HTTP": "true"} if path.startswith("s3://") else {}
    return DeltaTable(path, storage_options=options)


def rows_of_delta_rs(path: str) -> list[dict]:
    return open_table(path).to_pyarrow_table().to_pylist()


def count(path: str) -> tuple[int, int, int, int]:
    import pyarrow.compute as pc

    table = open_table(path).to_pyarrow_table(columns=["id", "inputs", "model_name"])
    numbers = pc.struct_field(table["inputs"], "n")
    wine = pc.sum(pc.equal(table["model_name"], "wine")).as_py()
    return table.num_rows, pc.count_distinct(table["id"]).as_py(), pc.sum(numbers).as_py(), wine


def rows_of_duckdb(path: str) -> list[dict]:
    import duckdb

    # PyPI's package of the extension is a file beside duckdb itself.
    beside = Path(duckdb.__file__).parent.parent
    [extension] = beside.glob("duckdb_ext/extensions/*/*/delta.duckdb_extension")
    connection = duckdb.connect()
    connection.execute(f"LOAD '{extension}'")
    connection.execute("SET TimeZone = 'UTC'")
    return connection.execute("SELECT * EXCLUDE (timestamp) FROM delta_scan($1)", [path]).fetch_arrow_table().to_pylist()


READERS = {"delta-rs": rows_of_delta_rs, "duckdb": rows_of_duckdb}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--reader", choices=READERS, required=True)
    arguments.add_argument("what", choices=["rows", "totals", "count", "files"])
    arguments.add_argument("path")
    given = arguments.parse_args()

    if given.what == "files":
        print(*open_table(given.path).file_uris(), sep="\n")
        return
    if given.what == "count":
        print(*count(given.path))
        return
    rows = READERS[given.reader](given.path)
    if given.what == "rows":
        for row in rows:
            print(json.dumps(row, default=str))
        return
    inputs = (row["inputs"] for row in rows)
    totals = {
        "rows": len(rows),
        "ids": len({row["id"] for row in rows}),
        "seq": sum(row["seq"] for row in rows),
        "age": sum(side["age"] for side in inputs),
    }
    print(json.dumps(totals))


if __name__ == "__main__":
    main()
    # Python's end may come upon threads of delta-rs that still run, and C++ then ends the process by a signal.
    sys.stdout.flush()
    os._exit(0)
