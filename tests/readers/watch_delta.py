"""Reads a Delta table again and again until its input ends, then prints how many versions it has seen. A row that is there twice is an error.

    watch_delta.py S3_URL
"""

import sys
import threading
import time

import pyarrow.compute as pc

from read_delta import open_table

PAUSE = 3


def main() -> None:
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    seen = set()
    while not ended.is_set():
        try:
            table = open_table(sys.argv[1])
            ids = table.to_pyarrow_table(columns=["id"])["id"]
        except Exception:  # The server is killed on purpose, and the table is not there at first.
            time.sleep(PAUSE)
            continue
        distinct = pc.count_distinct(ids).as_py()
        if distinct != len(ids):
            sys.exit(f"version {table.version()} has {len(ids)} rows with {distinct} ids")
        seen.add(table.version())
        time.sleep(PAUSE)
    print(len(seen))


main()
