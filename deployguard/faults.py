"""Named points at which a drill, or a test, lets something go wrong.

``DEPLOYGUARD_FAULTS`` holds what is to go wrong in one run, as a JSON object; without it nothing
here does anything. It is for ``deployguard drill`` and for the tests of deployguard:

``controller``
    A list of ``{"point", "action"}``. Points are ``before VERB HOST`` and ``after VERB HOST`` for
    each request to a host, and ``before decide`` and ``after decide``. Actions are ``kill``
    (SIGKILL), ``interrupt`` (SIGINT) and ``terminate`` (SIGTERM), all of this process; and
    ``wait``: the file ``path`` is made, and what came to the point waits until it is gone. Each
    happens once.
``hosts``
    Host name to a list of faults there; see :mod:`deployguard.onhost.faults`.
``unhealthy``
    A list of hosts; whatever their checks say, the new version counts as unhealthy there.
``incidents``
    ``false``: a failure is not reported anywhere.
``list``
    A file; the name of each point of this process is appended to it.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from deployguard.errors import UsageError

__all__ = ["VARIABLE", "for_host", "quietly", "reach", "reported", "unhealthy"]

VARIABLE = "DEPLOYGUARD_FAULTS"

_SIGNALS = {"kill": signal.SIGKILL, "interrupt": signal.SIGINT, "terminate": signal.SIGTERM}

_quiet: ContextVar[bool] = ContextVar("quiet", default=False)

#: How often one that waits looks whether it may go on, in seconds.
_GLANCE = 0.02


def reach(point: str) -> None:
    """Called at each point of the controller."""
    wanted = _wanted()
    if not wanted:
        return
    if "list" in wanted:
        with open(wanted["list"], "a", encoding="utf-8") as file:
            file.write(point + "\n")
    for fault in wanted.get("controller", []):
        if fault["point"] == point and fault.setdefault("left", 1) > 0:
            fault["left"] -= 1
            _happen(fault, point)


def _happen(fault: dict[str, Any], point: str) -> None:
    if fault["action"] != "wait":
        os.kill(os.getpid(), _SIGNALS[fault["action"]])
        return
    path = Path(fault["path"])
    path.write_text(point, encoding="utf-8")
    while path.exists():
        time.sleep(_GLANCE)


def for_host(host: str) -> list[dict[str, Any]]:
    """What is to go wrong on a host, for its program."""
    return list(_wanted().get("hosts", {}).get(host, []))


def unhealthy(host: str) -> bool:
    """Whether the new version is to count as unhealthy on a host."""
    return host in _wanted().get("unhealthy", [])


def reported() -> bool:
    """Whether somebody is to be told of a failure."""
    return not _quiet.get() and bool(_wanted().get("incidents", True))


@contextmanager
def quietly() -> Iterator[None]:
    """What goes wrong meanwhile was wanted: nobody is woken, and no incident is opened."""
    before = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(before)


@functools.cache
def _wanted() -> dict[str, Any]:
    text = os.environ.get(VARIABLE)
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{VARIABLE} is not JSON: {error}", hint=f"unset {VARIABLE}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{VARIABLE} is not a JSON object", hint=f"unset {VARIABLE}")
    return found
