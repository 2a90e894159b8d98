"""A look at a service's log: errors of a kind that it did not have before the deploy.

Every service logs errors, and after a deploy nobody knows which of them are the old ones. The
baseline learns the shapes of the errors at the end of the log
(:mod:`deployguard.onhost.logs.shapes`); after the switch an error whose shape is not among them is
news, and stays so: nobody waits for it to heal.
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, Optional

from deployguard.onhost.excerpts import shorten
from deployguard.onhost.logs import source as logs
from deployguard.onhost.logs.shapes import VARIABLE, Miner, Shape, plain
from deployguard.onhost.probes.base import HEALTHY, UNHEALTHY, UNKNOWN, CheckData, Finding, finding
from deployguard.onhost.system import System

EXCERPT = 200
_SHOWN = 3
_KEPT = 20
#: As many runs of the service as the end of a log may hold.
_INSTANCES = 10
#: How the names end that Python, Java and JavaScript give to what they raise; Go, glog and C.
_RAISED = re.compile(r"(?:Error|Exception)\b|^panic:|^[EF][0-9]{4} |\bSIG(?:SEGV|ABRT)\b")
#: pino and bunyan write a level as a number.
_NUMBERED = re.compile(r'"level": ?[56]0\b')


def look(check: CheckData, system: System) -> Finding:
    """One look. ``observed`` without a baseline: ``shapes``, ``lines``, ``errors``, ``instances``,
    ``files``, ``full``; with one: ``new``, ``lines``, ``errors``."""
    baseline = check.get("baseline")
    try:
        if baseline is None:
            return _learn(check, system)
        return _compare(check, system, baseline)
    except logs.Unreadable as error:
        return finding(UNKNOWN, str(error))


def _learn(check: CheckData, system: System) -> Finding:
    lines = logs.read(check["log"], system, None, check["history"], check["timeout"])
    errors = [line for line in lines if is_error(line, check["words"])]
    miner = Miner()
    for line in errors:
        miner.learn(line.text)
    instances = list(dict.fromkeys(line.instance for line in reversed(lines) if line.instance))
    observed: Dict[str, Any] = {
        "shapes": [str(shape) for shape in miner.shapes],
        "lines": len(lines),
        "errors": len(errors),
        "instances": instances[:_INSTANCES],
        "files": logs.files(check["log"], system, check["timeout"]),
        "full": miner.full,
    }
    message = "%s among %d lines of %s" % (
        _kinds(len(miner.shapes), "kind of error", "kinds of error"),
        len(lines),
        name_of(check["log"]),
    )
    return finding(HEALTHY, message, observed=observed)


def _compare(check: CheckData, system: System, baseline: Dict[str, Any]) -> Finding:
    name = name_of(check["log"])
    mark = check.get("mark")
    if mark is None:
        return finding(UNKNOWN, "nobody noted where %s ended at the switch" % name)
    lines = logs.read(check["log"], system, mark, check["history"], check["timeout"])
    lines = _of_new_runs(lines, baseline.get("instances", []))
    errors = [line for line in lines if is_error(line, check["words"])]
    known, fresh = Miner(), Miner()
    known.remember(baseline.get("shapes", []))
    for line in errors:
        if not known.knows(line.text) and not ignored(line.text, check.get("ignore", [])):
            fresh.learn(line.text)
    shapes = sorted(fresh.shapes, key=lambda shape: -shape.count)
    observed: Dict[str, Any] = {"lines": len(lines), "errors": len(errors)}
    observed["new"] = [
        {"shape": str(shape), "count": shape.count, "first": shape.example}
        for shape in shapes[:_KEPT]
    ]
    if len(shapes) > check.get("max_new", 0):
        return _news(check, shapes, baseline, observed)
    message = "no new kind of error in %s since the switch" % name
    if shapes:
        counted = _kinds(len(shapes), "new kind of error", "new kinds of error")
        message = "%s in %s since the switch, no more than allowed" % (counted, name)
    return finding(HEALTHY, message, observed=observed)


def _news(
    check: CheckData, shapes: List[Shape], baseline: Dict[str, Any], observed: Dict[str, Any]
) -> Finding:
    counted = _kinds(len(shapes), "new kind of error", "new kinds of error")
    message = "%s in %s since the switch: %s" % (
        counted,
        name_of(check["log"]),
        "; ".join(_described(shape) for shape in shapes[:_SHOWN]),
    )
    if baseline.get("full"):
        message += "; the log before the deploy has too many kinds to know them all"
        return finding(UNKNOWN, message, observed=observed)
    if not baseline.get("lines"):
        message += "; there is no log from before the deploy to compare with"
    return finding(UNHEALTHY, message, True, observed)


def _of_new_runs(lines: List[logs.Line], before: List[str]) -> List[logs.Line]:
    """The lines without the last ones of a run that was stopped: the journal may be behind.

    A service that was not restarted at all has only its old run, and that is the one that counts.
    """
    old = set(before)
    if not any(line.instance and line.instance not in old for line in lines):
        return lines
    return [line for line in lines if line.instance not in old]


def is_error(line: logs.Line, words: List[str]) -> bool:
    """Whether a line tells of an error: by the journal's priority, by a word, by its form."""
    if line.severe:
        return True
    text = line.text
    if _RAISED.search(text) or _NUMBERED.search(text):
        return True
    lowered = text.lower()
    return any(_has_word(lowered, word.lower()) for word in words)


def _has_word(text: str, word: str) -> bool:
    """Whether the word stands there as one: ``error`` is not in ``errors`` or ``error_count``."""
    at = text.find(word)
    while at >= 0:
        end = at + len(word)
        before, after = text[at - 1 : at] if at else "", text[end : end + 1]
        if not _of_a_word(before) and not _of_a_word(after):
            return True
        at = text.find(word, at + 1)
    return False


def _of_a_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def ignored(line: str, patterns: List[str]) -> bool:
    """Whether one of the patterns, in which ``*`` stands for anything, is found in the line.

    A shape as findings show it is a pattern.
    """
    text = " ".join(plain(line).split())
    return any(_holds(text, pattern.replace(VARIABLE, "*").split("*")) for pattern in patterns)


def _holds(text: str, pieces: List[str]) -> bool:
    """Whether the pieces stand in the text one behind the other. No regular expression: a bad one
    would keep the whole program from doing anything else."""
    at = 0
    for piece in pieces:
        at = text.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return True


def name_of(source: logs.Source) -> str:
    """The log in words."""
    if "pm2" in source:
        return "the logs of %s in PM2" % ", ".join(source["pm2"]["names"])
    return source["path"] if "path" in source else "the journal of %s" % source["unit"]


def _described(shape: Shape) -> str:
    # The line itself says most; of several, what they have in common.
    words = shape.example if shape.count == 1 else str(shape)
    times = "" if shape.count == 1 else " (%d times)" % shape.count
    return shorten(words, EXCERPT) + times


def _kinds(count: int, one: str, many: str) -> str:
    return "%d %s" % (count, one if count == 1 else many)


def mark(
    check: CheckData, baseline: Optional[Dict[str, Any]], system: System
) -> Optional[Dict[str, Any]]:
    """Where the log ends now, for the looks that follow; ``None`` where it cannot be told.

    ``baseline`` is what :func:`look` observed before.
    """
    try:
        return logs.mark(check["log"], system, (baseline or {}).get("files", ()))
    except (OSError, KeyError):
        return None
