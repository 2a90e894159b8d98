"""Brings a revision to one host: the host fetches it, or is sent a bundle of what it lacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployguard.errors import ActionFailed, Refused
from deployguard.rollout.member import Context, Member
from deployguard.rollout.targets import Source

__all__ = ["moved", "obtain"]


def obtain(
    context: Context, member: Member, name: str, source: Source, target: Mapping[str, Any]
) -> dict[str, Any]:
    """What the look has to know besides; ``sent`` is bytes. Nothing that is live changes.

    Raises :class:`Refused` with what stands in the way on the host.
    """
    args = {"transaction": context.transaction, "component": target}
    try:
        answer = member.call("revision", args)
        if source.revision is None:
            return {"known": [], "sent": 0}
        sent = 0
        known = source.revision.known(answer["haves"])
        if answer["lacks"]:
            bundle = source.revision.bundle(known)
            asked = {"component": name, "digest": bundle.digest, "size": bundle.size}
            sent = int(member.call("bundle", asked, stream=bundle.stream())["received"])
    except ActionFailed as error:
        if error.kind == "refused":
            raise Refused(f"{member.name}: {error.reason}", hint=error.hint) from error
        raise
    return {"known": known, "sent": sent}


def moved(looked: Mapping[str, Any]) -> str:
    """From which commit to which a checkout moves, in words; empty where it does not."""
    found = looked.get("git")
    if found is None or not found["moves"]:
        return ""
    new = _standing(found["commit"], found["branch"])
    return f"{_standing(found['head'], found['on'])} → {new}" if found["head"] else new


def _standing(commit: str, branch: str | None) -> str:
    return f"{commit[:12]} on {branch}" if branch else f"{commit[:12]}"
