"""Questions asked before anything is touched. A refusal changes nothing on any host.

Space and drift are asked always; the plan's ``guards`` come on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deployguard.errors import Refused
from deployguard.plan.model import Component
from deployguard.rollout.member import Context, Member

__all__ = ["judge", "nothing_to_do", "verdicts"]

#: Names shown before "and N more".
SHOWN = 20

Verdict = tuple[str, bool, str]


def judge(context: Context, members: Sequence[Member]) -> None:
    """Raise :class:`Refused` with every reason there is, from all hosts."""
    refusals = [
        f"{member.name}: {message}"
        for member in members
        for _, ok, message in verdicts(context, member)
        if not ok
    ]
    if refusals:
        raise Refused(
            "\n".join(refusals),
            hint="nothing was touched; `deployguard plan PLAN` shows the details",
        )


def verdicts(context: Context, member: Member) -> list[Verdict]:
    """Each guard's (name, passed, message) for one host."""
    found: list[Verdict] = []
    for name, component in member.components.items():
        looked = member.looked["components"][name]
        found.append(_space(name, looked["space"]))
        found.append(_drift(name, component, looked, context.drift or component.drift))
    for guard in context.plan.guards:
        if guard.disk is not None:
            found.append(_disk(guard.disk.path, guard.disk.free, guard.disk.inodes, member.looked))
    return found


def nothing_to_do(members: Sequence[Member]) -> bool:
    """Whether every host already runs exactly this, and is healthy."""
    for member in members:
        baseline = member.looked.get("baseline") or {}
        if not baseline.get("healthy"):
            return False
        for name, looked in member.looked["components"].items():
            if looked["live"].get("version") != member.new_version(name):
                return False
            if looked["added"] or looked["changed"] or looked["removed"]:
                return False
            if any(file["change"] != "same" for file in looked["files"]):
                return False
    return True


def _space(name: str, space: dict[str, Any]) -> Verdict:
    for what, unit in (("bytes", "bytes"), ("inodes", "inodes")):
        needed, free = int(space[f"needed_{what}"]), int(space[f"free_{what}"])
        if needed > free:
            return (
                "space",
                False,
                f"{name} needs {needed:,} {unit} in {space['path']} with the reserve for a "
                f"rescue, and {free:,} are free",
            )
    return "space", True, f"{name}: room enough in {space['path']}"


def _drift(name: str, component: Component, looked: dict[str, Any], policy: str) -> Verdict:
    if policy == "save":
        return "drift", True, f"{name}: hand-made changes will be saved"
    drift = looked["drift"]
    words = [
        f"{kind} {_some(drift[key])}"
        for key, kind in (("changed", "changed"), ("added", "added"), ("removed", "removed"))
        if drift[key]
    ]
    if words:
        return (
            "drift",
            False,
            f"{component.path} was changed by hand since the last deploy: {'; '.join(words)} "
            "(keep or ignore them in the plan, or deploy with --drift save)",
        )
    if looked["only_on_host"]:
        way = "keep" if component.layout == "in_place" else "shared"
        return (
            "drift",
            False,
            f"{component.path} has files that the release does not have and that would be gone: "
            f"{_some(looked['only_on_host'])} (name them under `{way}`, add them to the release, "
            "or deploy with --drift save)",
        )
    return "drift", True, f"{name}: as it was deployed"


def _disk(path: str, free: int | None, inodes: int | None, looked: dict[str, Any]) -> Verdict:
    space = looked["disks"].get(path)
    if space is None:
        return "disk", False, f"disk: {path} is not a directory on the host"
    needs = [
        (
            sum(int(c["space"]["needed_bytes"]) for c in looked["components"].values()),
            free,
            int(space["bytes"]),
            "bytes",
        ),
        (
            sum(int(c["space"]["needed_inodes"]) for c in looked["components"].values()),
            inodes,
            int(space["inodes"]),
            "inodes",
        ),
    ]
    for needed, wanted, there, unit in needs:
        if wanted is not None and there - needed < wanted:
            return (
                "disk",
                False,
                f"disk: {path} would have {max(there - needed, 0):,} {unit} free after the "
                f"deploy; the plan asks for {wanted:,}",
            )
    return "disk", True, f"disk: room enough in {path}"


def _some(paths: Sequence[str]) -> str:
    shown = ", ".join(_printable(path) for path in paths[:SHOWN])
    rest = len(paths) - SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown


def _printable(path: str) -> str:
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return text if text.isprintable() else repr(text)
