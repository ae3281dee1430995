"""Reads a hive-partitioned folder of Parquet files as one table, and prints its rows as NDJSON.

    read_table.py --reader pyarrow|duckdb|polars [--under model_name=wine] FOLDER_OR_S3_URL

An s3:// URL takes its server and keys from AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION.

Each `read_with_…` is the way its users read such a table, and the three things that it takes are the same for all:
model_name is text (a model called 007 stays 007), the partition columns come from the path, and columns and struct
fields that only some files have are in the result, null where a file lacks them. Left to itself, pyarrow and Polars
take the first file's columns for all, and DuckDB guesses the types of the partition columns.

Rows come in the same form from every reader: a timestamp is microseconds since 1970, a date is YYYY-MM-DD, a map is
an object, bytes are hexadecimal, and a double is {"$double": repr}, since not every JSON parser reads a number's last
bit. They are sorted by (writer, seq) where the table has both.
"""

import argparse
import json
import math
import os
import sys
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def read_with_pyarrow(root: str, under: str) -> list[dict]:
    import pyarrow as pa
    import pyarrow.dataset as ds

    filesystem, base = (s3_filesystem(), root.removeprefix("s3://")) if is_s3(root) else (None, root)
    hive = ds.partitioning(pa.schema({"model_name": pa.string(), "date": pa.date32()}), flavor="hive")
    where = {"partitioning": hive, "partition_base_dir": base, "filesystem": filesystem}
    first = ds.dataset(join(base, under), **where)
    schemas = [first.schema, *(fragment.physical_schema for fragment in first.get_fragments())]
    schema = pa.unify_schemas(schemas, promote_options="permissive")
    table = ds.dataset(join(base, under), schema=schema, **where).to_table()
    return table.to_pylist(maps_as_pydicts="strict")


def read_with_duckdb(root: str, under: str) -> list[dict]:
    import duckdb

    connection = duckdb.connect()
    if is_s3(root):
        register_s3(connection)
    # The zone is that of the printed values alone: a timestamp with a zone is an instant.
    connection.execute("SET TimeZone = 'UTC'")
    result = connection.execute(
        "SELECT * FROM read_parquet($1, hive_types = {'model_name': VARCHAR, 'date': DATE}, union_by_name = true)",
        [join(root, under) + "/**/*.parquet"],
    )
    names = [column[0] for column in result.description]
    return [dict(zip(names, row)) for row in result.fetchall()]


def read_with_polars(root: str, under: str) -> list[dict]:
    import polars as pl

    hive = {"model_name": pl.String, "date": pl.Date}
    files = s3_files(join(root, under)) if is_s3(root) else sorted(Path(root, under).glob("**/*.parquet"))
    table = pl.concat([pl.scan_parquet(file, hive_schema=hive, glob=False) for file in files], how="diagonal_relaxed")
    return table.collect().to_dicts()


READERS = {"pyarrow": read_with_pyarrow, "duckdb": read_with_duckdb, "polars": read_with_polars}


def is_s3(path: str) -> bool:
    return path.startswith("s3://")


def join(root: str, under: str) -> str:
    return "/".join(part.rstrip("/") for part in (root, under) if part)


def s3_filesystem():
    from pyarrow.fs import S3FileSystem

    # The keys come from the environment, as they do for every S3 client.
    return S3FileSystem(
        endpoint_override=os.environ.get("AWS_ENDPOINT_URL"), region=os.environ.get("AWS_REGION", "us-east-1")
    )


def s3_files(url: str) -> list[str]:
    from pyarrow.fs import FileSelector

    found = s3_filesystem().get_file_info(FileSelector(url.removeprefix("s3://"), recursive=True))
    return sorted(f"s3://{info.path}" for info in found if info.path.endswith(".parquet"))


def register_s3(connection) -> None:
    """DuckDB's own S3 client is an extension that it downloads when first used; pyarrow's is at hand offline."""
    from fsspec.implementations.arrow import ArrowFSWrapper

    class S3(ArrowFSWrapper):
        protocol = "s3"

    connection.register_filesystem(S3(s3_filesystem()))


def canonical(value):
    """The value as JSON that is the same for every reader."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return {"$double": "NaN" if math.isnan(value) else repr(value).replace("inf", "Infinity")}
        case datetime():
            return (value - EPOCH) // timedelta(microseconds=1)
        case date():
            return value.isoformat()
        case Decimal():
            return str(value)
        case bytes():
            return value.hex()
        case dict():
            return {str(key): canonical(item) for key, item in value.items()}
        case list() | tuple():
            return [canonical(item) for item in value]
    raise TypeError(f"no canonical form for {type(value).__name__}: {value!r}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--reader", choices=READERS, required=True)
    arguments.add_argument("--under", default="", help="read only this folder of the table, such as model_name=wine")
    arguments.add_argument("path")
    given = arguments.parse_args()

    rows = READERS[given.reader](given.path, given.under)
    if rows and {"writer", "seq"} <= rows[0].keys():
        # Rows of other programs have neither.
        rows.sort(key=lambda row: (row["writer"] or "", row["seq"] or 0, row["id"] or ""))
    for row in rows:
        json.dump(canonical(row), sys.stdout, ensure_ascii=False, sort_keys=True)
        sys.stdout.write("\n")


if __name__ == "__main__":
    main()
