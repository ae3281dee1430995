"""Sizes Kafka mode and its archivers from measured figures: prints the tables of sizing.md.

    python docs/sizing.py [--per-day 10e9] [--record-bytes 437] [--core-price 0.04] …

Each figure is an option, so that your own take the place of ours: --help lists them. Prices are in whatever currency you think in.
"""

import argparse
from dataclasses import dataclass
from math import ceil

DAY = 86_400
GIB = 1 << 30

# What was measured, on two shared cores; see sizing.md for how.
FIGURES = {
    "record_bytes": (400, "bytes of a record as JSON (12 features, a uuid)"),
    "wire_ratio": (0.39, "what compression leaves of them on the topic (lz4; zstd leaves 0.21)"),
    "parquet_bytes": (57, "bytes of a record in Parquet (zstd)"),
    "instance_rate": (300_000, "records a second that one archiver core stores"),
    "instance_mebibytes": (256, "peak memory of one archiver process"),
    "partition_rate": (50_000, "records a second of one partition, well below what a broker's disk does"),
    "peak": (3.0, "the busiest second over the mean"),
    "headroom": (0.6, "how much of a core or partition is used at the peak"),
    "file_rows": (1_000_000, "rows of a file, as rotation.max_rows"),
    "file_minutes": (5.0, "the age at which a file ends, as rotation.max_age"),
    "models": (20, "models"),
    "retention_days": (2.0, "days that the topic keeps"),
    "replication": (3, "replicas of the topic"),
    "core_price": (0.04, "price of a core for an hour"),
    "object_price": (0.023, "price of a GiB of object storage for a month"),
    "disk_price": (0.08, "price of a GiB of the brokers' disks for a month"),
    "put_price": (0.000005, "price of a put"),
}


@dataclass
class Size:
    mean: float
    peak: float
    partitions: int
    cores: int
    memory_gib: float
    topic_gib: float
    parquet_gib_day: float
    files_day: int
    monthly: float


def size(per_day: float, f: argparse.Namespace) -> Size:
    mean = per_day / DAY
    peak = mean * f.peak
    partitions = max(1, ceil(peak / (f.partition_rate * f.headroom)))
    cores = max(1, ceil(peak / (f.instance_rate * f.headroom)))
    processes = max(1, ceil(cores / 2))
    # A range of a partition gives a file for each model that it has, by rows or by age, whichever is first.
    by_age = DAY / 60 / f.file_minutes * partitions * f.models
    files = ceil(max(per_day / f.file_rows, by_age))
    topic = per_day * f.record_bytes * f.wire_ratio * f.retention_days * f.replication / GIB
    parquet = per_day * f.parquet_bytes / GIB
    # Three puts beside each file's: the plan and the offset are Kafka's, the state and the watermark are objects.
    puts = files + 2 * DAY / 60 / f.file_minutes * partitions
    month = 730 * cores * f.core_price + 30 * puts * f.put_price + topic * f.disk_price + 30 * parquet * f.object_price
    return Size(mean, peak, partitions, cores, processes * f.instance_mebibytes / 1024, topic, parquet, files, month)


def row(per_day: float, s: Size) -> str:
    cells = [
        f"{per_day / 1e9:g} billion",
        f"{s.mean:,.0f}",
        f"{s.peak:,.0f}",
        f"{s.partitions}",
        f"{s.cores}",
        f"{s.memory_gib:.1f} GiB",
        f"{s.topic_gib:,.0f} GiB",
        f"{s.parquet_gib_day:,.0f} GiB",
        f"{s.files_day:,}",
        f"{s.monthly:,.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--per-day", type=float, action="append", help="records a day; may be given again (1e9, 10e9 and 100e9)")
    for name, (value, text) in FIGURES.items():
        arguments.add_argument("--" + name.replace("_", "-"), type=float, default=value, help=f"{text} ({value})")
    given = arguments.parse_args()
    print("| a day | mean/s | peak/s | partitions | archiver cores | archivers' memory | topic, on disk | Parquet a day | files a day | a month |")
    print("|" + "---:|" * 10)
    for per_day in given.per_day or [1e9, 10e9, 100e9]:
        print(row(per_day, size(per_day, given)))


if __name__ == "__main__":
    main()
