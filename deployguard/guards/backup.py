"""There is a backup, it is young enough, and it opens."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from deployguard.guards.base import Answers, Known, Question, Verdict
from deployguard.plan.model import BackupGuard, Plan
from deployguard.plan.order import hosts_named

__all__ = ["judge", "questions", "verdict"]

#: A clock that is ahead by less than this is only a clock.
_AHEAD = 300.0


def questions(spec: BackupGuard, plan: Plan, host: str) -> dict[str, Question]:
    """What a host is asked, if it is one that should have the backup."""
    if spec.here or host not in hosts_named(plan.hosts, spec.hosts):
        return {}
    return {"backup": _question(spec, spec.path)}


def judge(spec: BackupGuard, known: Known, answers: Answers) -> Iterator[Verdict]:
    """One verdict for each host that should have the backup, or one for this machine."""
    if spec.here:
        path = os.path.join(os.path.dirname(known.plan.source), spec.path)
        yield verdict(spec, known.world.look(_question(spec, path)))
        return
    for host, answer in answers.items():
        yield verdict(spec, answer["backup"], host)


def verdict(spec: BackupGuard, found: Mapping[str, Any], host: str = "") -> Verdict:
    """What the look at a backup adds up to. Pure."""
    if "unknown" in found:
        return Verdict("backup", False, f"{spec.path}: {found['unknown']}", host)
    if not found["count"]:
        words = f"nothing matches {spec.path} (make a backup first)"
        return Verdict("backup", False, words, host)
    path, age = found["path"], float(found["age"])
    if age > spec.younger_than:
        words = (
            f"{path} is {_duration(age)} old, and the plan asks for one younger than "
            f"{_duration(spec.younger_than)} (make a backup first)"
        )
        return Verdict("backup", False, words, host)
    if age < -_AHEAD:
        words = f"{path} is of a time that is {_duration(-age)} ahead (mend the clock)"
        return Verdict("backup", False, words, host)
    if spec.least is not None and found["bytes"] < spec.least:
        words = f"{path} has {found['bytes']:,} bytes, and {spec.least:,} are the least"
        return Verdict("backup", False, f"{words} (look at what makes the backups)", host)
    if found["broken"]:
        words = f"{path} does not open: {found['broken']} (make a backup that does)"
        return Verdict("backup", False, words, host)
    opened = "" if spec.opens is False else ", and it opens"
    return Verdict("backup", True, f"{path} is {_duration(max(age, 0.0))} old{opened}", host)


def _question(spec: BackupGuard, path: str) -> Question:
    return {
        "kind": "backup",
        "pattern": path,
        "younger_than": spec.younger_than,
        "least": spec.least or 0,
        "opens": list(spec.opens) if isinstance(spec.opens, tuple) else spec.opens,
        "deadline": spec.deadline,
    }


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
