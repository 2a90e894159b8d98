"""How the hosts stand: which version, proved by hash, whether it is healthy, what is left over."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from deployguard.errors import DeployguardError, HostFailure
from deployguard.onhost.probes.base import HEALTHY, CheckData
from deployguard.plan.model import Plan
from deployguard.plan.order import components_on, hosts_in_order
from deployguard.rollout import audit
from deployguard.rollout.member import Connect
from deployguard.rollout.transaction import checks_of
from deployguard.transport.session import Session

__all__ = ["Reader", "Reading"]

_THREADS = 20
_PAUSE = 0.5


@dataclass(frozen=True)
class Reading:
    """One host at one moment. With an ``error`` it could not be read."""

    host: str
    error: str = ""
    hint: str = ""
    versions: dict[str, str | None] | None = None
    manifests: dict[str, str] | None = None
    files: tuple[dict[str, Any], ...] = ()
    differences: tuple[str, ...] = ()
    sick: tuple[str, ...] = ()
    unfinished: tuple[str, ...] = ()
    locks: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    @property
    def settled(self) -> bool:
        """Nothing in it can be expected to pass by itself."""
        return not (self.error or self.sick or self.unfinished or self.locks or self.left)


class Reader:
    """Reads the hosts of a plan. ``plan_of`` is the plan for another version of it."""

    def __init__(self, plan: Plan, connect: Connect, plan_of: Callable[[str], Plan]) -> None:
        self._plan = plan
        self._connect = connect
        self._plan_of = functools.cache(plan_of)

    def read(self, patience: float = 0.0) -> dict[str, Reading]:
        """Every host, read again for up to ``patience`` seconds while something may pass."""
        names = hosts_in_order(self._plan)
        until = time.monotonic() + patience
        with ThreadPoolExecutor(min(_THREADS, max(len(names), 1))) as threads:
            found = list(threads.map(lambda name: self._patiently(name, until), names))
        return {reading.host: reading for reading in found}

    def _patiently(self, name: str, until: float) -> Reading:
        while True:
            found = self._read(name)
            if found.settled or time.monotonic() > until:
                return found
            time.sleep(_PAUSE)

    def _read(self, name: str) -> Reading:
        try:
            with self._connect(name, self._plan.hosts[name]) as session:
                return self._asked(name, session)
        except HostFailure as error:
            return Reading(name, error=error.reason, hint=error.hint)

    def _asked(self, name: str, session: Session) -> Reading:
        status = session.call("status")
        found = audit.ask(session, self._plan, name)
        components = found["components"]
        versions = {part: answer["version"] for part, answer in components.items()}
        return Reading(
            name,
            versions=versions,
            manifests={part: answer["manifest"] for part, answer in components.items()},
            files=tuple(file for answer in components.values() for file in answer["files"]),
            differences=tuple(d for answer in components.values() for d in answer["differences"]),
            sick=tuple(self._sick(name, versions, session)),
            unfinished=tuple(f"{t['transaction']} is {t['state']}" for t in status["unfinished"]),
            locks=tuple(f"{k['path']} by {k['transaction']}" for k in status["locks"]),
            left=tuple(found["left"]),
        )

    def _sick(self, name: str, versions: dict[str, str | None], session: Session) -> list[str]:
        """Every check that matters and is not healthy, or sees another version than is live."""
        live = {version for version in versions.values() if version is not None}
        plan = self._plan_of(next(iter(live))) if len(live) == 1 else self._plan
        components = {part: plan.components[part] for part in components_on(plan, name)}
        checks = checks_of(components, dict.fromkeys(components, plan.version), session.hello)
        asked = {"transaction": "drill", "components": [], "checks": checks}
        try:
            looked = session.call("look", asked)["baseline"] or {"checks": []}
        except HostFailure:
            raise
        except DeployguardError as error:
            return [error.message]
        by_id = {check["id"]: check for check in checks}
        found = []
        for entry in looked["checks"]:
            if entry["required"] and entry["state"] != HEALTHY:
                found.append(f"{entry['id']}: {entry['message']}")
            elif len(live) == 1:
                found += _another_version(by_id[entry["id"]], entry)
        return found


def _another_version(check: CheckData, entry: dict[str, Any]) -> list[str]:
    served = (entry.get("observed") or {}).get("fields", {})
    expected = check.get("json", {})
    return [
        f"{entry['id']}: it serves {name} {served.get(name)}, and {expected[name]} is live"
        for name in check.get("versioned", [])
        if name in expected and str(served.get(name)) != str(expected[name])
    ]
