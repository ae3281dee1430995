"""Counts a hive-partitioned folder of Parquet files as one table with DuckDB: rows, distinct ids, the sum of inputs.n, rows of the model wine.

    count_table.py FOLDER_OR_S3_URL

An s3:// URL takes its server and keys as read_table.py does.
"""

import sys

import duckdb

from read_table import is_s3, register_s3

root = sys.argv[1]
connection = duckdb.connect()
if is_s3(root):
    register_s3(connection)
query = """
    SELECT count(*), count(DISTINCT id), sum(inputs.n), count(*) FILTER (model_name = 'wine')
    FROM read_parquet($1, hive_types = {'model_name': VARCHAR, 'date': DATE}, union_by_name = true)
"""
print(*connection.execute(query, [root + "/**/*.parquet"]).fetchone())
