"""The program: `predlog` or `python -m predlog`."""

from __future__ import annotations

import signal
import sys

from . import _native


def main() -> int:
    # Python's own handler would only run after the program, which is not Python's.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _native.run(["predlog", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
