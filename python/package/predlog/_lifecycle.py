"""What a Python process does to its loggers: it ends, and it forks."""

from __future__ import annotations

import atexit
import itertools
import os
import weakref
from multiprocessing import util

from . import _native

#: A reference that is gone takes itself out, at any moment: so it is copied before it is gone through, and never by Python's own code.
_loggers: dict[int, weakref.ref[_native.Logger]] = {}
_keys = itertools.count()
#: A logger has so long to deliver what it has; the rest is in its directory.
_SECONDS = 5.0


def keep(logger: _native.Logger) -> None:
    """Has `logger` closed when the process ends, and opened again on both sides of a fork."""
    key = next(_keys)
    _loggers[key] = weakref.ref(logger, lambda _: _loggers.pop(key, None))


def _all() -> list[_native.Logger]:
    return [logger for reference in list(_loggers.copy().values()) if (logger := reference()) is not None]


def _close_all() -> None:
    _native.end_all(_all(), _SECONDS, True)
    # Daemon threads that are in `log()` now would be stopped within it.
    _native.settle(1.0)


def _end_all() -> None:
    # Threads that outlive the function of a child of multiprocessing may log still.
    _native.end_all(_all(), _SECONDS, False)


def _before_fork() -> None:
    # The worker's thread would not be there in the child, and SQLite does not survive a fork. So each logger delivers what it has and ends; the
    # next log() opens it again, in the parent and in the child.
    _native.forking("begins")
    _native.end_all(_all(), _SECONDS, False)
    _native.forking("ready")


def _after_fork_in_parent() -> None:
    _native.forking("parent")


def _after_fork_in_child() -> None:
    _native.forking("child")
    for logger in _all():
        logger._after_fork_in_child()


class _Child:
    """Stands for this module in multiprocessing's registry, which takes no functions."""


def _close_with_multiprocessing(_child: _Child) -> None:
    # A child of multiprocessing ends without atexit, but runs its finalizers.
    util.Finalize(None, _end_all, exitpriority=0)


_child = _Child()
# Forked children forget their finalizers as they start, and call this after that; others import this module later.
util.register_after_fork(_child, _close_with_multiprocessing)
_close_with_multiprocessing(_child)
atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
