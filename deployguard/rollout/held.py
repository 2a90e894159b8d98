"""What a person is told of hosts that wait for one: why, and what there is to choose from. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["choices", "reason", "stopped"]

Held = Mapping[str, Any]


def reason(held: Held) -> str:
    """Why a host is held, in one sentence."""
    where = "here" if held["here"] else "on another host of this deploy"
    live = "the new version is live" if held["live"] == "new" else "the old version is live"
    return (
        f"held as it is behind a point of no return: {held['task']} was begun {where} and cannot "
        f"be taken back, so old code was not put back under a new schema; {live}"
    )


def choices(held: Held) -> str:
    """What can be done, one choice a line; ``PLAN`` stands for the plan."""
    lines = ["nothing is lost, and both trees are there; choose for all hosts of this deploy:"]
    if held["switched"]:
        lines.append(
            "- `deployguard recover PLAN --held new` keeps the new version; then deploy one that "
            "mends it"
        )
    else:
        lines.append("- the new version cannot be kept: the deploy did not come to its last step")
    lines.append(
        "- `deployguard recover PLAN --held old` puts the old version back; only if its code works "
        "with the schema as it is now"
    )
    for dump in held["dumps"]:
        lines.append(
            f"- or bring the schema back first, from the dump {dump}; what was written since is "
            "lost. Then --held old"
        )
    if not held["dumps"] and held["here"]:
        lines.append(
            "- there is no dump of this migration: the old schema comes from a backup only"
        )
    return "\n".join(lines)


def stopped(failures: list[Mapping[str, str]]) -> str:
    """What can be done where a down step failed, so that nothing below it was undone."""
    failed = next((f for f in failures if f.get("stopped")), None)
    if failed is None:
        return ""
    return (
        "the schema could not be taken back, so old code was not put back under it; choose:\n"
        "- mend what the message says, then `deployguard recover PLAN` tries the down step again\n"
        "- `deployguard recover PLAN --held old` puts the old version back without it; only if its "
        "code works with the schema as it is now"
    )
