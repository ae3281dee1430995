"""Prints what Spark finds in tables, a line of JSON for each: rows, distinct ids, and the sums of the columns that are asked for.

    read_spark.py FORMAT PATH SUMS [FORMAT PATH SUMS …]

FORMAT is delta or parquet; SUMS are numeric columns with commas between, such as seq,inputs.alcohol, or * for all rows,
a line of JSON each. One start of Spark takes 15 seconds, so one call reads all tables of a test.
"""

import json
import sys

from pyspark.sql import SparkSession
from pyspark.sql import functions as F


def quoted(column: str) -> str:
    return ".".join(f"`{part}`" for part in column.split("."))


def main() -> None:
    spark = SparkSession.builder.appName("predlog tests").getOrCreate()
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    arguments = iter(sys.argv[1:])
    for kind, path, sums in zip(arguments, arguments, arguments):
        reader = spark.read.format(kind)
        if kind == "parquet":
            # Files of one table differ in columns that came later.
            reader = reader.option("mergeSchema", "true")
        table = reader.load(path)
        if sums == "*":
            for row in table.toJSON().collect():
                print("ROW " + row)
            continue
        columns = [F.sum(F.col(quoted(name))).alias(name) for name in sums.split(",") if name]
        row = table.agg(F.count("*").alias("rows"), F.countDistinct("id").alias("ids"), *columns).first()
        print("TABLE " + json.dumps(row.asDict()))


if __name__ == "__main__":
    main()
