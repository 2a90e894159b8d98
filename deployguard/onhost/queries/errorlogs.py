"""The kinds of errors in a log, before a moment and since: what is news, and what was always there.

The journal and the engine of a stack know when a line was written. In a file the time stands in the
line, if it does; a line without one belongs to the line before it. A file without times is all of
it "since", and the answer says that it is not ``timed``.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any, Dict, List, Optional, Sequence, Tuple

from deployguard.onhost.compose.containers import Engine, EngineFailed, find_tool
from deployguard.onhost.excerpts import shorten
from deployguard.onhost.logs import source as logs
from deployguard.onhost.logs.shapes import Miner
from deployguard.onhost.logs.source import Line
from deployguard.onhost.probes.logs import is_error
from deployguard.onhost.probes.logs import name_of as _name_of
from deployguard.onhost.system import System

#: How much of a log is read, on each side of the moment.
MAX_BYTES = 512 * 1024
#: Lines of one container before the moment.
_TAIL = 2000
#: Kinds of errors that are told, the most frequent first.
_SHOWN = 10
_EXCERPT = 300
WORDS = ("error", "critical", "fatal", "panic")

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,]\d+)?\s?(Z|UTC|[+-]\d\d:?\d\d)?")
#: The time stands near the start of a line, or not at all.
_NEAR = 80

Halves = Tuple[List[Line], List[Line], bool]


def name_of(source: Dict[str, Any]) -> str:
    """The log in words."""
    if "containers" in source:
        return "the containers of %s" % source["containers"]["project"]
    if "kubernetes" in source:
        return "the pods of %s" % ", ".join(source["kubernetes"]["workloads"])
    return _name_of(source)  # type: ignore[arg-type]  # the rest is a Source


def halves(source: Dict[str, Any], since: float, seconds: float, system: System) -> Halves:
    """The lines before a moment, and those since; whether their times are known.

    Raises :class:`logs.Unreadable` and :class:`EngineFailed`.
    """
    if "containers" in source:
        return _of_containers(source["containers"], since, seconds, system)
    if "kubernetes" in source:
        return divided(_of_pods(source["kubernetes"], seconds, system), since)
    plain: logs.Source = source  # type: ignore[assignment]  # what is left of the kinds
    if "unit" in plain:
        before = logs.read(plain, system, {"until": since}, MAX_BYTES, seconds)
        return before, logs.read(plain, system, {"since": since}, MAX_BYTES, seconds), True
    return divided(logs.read(plain, system, None, 2 * MAX_BYTES, seconds), since)


def divided(lines: Sequence[Line], since: float) -> Halves:
    """Lines with their times in them."""
    before: List[Line] = []
    after: List[Line] = []
    last: Optional[float] = None
    for line in lines:
        at = time_of(line.text)
        last = last if at is None else at
        (before if last is not None and last < since else after).append(line)
    return before, after, last is not None or not lines


def time_of(text: str) -> Optional[float]:
    """The moment that a line names near its start, in UTC seconds; without a zone it is the host's
    own."""
    found = _TIME.search(text[:_NEAR])
    if found is None:
        return None
    try:
        at = datetime.fromisoformat("%s %s" % found.groups()[:2])
    except ValueError:
        return None
    zone = found.group(3)
    if zone is None:
        return at.timestamp()
    shift = 0
    if zone not in ("Z", "UTC"):
        shift = (int(zone[1:3]) * 3600 + int(zone[-2:]) * 60) * (-1 if zone[0] == "-" else 1)
    return at.replace(tzinfo=timezone.utc).timestamp() - shift


def compared(
    before: Sequence[Line], after: Sequence[Line]
) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """How many lines and errors there are on each side, and the kinds of errors since; each is
    ``new`` where no error before the moment was like it."""
    known, fresh = Miner(), Miner()
    old = [line for line in before if is_error(line, list(WORDS))]
    new = [line for line in after if is_error(line, list(WORDS))]
    for line in old:
        known.learn(line.text)
    for line in new:
        fresh.learn(line.text)
    shapes = sorted(fresh.shapes, key=lambda shape: -shape.count)
    kinds = [
        {
            "shape": str(shape),
            "count": shape.count,
            "first": shorten(shape.example, _EXCERPT),
            "new": not known.knows(shape.example),
        }
        for shape in shapes
    ]
    # What is new says most, however rare.
    kinds.sort(key=lambda kind: not kind["new"])
    counts = {"lines": len(before), "errors": len(old), "kinds": len(known.shapes)}
    return counts, {"lines": len(after), "errors": len(new), "kinds": kinds[:_SHOWN]}


def _of_pods(service: Dict[str, Any], seconds: float, system: System) -> List[Line]:
    from deployguard.onhost.kubernetes import evidence as kubeevidence

    try:
        lines = kubeevidence.recent_logs(service, _TAIL, seconds, system)
    except kubeevidence.KubectlFailed as error:
        raise logs.Unreadable(str(error)) from None
    return [Line(line[: logs.MAX_LINE]) for line in lines]


def _of_containers(manager: Dict[str, Any], since: float, seconds: float, system: System) -> Halves:
    """Of all containers of a stack that there are now; those of before a deploy went with it."""
    ends = system.monotonic() + seconds
    env = manager.get("env")
    engine = Engine(find_tool(manager["tool"], env).engine, manager["project"], env, system)
    sides: Tuple[List[Line], List[Line]] = ([], [])
    for one in engine.containers(seconds):
        moment = str(int(since))
        asked = (
            ("--until", moment, "--tail", str(_TAIL)),
            ("--since", moment, "--tail", str(_TAIL)),
        )
        for side, words in zip(sides, asked):
            left = ends - system.monotonic()
            if left <= 0:
                raise EngineFailed("the engine did not give all logs within %g s" % seconds, "")
            done = engine.run("logs", *words, one.id, timeout=left)
            # A program may write its errors to either stream.
            text = (done.stdout + done.stderr).decode("utf-8", "replace")
            side += [Line(line[: logs.MAX_LINE], instance=one.id) for line in text.splitlines()]
    return sides[0], sides[1], True
