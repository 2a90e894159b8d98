"""A host's standing and an error as plain data, for the way from a job to the controller."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from deployguard.errors import (
    ActionFailed,
    ConnectionLost,
    DeployguardError,
    HostFailure,
    InternalError,
    Locked,
    ProtocolError,
    Refused,
    Unreachable,
    UsageError,
)
from deployguard.rollout.member import Context, Member
from deployguard.rollout.migrations import Migration
from deployguard.rollout.outcome import Finding

__all__ = [
    "apply",
    "decode",
    "encode",
    "error_data",
    "error_of",
    "learn",
    "shared",
    "standing",
]

_HOST_ERRORS: dict[str, type[HostFailure]] = {
    kind.__name__: kind for kind in (Unreachable, ConnectionLost, ProtocolError, HostFailure)
}
_ERRORS: dict[str, type[DeployguardError]] = {
    kind.__name__: kind for kind in (Locked, UsageError, InternalError)
}


def encode(data: Mapping[str, Any]) -> bytes:
    """JSON in ASCII; lone surrogates in it carry names that are not UTF-8."""
    return json.dumps(data).encode("ascii")


def decode(data: bytes) -> dict[str, Any]:
    """What :func:`encode` was given."""
    found: dict[str, Any] = json.loads(data)
    return found


def shared(context: Context) -> dict[str, Any]:
    """What all hosts' jobs must know, and only shows while they are at work."""
    return {
        "migrations": [dataclasses.asdict(one) for one in context.migrations],
        "once": dict(context.once),
        "crossed": context.crossed,
    }


def learn(context: Context, known: Mapping[str, Any]) -> None:
    """Take over what :func:`shared` tells."""
    context.migrations = tuple(Migration(**one) for one in known["migrations"])
    context.once = known["once"]
    context.crossed = known["crossed"]


def standing(member: Member, epoch: int) -> dict[str, Any]:
    """All that the controller has to know of a host: ``epoch`` is the one that it is held under."""
    return {
        "epoch": epoch,
        "state": member.state,
        "begun": member.begun,
        "touched": member.touched,
        "looked": _looked(member.looked),
        "findings": [dataclasses.asdict(finding) for finding in member.findings],
        "collected": member.collected,
        "check_results": member.check_results,
        "restored": member.restored,
        "seconds": member.seconds,
        "failure": error_data(member.failure) if member.failure is not None else None,
    }


def apply(member: Member, data: Mapping[str, Any]) -> None:
    """Take over what a job has told of its host.

    What an earlier job has learnt stays where this one has not learnt it again.
    """
    member.state = data["state"]
    member.begun = data["begun"]
    member.touched = data["touched"]
    member.looked = data["looked"] or member.looked
    found = [Finding(**finding) for finding in data["findings"]]
    member.findings += [finding for finding in found if finding not in member.findings]
    member.collected = data["collected"]
    member.check_results = data["check_results"] or member.check_results
    member.restored = data["restored"]
    member.seconds.update(data["seconds"])
    if data["failure"] is not None and member.failure is None:
        failure = error_of(data["failure"])
        assert isinstance(failure, HostFailure)
        member.failure = failure


def _looked(looked: Mapping[str, Any]) -> dict[str, Any]:
    """A look without what only the job needs: of what was observed, whether it has drifted."""
    if not looked:
        return {}
    components = {
        name: {
            **{key: value for key, value in found.items() if key != "missing"},
            "observed": {
                field: {"drift": answer.get("drift")}
                for field, answer in found.get("observed", {}).items()
            },
        }
        for name, found in looked["components"].items()
    }
    return {**looked, "components": components}


def error_data(error: DeployguardError) -> dict[str, Any]:
    """An error as data."""
    data: dict[str, Any] = {
        "class": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
    }
    if isinstance(error, HostFailure):
        data.update(host=error.host, message=error.reason)
    if isinstance(error, Refused):
        data.update(refusals=error.refusals)
    if isinstance(error, ActionFailed):
        data.update(kind=error.kind, detail=error.detail)
    return data


def error_of(data: Mapping[str, Any]) -> DeployguardError:
    """The error again, of a class that means the same to whoever judges it."""
    name, message, hint = data["class"], data["message"], data["hint"]
    if name == ActionFailed.__name__:
        kind, detail = data["kind"], data["detail"]
        return ActionFailed(data["host"], message, kind=kind, detail=detail, hint=hint)
    if "host" in data:
        return _HOST_ERRORS.get(name, HostFailure)(data["host"], message, hint=hint)
    if name == Refused.__name__:
        return Refused(message, hint=hint, refusals=[tuple(each) for each in data["refusals"]])
    return _ERRORS.get(name, InternalError)(message, hint=hint)
