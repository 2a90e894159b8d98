"""The drill: each scenario is deployed, left alone, recovered, read, and brought back to old.

It begins with hosts on one version, healthy, with nothing unfinished, and ends with them on that
version, whatever the scenarios did; where that cannot be had it stops and says so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from deployguard import api, faults
from deployguard.drills.deploys import Deployed, deploy
from deployguard.drills.hosts import Reader, Reading
from deployguard.drills.judging import Ends, judged
from deployguard.drills.readiness import (
    refuse_no_return,
    refuse_unmarked,
    refuse_unready,
    version_live,
)
from deployguard.drills.report import DrillReport, ScenarioDrilled
from deployguard.drills.scenarios import Scenario, chosen
from deployguard.errors import DeployguardError, ExitCode
from deployguard.plan.model import Plan
from deployguard.plan.order import batches, components_on
from deployguard.report.redaction import Redaction

__all__ = ["Drill", "Listener", "Step", "drill", "prepare"]

#: A deploy of which nothing is known, beside its soak.
_DEPLOY = 5.0
#: Reading the hosts, and what a scenario takes beside its deploys.
_READING = 2.0
#: How much longer than its lease a host may take to restore itself, beside its checks.
_GRACE = 30.0
#: What is on its way out a moment after the end may take this long to be gone.
_PATIENCE = 8.0
_GLANCE = 0.5
#: Transactions of this machine among which those of the plan are looked for.
_REMEMBERED = 50


@dataclass(frozen=True)
class Step:
    """Something that a drill does, or with ``result`` how a scenario went."""

    at: float
    scenario: str
    message: str
    result: ScenarioDrilled | None = None


Listener = Callable[[Step], None]


def drill(
    plan: Plan,
    *,
    only: Iterable[str] = (),
    variables: Mapping[str, str] | None = None,
    listen: Listener | None = None,
    stop: threading.Event | None = None,
) -> DrillReport:
    """Deploy a plan again and again to hosts marked ``drill: true``, each time with a fault.

    ``only`` are names or groups of scenarios; all of them when left out. ``variables`` as in
    :func:`deployguard.load`, since each deploy reads the plan file again. ``stop`` ends the drill:
    the hosts are brought back first. Raises :class:`Refused` and :class:`UsageError` while nothing
    is touched.
    """
    return prepare(plan, only=only, variables=variables).run(listen=listen, stop=stop)


def prepare(
    plan: Plan, *, only: Iterable[str] = (), variables: Mapping[str, str] | None = None
) -> Drill:
    """Look at everything that a drill needs, changing nothing.

    Raises :class:`Refused` for hosts that are not marked, cannot be read, are busy or unhealthy,
    and :class:`UsageError` where there are no two versions.
    """
    scenarios = chosen(only)
    refuse_unmarked(plan)
    refuse_no_return(plan)
    variables = dict(variables or {})

    def plan_of(version: str) -> Plan:
        if version == plan.version:
            return plan
        return api.load(plan.source, version=version, variables=variables, local_files=False)

    reader = Reader(plan, api.connect, plan_of)
    before = reader.read()
    old = version_live(plan, before)
    refuse_unready(before, api.preview(plan))
    return Drill(plan, old, scenarios, before, reader, variables)


class Drill:
    """A drill that may begin: everything was looked at, nothing was touched."""

    def __init__(
        self,
        plan: Plan,
        old: str,
        scenarios: tuple[Scenario, ...],
        before: dict[str, Reading],
        reader: Reader,
        variables: dict[str, str],
    ) -> None:
        self.plan = plan
        self.old = old
        self.scenarios = scenarios
        self._before = before
        # What was there before any of it is not the drill's.
        self._known = {name: set(reading.left) for name, reading in before.items()}
        self._reader = reader
        self._variables = variables
        self._redact = Redaction(plan).redactor().text
        self._listen: Listener | None = None
        self._stop = threading.Event()

    @property
    def hosts(self) -> list[str]:
        """The hosts of the drill."""
        return list(self._before)

    @property
    def victim(self) -> str:
        """The host that the faults befall: the last one that has a component."""
        return next(name for name in reversed(self.hosts) if components_on(self.plan, name))

    def estimate(self) -> float:
        """About how long it will take, in seconds."""
        once = self._one_deploy()
        total = 0.0
        for scenario in self.scenarios:
            total += once + _READING
            total += self.plan.lease if scenario.lease else 0.0
            total += once if scenario.commits else 0.0
        return total

    def _one_deploy(self) -> float:
        """As long as the last one that was committed took, or a guess."""
        for row in api.history(limit=_REMEMBERED):
            of_it = row["plan"] == self.plan.name and row["status"] == "committed"
            if of_it and row["ended_at"]:
                return float(row["ended_at"]) - float(row["started_at"])
        soak = max(
            (
                c.spec.min_healthy_time
                for part in self.plan.components.values()
                for c in part.checks
            ),
            default=0.0,
        )
        return (_DEPLOY + soak) * len(batches(self.plan.serial, self.hosts))

    # --- the run --------------------------------------------------------------------------------

    def run(
        self, *, listen: Listener | None = None, stop: threading.Event | None = None
    ) -> DrillReport:
        """Run every scenario. Ends early when the hosts cannot be brought back, or on ``stop``."""
        self._listen, self._stop = listen, stop or self._stop
        began = time.time()
        done: list[ScenarioDrilled] = []
        for number, scenario in enumerate(self.scenarios, start=1):
            if self._stop.is_set():
                break
            self._say(scenario, f"{number} of {len(self.scenarios)}: {scenario.what}")
            result, readings = self._one(scenario)
            trouble = self._bring_back(scenario, result, readings)
            if trouble:
                result = replace(result, kept=False, problems=(*result.problems, trouble))
            if not (self._stop.is_set() and result.kept):
                # One that was interrupted says nothing, unless the promise was broken in it.
                done.append(result)
                self._say(scenario, "kept" if result.kept else "BROKEN", result)
            if trouble:
                break
        return self._report(tuple(done), began)

    def _one(self, scenario: Scenario) -> tuple[ScenarioDrilled, dict[str, Reading]]:
        began = time.monotonic()
        wanted = scenario.faults(self.victim, components_on(self.plan, self.victim)[0])
        patience = self.plan.lease + self._checks() + _GRACE
        limit = 2 * patience + 10 * self._one_deploy()
        deployed = deploy(self.plan, self._variables, wanted, self._stop, limit)
        self._say(scenario, f"the deploy {_ended(deployed)}")
        ends = self._wait(scenario, deployed, began, patience)
        problems = self._recover(scenario, patience)
        for name in self.hosts:
            ends.setdefault(name, ("recover", time.monotonic() - began))
        readings = self._reader.read(_PATIENCE)
        result = judged(
            scenario,
            self.plan,
            self.victim,
            deployed,
            ends,
            self._before,
            self._fresh(readings),
            *self._transaction(began),
        )
        result = replace(
            result,
            kept=result.kept and not problems,
            problems=(*result.problems, *problems),
            seconds=time.monotonic() - began,
        )
        return self._redacted(result), readings

    def _checks(self) -> float:
        """The longest that a restore may look at its checks."""
        parts = self.plan.components.values()
        return max((c.spec.deadline for part in parts for c in part.checks), default=0.0)

    def _wait(
        self, scenario: Scenario, deployed: Deployed, began: float, patience: float
    ) -> dict[str, Ends]:
        """Leave the hosts alone while they end it by themselves; who did, and when."""
        by: Literal["deploy", "host"] = "deploy" if deployed.code in _BY_ITSELF else "host"
        ends: dict[str, Ends] = {}
        until = time.monotonic() + patience
        told = False
        while True:
            busy = False
            for row in api.status(self.plan):
                states = {transaction["state"] for transaction in row["unfinished"]}
                if not states and not row["error"]:
                    ends.setdefault(row["host"], (by, time.monotonic() - began))
                elif not states <= _WAITING or row["error"]:
                    busy = True
            if not busy or self._stop.is_set() or time.monotonic() > until:
                return ends
            if not told:
                told = True
                self._say(scenario, f"waiting for the hosts, whose lease is {self.plan.lease:g} s")
            by = "host"
            self._stop.wait(_GLANCE)

    def _recover(self, scenario: Scenario, patience: float) -> list[str]:
        self._say(scenario, "recovering")
        until = time.monotonic() + patience
        while True:
            try:
                with faults.quietly():
                    outcome = api.recover(self.plan)
            except DeployguardError as error:
                return [f"recover: {error.message}"]
            if outcome.exit_code == ExitCode.LOCKED and time.monotonic() < until:
                time.sleep(_GLANCE)
                continue
            if outcome:
                return []
            words = [f"{host.host}: {host.error}" for host in outcome.hosts if host.error]
            return [f"recover ended with {int(outcome.exit_code)}: {outcome.summary}", *words]

    def _fresh(self, readings: Mapping[str, Reading]) -> dict[str, Reading]:
        """The readings without what was left before the drill."""
        return {
            name: replace(
                reading, left=tuple(x for x in reading.left if x not in self._known[name])
            )
            for name, reading in readings.items()
        }

    def _transaction(self, began: float) -> tuple[str, str | None]:
        """The transaction of the deploy and its decision, as this machine remembers them."""
        at = time.time() - (time.monotonic() - began)
        for row in api.history(limit=_REMEMBERED):
            if row["plan"] == self.plan.name and float(row["started_at"]) >= at:
                return str(row["id"]), api.transaction(row["id"])["decision"]
        return "", None

    def _bring_back(
        self, scenario: Scenario, result: ScenarioDrilled, readings: Mapping[str, Reading]
    ) -> str:
        """All hosts on the old version; why that cannot be had, or nothing."""
        lost = [host.host for host in result.hosts if host.ended == "neither"]
        lost += [name for name, reading in readings.items() if reading.unfinished]
        if lost:
            return f"the drill ends here: {', '.join(dict.fromkeys(lost))} cannot be drilled on"
        new = [host.host for host in result.hosts if host.ended == "new"]
        if not new:
            return ""
        self._say(scenario, f"rolling {', '.join(new)} back to {self.old}")
        try:
            with faults.quietly():
                outcome = api.rollback(self.plan, to=self.old, hosts=new, variables=self._variables)
        except DeployguardError as error:
            return f"the drill ends here: no way back to {self.old}: {error.message}"
        if not outcome:
            return f"the drill ends here: no way back to {self.old}: {outcome.summary}"
        self._before = self._reader.read(_PATIENCE)
        for name, reading in self._before.items():
            wrong = [reading.error] if reading.error else [*reading.differences, *reading.sick]
            if wrong or set((reading.versions or {}).values()) != {self.old}:
                words = wrong[0] if wrong else f"{reading.versions} is live"
                return f"the drill ends here: after the rollback to {self.old}, {name}: {words}"
        return ""

    def _redacted(self, result: ScenarioDrilled) -> ScenarioDrilled:
        redact = self._redact
        return replace(
            result,
            problems=tuple(map(redact, result.problems)),
            hosts=tuple(
                replace(
                    host,
                    left=tuple(map(redact, host.left)),
                    problems=tuple(map(redact, host.problems)),
                )
                for host in result.hosts
            ),
        )

    def _say(self, scenario: Scenario, message: str, result: ScenarioDrilled | None = None) -> None:
        if self._listen is not None:
            self._listen(Step(time.time(), scenario.name, self._redact(message), result))

    def _report(self, done: tuple[ScenarioDrilled, ...], began: float) -> DrillReport:
        ran = {result.scenario for result in done}
        not_run = tuple(s.name for s in self.scenarios if s.name not in ran)
        broken = [result.scenario for result in done if not result.kept]
        code = ExitCode.COMMITTED
        words = f"all {len(done)} scenarios kept the promise" if len(done) > 1 else "it was kept"
        if broken:
            code = ExitCode.NEEDS_PERSON
            words = f"the promise was broken by {', '.join(broken)}"
        elif not_run:
            code = ExitCode.INTERRUPTED
            words = f"interrupted after {len(done)} of {len(self.scenarios)} scenarios"
            words += f"; the hosts are back on {self.old}"
        return DrillReport(
            plan=self.plan.name,
            environment=self.plan.environment,
            old=self.old,
            new=self.plan.version,
            exit_code=code,
            summary=words,
            started_at=began,
            ended_at=time.time(),
            scenarios=done,
            not_run=not_run,
            source=self.plan.arguments,
        )


#: Exit codes after which the deploy itself has brought its hosts to an end.
_BY_ITSELF = (ExitCode.COMMITTED, ExitCode.ROLLED_BACK, ExitCode.NEEDS_PERSON, ExitCode.REFUSED)

#: Where a host waits for somebody: its vote is given, or it needs a person.
_WAITING = {"prepared", "stuck", "damaged"}


def _ended(deployed: Deployed) -> str:
    if deployed.code < 0:
        return f"was ended by signal {-deployed.code} after {deployed.seconds:.1f} s"
    return f"ended with {deployed.code} after {deployed.seconds:.1f} s"
