"""What a Python process does to its loggers: it ends, and it forks."""

from __future__ import annotations

import atexit
import os
import weakref
from multiprocessing import util

from . import _native

_loggers: weakref.WeakSet[_native.Logger] = weakref.WeakSet()


def keep(logger: _native.Logger) -> None:
    """Has `logger` closed when the process ends, and opened again on both sides of a fork."""
    _loggers.add(logger)


def _close_all() -> None:
    for logger in list(_loggers):
        logger.close()


def _before_fork() -> None:
    # The worker's thread would not be there in the child, and SQLite does not survive a fork. So each logger delivers what it has and ends; the
    # next log() opens it again, in the parent and in the child.
    _native.forking("begins")
    for logger in list(_loggers):
        logger._before_fork()
    _native.forking("ready")


def _after_fork_in_parent() -> None:
    _native.forking("parent")


def _after_fork_in_child() -> None:
    for logger in list(_loggers):
        logger._after_fork_in_child()
    _native.forking("child")


class _Child:
    """Stands for this module in multiprocessing's registry, which takes no functions."""


def _close_with_multiprocessing(_child: _Child) -> None:
    # A child of multiprocessing ends without atexit, but runs its finalizers.
    util.Finalize(None, _close_all, exitpriority=0)


_child = _Child()
# Forked children forget their finalizers as they start, and call this after that; others import this module later.
util.register_after_fork(_child, _close_with_multiprocessing)
_close_with_multiprocessing(_child)
atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
