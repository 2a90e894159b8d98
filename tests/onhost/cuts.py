"""Kills a process at a chosen step: the k-th time it makes something durable or runs a program.

The process is a forked child that ends with ``os._exit``: as with SIGKILL, no handler tidies up
after it. What it had in memory is lost, and the kernel takes its locks.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any, Callable, Iterator

from deployguard.onhost import durable
from tests.onhost.bench import Bench

_KILLED = 9
_POINTS = (
    "append",
    "exchange",
    "make_directory",
    "release",
    "remove_tree",
    "rename",
    "rename_new",
    "reserve",
    "sync_tree",
    "write_file",
    "_remove_files",
)
_CALLS = ("chmod", "chown", "link", "mkdir", "rename", "rmdir", "symlink", "unlink", "utime")


def killed_at(bench: Bench, number: int, work: Callable[[], object]) -> bool:
    """Do ``work`` in a child that dies at point ``number``; whether it got that far."""
    pid = os.fork()
    if pid == 0:
        _child(bench, number, work)
    _, status = os.waitpid(pid, 0)
    code = os.WEXITSTATUS(status)
    assert code in (0, _KILLED), "the child failed; see its traceback"
    return code == _KILLED


def every_point(attempt: Callable[[int], bool]) -> Iterator[int]:
    """1, 2, 3, … as long as ``attempt`` of it says that something was killed."""
    number = 1
    while attempt(number):
        yield number
        number += 1


def _child(bench: Bench, number: int, work: Callable[[], object]) -> None:
    left = [number]

    def point() -> None:
        left[0] -= 1
        if left[0] == 0:
            os._exit(_KILLED)

    def before(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **names: Any) -> Any:
            point()
            return function(*arguments, **names)

        return wrapped

    status = 1
    try:
        # A kill after one of these leaves the disk as a kill before the next one does.
        for name in _POINTS:
            setattr(durable, name, before(getattr(durable, name)))
        for name in _CALLS:
            setattr(os, name, before(getattr(os, name)))
        bench.system.run = before(bench.system.run)  # type: ignore[method-assign]
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - the parent sees the status, and must not run on
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(status)
