"""Shows the logged wine predictions by a DuckDB query: demo.py parquet|sqlite DIR."""

import sqlite3
import sys

import duckdb
import pyarrow

store, directory = sys.argv[1:]
if store == "parquet":
    # The files as they lie: one table, with columns from the paths.
    table = f"read_parquet('{directory}/predictions/*/*/*.parquet', hive_partitioning = true, union_by_name = true)"
else:
    # Handed over as Arrow: DuckDB's own SQLite reader is a download.
    db = sqlite3.connect(f"file:{directory}/predictions.db?mode=ro", uri=True)
    rows = db.execute("select id, model_name, inputs, outputs from predictions").fetchall()
    columns = zip(("id", "model_name", "inputs", "outputs"), zip(*rows, strict=True), strict=True)
    logged = pyarrow.table({name: pyarrow.array(values, pyarrow.string()) for name, values in columns})
    table = "(select id, model_name, inputs::json as inputs, outputs::json as outputs from logged)"

field = "inputs.alcohol" if store == "parquet" else "(inputs ->> 'alcohol')::double"
quality = "outputs.quality" if store == "parquet" else "(outputs ->> 'quality')::double"
duckdb.sql(
    f"""
    select floor({field}) as alcohol_percent, count(*) as predictions,
           round(avg({quality}), 3) as mean_quality, round(max({quality}), 3) as best_quality
    from {table} where model_name = 'wine-quality' group by 1 order by 1
    """
).show()
duckdb.sql(f"select id, {field} as alcohol, {quality} as quality from {table} order by quality desc limit 5").show()
