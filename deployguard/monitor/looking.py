"""Looks at the checks of a plan on every host, over connections that stay open between looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deployguard.errors import DeployguardError, HostFailure
from deployguard.monitor.grouping import GroupKey, Signal
from deployguard.plan.model import Plan
from deployguard.plan.order import components_on, hosts_in_order
from deployguard.response.asking import bounded, live_version, records
from deployguard.rollout import transaction
from deployguard.rollout.member import Connect
from deployguard.transport.session import Session

__all__ = ["Eyes", "Look"]

#: The host answers within its own deadline; this is for the way there and back.
_WAY = 10.0

#: What is looked at of a host beside its checks.
REACHABLE, RESTORE = "reachable", "restore"


@dataclass(frozen=True)
class Look:
    """One round: what was seen, and the hosts that answered for their checks."""

    signals: tuple[Signal, ...]
    answered: frozenset[str]


class Eyes:
    """The connections to the hosts of a plan, and what was seen there last."""

    def __init__(self, plan: Plan, connect: Connect) -> None:
        self._plan = plan
        self._connect = connect
        self._sessions: dict[str, Session] = {}
        self._live: dict[str, str] = {}

    def __enter__(self) -> Eyes:
        return self

    def __exit__(self, *_: object) -> None:
        for session in self._sessions.values():
            session.close()

    def look(self) -> Look:
        """Ask every host, none for longer than the deadline of `respond`."""
        names = hosts_in_order(self._plan)
        seconds = self._plan.respond.deadline
        found: list[Signal] = []
        answered: set[str] = set()
        for name, answer in bounded(names, self._ask, seconds + _WAY).items():
            if isinstance(answer, dict):
                if "checks" in answer:
                    answered.add(name)
                found += self._signals(name, answer)
                continue
            self._drop(name)
            words = "no answer in time" if answer is None else _reason(answer)
            found.append(
                Signal(self._group(name), (name, "", REACHABLE), False, "host", message=words)
            )
        return Look(tuple(found), frozenset(answered))

    def _ask(self, name: str) -> dict[str, Any]:
        session = self._sessions.get(name)
        if session is None or session.closed:
            session = self._sessions[name] = self._connect(name, self._plan.hosts[name])
        seconds = self._plan.respond.deadline
        status = session.call("status", timeout=seconds)
        if any(one["attended"] for one in status["unfinished"]):
            return {"status": status}  # a deploy is at work, and judges for itself
        components = {c: self._plan.components[c] for c in components_on(self._plan, name)}
        versions = {c: live_version(self._plan, c, status) for c in components}
        checks = transaction.checks_of(components, versions, session.hello)
        args = {"checks": checks, "seconds": seconds}
        answer = session.call("assess", args, timeout=seconds + _WAY)
        return {"status": status, "checks": answer["checks"], "asked": checks}

    def _drop(self, name: str) -> None:
        session = self._sessions.pop(name, None)
        if session is not None:
            session.close()

    def _group(self, name: str) -> GroupKey:
        # Of a host that does not answer, the transaction that was live there, or elsewhere.
        last = self._live.get(name) or next(iter(self._live.values()), "")
        return self._plan.name, self._plan.environment, last

    def _signals(self, name: str, answer: Mapping[str, Any]) -> Iterator[Signal]:
        status = answer["status"]
        live = [record for _, record in records(self._plan, status)]
        newest = max(live, key=lambda record: float(record["committed_at"]), default=None)
        self._live[name] = "" if newest is None else str(newest["transaction"])
        group = self._group(name)
        yield Signal(group, (name, "", REACHABLE), True, "host")
        stuck = [
            one
            for one in status["unfinished"]
            if one["state"] in ("stuck", "damaged") or one["held"]
        ]
        words = "; ".join(f"{one['transaction']} could not be finished here" for one in stuck)
        yield Signal(group, (name, "", RESTORE), not stuck, "restore", message=words)
        if "checks" in answer:
            for entry in _seen(answer):
                yield Signal(
                    group,
                    (name, entry["component"], entry["name"]),
                    entry["state"] == "healthy",
                    critical=entry["critical"],
                    message=entry["message"],
                    layer=entry["layer"],
                )


def _seen(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    if answer["checks"] is not None:
        return list(answer["checks"])
    return [
        {**check, "layer": check["kind"], "state": "unknown", "message": "no answer in time"}
        for check in answer["asked"]
        if check["kind"] != "logs"
    ]


def _reason(error: DeployguardError) -> str:
    return error.reason if isinstance(error, HostFailure) else error.message
