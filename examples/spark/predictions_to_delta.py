"""Spark Structured Streaming: predictions from a Kafka topic of predlog into a Delta table.

    spark-submit --packages … predictions_to_delta.py \
        --bootstrap 127.0.0.1:9092 --topic predictions --table s3a://bucket/predictions \
        --checkpoint s3a://bucket/checkpoints/predictions --schema schema.json

With --trigger available-now (the default) it stores what is in the topic now and ends; with --trigger "1 minute" it goes on.
Started again it goes on where its checkpoint says, and stores nothing twice: each batch has a number, which Spark writes
into the table with the batch. README.md has the whole command.
"""

import argparse
import json
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    DoubleType,
    IntegerType,
    LongType,
    MapType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)


def line_schema(sides: dict) -> StructType:
    """The line of a prediction. `sides` has the columns of inputs and outputs, each as a Spark type in JSON."""
    fields = [
        ("timestamp", TimestampType()),
        ("model_name", StringType()),
        ("id", StringType()),
        ("model_version", StringType()),
        ("inputs", StructType.fromJson(sides["inputs"])),
        ("outputs", StructType.fromJson(sides["outputs"])),
        ("request_id", StringType()),
        ("row_index", LongType()),
        ("status_code", IntegerType()),
        ("error", StringType()),
        ("latency_ms", DoubleType()),
        ("sample_weight", DoubleType()),
        ("metadata", MapType(StringType(), StringType())),
        ("traceparent", StringType()),
        ("writer", StringType()),
        ("seq", LongType()),
    ]
    return StructType([StructField(name, kind) for name, kind in fields])


def read_topic(spark: SparkSession, bootstrap: str, topic: str, options: dict) -> DataFrame:
    """The messages of the topic. One that retention has deleted before it was read fails the query: it is lost."""
    reader = spark.readStream.format("kafka").option("kafka.bootstrap.servers", bootstrap).option("subscribe", topic)
    return reader.option("startingOffsets", "earliest").options(**options).load()


def predictions(messages: DataFrame, schema: StructType) -> DataFrame:
    """One row for each message; `raw` keeps the text of those that are no prediction, so that no message is lost in silence.

    from_json makes a row of nulls of what it cannot parse. A prediction has a model's name and a time, always.
    """
    text = F.col("value").cast("string")
    parsed = messages.select(text.alias("text"), "topic", "partition", "offset", F.from_json(text, schema).alias("line"))
    good = F.col("line.model_name").isNotNull() & F.col("line.timestamp").isNotNull()
    return parsed.select(
        "line.*",
        F.to_date("line.timestamp").alias("date"),
        F.when(~F.coalesce(good, F.lit(False)), F.col("text")).alias("raw"),
        "topic",
        "partition",
        "offset",
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--bootstrap", required=True, help="the brokers, host:port,host:port")
    arguments.add_argument("--topic", required=True)
    arguments.add_argument("--table", required=True, help="the Delta table's directory or URL (s3a://…)")
    arguments.add_argument("--checkpoint", required=True, help="where the query keeps how far it is; one for each table")
    arguments.add_argument("--schema", required=True, type=Path, help='JSON: {"inputs": <Spark struct>, "outputs": <Spark struct>}')
    arguments.add_argument("--trigger", default="available-now", help='available-now, or an interval such as "1 minute"')
    arguments.add_argument("--max-offsets", type=int, help="messages of one batch at most")
    arguments.add_argument("--kafka", action="append", default=[], metavar="KEY=VALUE", help="another option of Spark's Kafka source")
    given = arguments.parse_args()

    spark = SparkSession.builder.appName(f"predlog {given.topic}").getOrCreate()
    # Times of the line are UTC, and so are the dates of partitions.
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    options = dict(option.split("=", 1) for option in given.kafka)
    if given.max_offsets:
        options["maxOffsetsPerTrigger"] = str(given.max_offsets)
    messages = read_topic(spark, given.bootstrap, given.topic, options)
    rows = predictions(messages, line_schema(json.loads(given.schema.read_text())))

    writer = rows.writeStream.format("delta").outputMode("append").partitionBy("model_name", "date")
    writer = writer.option("checkpointLocation", given.checkpoint).option("mergeSchema", "true")
    now = given.trigger == "available-now"
    writer = writer.trigger(availableNow=True) if now else writer.trigger(processingTime=given.trigger)
    query = writer.start(given.table)
    query.awaitTermination()
    progress = [step.numInputRows if hasattr(step, "numInputRows") else step["numInputRows"] for step in query.recentProgress]
    print(json.dumps({"rows": sum(progress), "batches": len(progress)}))


if __name__ == "__main__":
    main()
