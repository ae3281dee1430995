"""Reads each Parquet file below a folder by itself, and prints one JSON object: path to its columns' types and its rows.

    read_files.py --reader pyarrow|duckdb FOLDER
"""

import argparse
import json
from pathlib import Path


def read_with_pyarrow(path: Path) -> tuple[dict, list[dict]]:
    import pyarrow.parquet as pq

    # Not read_table: that would take the folders' names for columns.
    table = pq.ParquetFile(path).read()
    return {field.name: str(field.type) for field in table.schema}, table.to_pylist()


def read_with_duckdb(path: Path) -> tuple[dict, list[dict]]:
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    result = connection.execute("SELECT * FROM read_parquet($1, hive_partitioning = false)", [str(path)])
    types = {column[0]: str(column[1]) for column in result.description}
    return types, [dict(zip(types, row)) for row in result.fetchall()]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--reader", choices=["pyarrow", "duckdb"], required=True)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    read = {"pyarrow": read_with_pyarrow, "duckdb": read_with_duckdb}[arguments.reader]
    files = {}
    for path in sorted(arguments.folder.rglob("*.parquet")):
        types, rows = read(path)
        files[str(path.relative_to(arguments.folder))] = {"types": types, "rows": rows}
    print(json.dumps(files, default=str))


main()
