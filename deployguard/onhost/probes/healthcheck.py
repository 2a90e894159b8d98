"""Watches all checks of a host until each is settled.

The first look is taken at once, the next ones fast and then at the check's ``interval``, so that a
service that is up in 50 ms costs 50 ms. Every look has a thread of its own: a probe that hangs
costs its timeout and holds nobody up. What became healthy early is looked at until the end, and a
process once more at the very end, so that the vote is about now and not about half a minute ago.

Three modes:

``once``
    The baseline, before anything is touched: one look each. What the new version is expected to
    say of itself is not judged, but the values found are recorded.
``deploy``
    The new version, until every check is settled or a critical one has failed for good. With a
    ``baseline``, restarts between the start and the first look are noticed too.
``restore``
    The old version, against the baseline: what was not healthy then need not be now, and what it
    said of its version then it must say again. Checks that are not critical get one look. Logs are
    not looked at: that the old version logs what it logged before proves nothing. A number that is
    measured over the last minutes gets no soak: it has to come back, not to stay.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from deployguard.onhost.probes import registry, verdict
from deployguard.onhost.probes.base import HEALTHY, UNKNOWN, CheckData, Sample
from deployguard.onhost.probes.verdict import Verdict
from deployguard.onhost.system import System

Emit = Callable[[Dict[str, Any]], None]

FIRST_DELAY = 0.03
GROWTH = 1.5
# A settled check is looked at again at most this often while others are not there yet.
SETTLED_INTERVAL = 1.0
# How much longer than its timeout a probe may take before we go on without it.
SLACK = 1.0
# A process seen this recently need not be looked at once more at the end.
FRESH = 0.1
_MIN_TIMEOUT = 0.05
#: Kinds whose probe compares with what it observed before the deploy.
COMPARED = frozenset({"postgres", "prometheus", "logs"})
_POLL = 0.25


def watch(
    checks: Sequence[CheckData],
    system: System,
    *,
    baseline: Optional[Dict[str, Any]] = None,
    mode: str = "deploy",
    emit: Optional[Emit] = None,
    stop: Optional[Callable[[], bool]] = None,
) -> Dict[str, Any]:
    """Watch the checks and return the result as data.

    ``{"healthy", "checks": […], "restarts": {check id: count}, "seconds", "stopped"}``; every
    check that matters is healthy, or it is not. ``baseline`` is the result of mode ``once``.
    ``emit`` gets ``{"check", "component", "layer", "name", "critical", "state", "message",
    "settled"}`` when a check changes. ``stop`` is asked now and then; true ends the watch, not
    healthy and ``stopped``.

    An item of ``checks``: ``id``, ``component``, ``layer`` (the kind), ``name``, ``critical``,
    ``service`` where it is about one of a stack, ``required`` (its failure makes the whole
    unhealthy), ``settled`` (or the watch ended before it was), ``state``, ``message``, ``said`` (by
    the last look alone), ``observed`` and ``final`` of the last look, ``samples``, ``restarts``,
    ``first_healthy_at`` (UTC seconds) and ``first_healthy_after`` (seconds from the start), both
    ``None`` if it never was.
    """
    started = system.monotonic()
    before = {entry["id"]: entry for entry in (baseline or {}).get("checks", [])}
    watched = [
        _Watched(check, mode, before.get(check["id"]), started)
        for check in checks
        if not (mode == "restore" and check["kind"] == "logs")
    ]
    watcher = _Watcher(watched, system, emit or _ignore, mode)
    stopped = watcher.run(stop)
    return {
        "healthy": not stopped and all(one.passed() for one in watched if one.required),
        "checks": [one.report() for one in watched],
        "restarts": {
            one.check["id"]: one.state.restarted for one in watched if one.knows_restarts()
        },
        "seconds": system.monotonic() - started,
        "stopped": stopped,
    }


def as_judged(check: CheckData, mode: str, before: Optional[Dict[str, Any]]) -> CheckData:
    """The check with the expectations that fit the mode; see the top of the module.

    ``before`` is the check's own entry in the baseline.
    """
    if check["kind"] in COMPARED and mode != "once":
        judged = check.copy()
        judged["baseline"] = (before or {}).get("observed") or {}
        if mode == "restore" and check["kind"] == "prometheus":
            judged["min_healthy_time"] = 0.0
        return judged
    judged = check.copy()
    if mode == "restore" and check["kind"] == "process" and down_before(before):
        manager = check["manager"].copy()
        manager["excused"] = down_before(before)
        judged["manager"] = manager
    if mode == "deploy" or check["kind"] != "http":
        return judged
    if check.get("body_versioned"):
        judged.pop("body", None)
    expected = dict(check.get("json", {}))
    seen = ((before or {}).get("observed") or {}).get("fields", {})
    for name in check.get("versioned", []):
        expected.pop(name, None)
        if mode == "restore" and name in seen:
            expected[name] = seen[name]
    judged["json"] = expected
    return judged


def down_before(before: Optional[Dict[str, Any]]) -> List[str]:
    """The parts of a stack that were down in the baseline; the others have to come up again."""
    return list(((before or {}).get("observed") or {}).get("down", ()))


def _ignore(_: Dict[str, Any]) -> None:
    """Nobody listens."""


class _Watched:
    """One check while it is watched."""

    def __init__(
        self, check: CheckData, mode: str, before: Optional[Dict[str, Any]], started: float
    ) -> None:
        self.check = as_judged(check, mode, before)
        self.timeout = max(check["timeout"], _MIN_TIMEOUT)
        sick = before is not None and before["state"] != HEALTHY
        excused = mode == "restore" and sick and not down_before(before)
        self.required = check["critical"] and not excused
        self.one_look = mode == "once" or (mode == "restore" and not self.required)
        observed = None if before is None else before.get("observed")
        self.state = verdict.begin(self.check, started, observed)
        self.started = started
        self.verdict: Optional[Verdict] = None
        self.last: Optional[Sample] = None
        self.last_begun = started
        self.settled_at = started
        self.first_healthy_at: Optional[float] = None
        self.due = started
        self.delay = min(FIRST_DELAY, check["interval"])
        self.begun: Optional[float] = None
        self.given_up = False
        self.looks = 0
        self.told: Tuple[Any, ...] = ()

    def take(self, sample: Sample, now: float) -> None:
        """Judge a sample and plan the next look."""
        self.looks += 1
        self.last = sample
        self.last_begun = now - sample["seconds"]
        had = self.verdict
        self.state, found = verdict.step(self.state, sample, now)
        if self.one_look:
            found = Verdict(sample["state"] == HEALTHY, sample["state"], sample["message"], True)
        self.verdict = found
        if found is not None and had is None:
            self.settled_at = now
        if sample["state"] == HEALTHY and self.first_healthy_at is None:
            self.first_healthy_at = sample["at"] + sample["seconds"]
        self.due = now + self._pause(now)

    def _pause(self, now: float) -> float:
        interval = self.check["interval"]
        if self.verdict is not None:
            return interval if self.is_process() else max(interval, SETTLED_INTERVAL)
        ends = verdict.soak_ends(self.state)
        if ends is not None:
            return max(min(interval, ends - now), 0.0)
        pause = self.delay
        self.delay = min(self.delay * GROWTH, interval)
        # The last look before the deadline is taken at the deadline.
        left = self.state.until - now
        return min(pause, left) if left > 0 else pause

    def is_process(self) -> bool:
        return self.check["kind"] == "process"

    def knows_restarts(self) -> bool:
        return self.state.first_restarts is not None or self.state.first_instance is not None

    def over(self) -> bool:
        """Further looks would change nothing."""
        return self.verdict is not None and self.verdict.final

    def is_due_to_settle(self, now: float) -> bool:
        """The look that is taken at the deadline is on its way."""
        return self.verdict is None and now >= self.state.until

    def passed(self) -> bool:
        return self.verdict is not None and self.verdict.healthy

    def report(self) -> Dict[str, Any]:
        last = self.last
        state = UNKNOWN if last is None else last["state"]
        message = "it was not looked at" if last is None else last["message"]
        if self.verdict is not None:
            state, message = self.verdict.state, self.verdict.message
        first = self.state.first_healthy
        named = {"service": self.check["service"]} if "service" in self.check else {}
        return {
            **named,
            "id": self.check["id"],
            "component": self.check["component"],
            "layer": self.check["kind"],
            "name": self.check["name"],
            "critical": self.check["critical"],
            "required": self.required,
            "state": state,
            "message": message,
            "said": message if last is None else last["message"],
            "settled": self.verdict is not None,
            "final": last is not None and last["final"],
            "observed": {} if last is None else last["observed"],
            "samples": self.looks,
            "restarts": self.state.restarted,
            "first_healthy_at": self.first_healthy_at,
            "first_healthy_after": None if first is None else first - self.started,
        }


class _Watcher:
    """The loop: starts looks that are due, takes samples as they come."""

    def __init__(self, watched: List[_Watched], system: System, emit: Emit, mode: str) -> None:
        self._watched = watched
        self._by_id = {one.check["id"]: one for one in watched}
        self._system = system
        self._emit = emit
        self._mode = mode
        self._lanes = system.lanes()
        self._failed_at: Optional[float] = None

    def run(self, stop: Optional[Callable[[], bool]]) -> bool:
        """Watch to the end; true when ``stop`` ended it."""
        while True:
            if stop is not None and stop():
                return True
            now = self._system.monotonic()
            for one in self._watched:
                self._advance(one, now)
            if self._finished(now):
                return False
            pause = min(self._next(one) for one in self._watched if not one.over()) - now
            arrived = self._lanes.wait(min(pause, _POLL))
            if arrived is not None:
                self._arrive(*arrived)

    def _advance(self, one: _Watched, now: float) -> None:
        """Start a look that is due; answer for one that does not come back."""
        if one.over() or now < self._next(one):
            return
        if one.begun is None:
            one.begun = now
            call = functools.partial(registry.sample, one.check, self._system)
            self._lanes.start(one.check["id"], call)
        else:
            waited = 0.0 if one.given_up else now - one.begun
            one.given_up = True
            self._take(one, registry.no_answer(one.check, self._system, waited), now)

    def _next(self, one: _Watched) -> float:
        """When something is to be done about a check."""
        if one.begun is None or one.given_up:
            return one.due
        return one.begun + one.timeout + SLACK

    def _arrive(self, key: str, result: Any) -> None:
        one = self._by_id[key]
        late, one.begun, one.given_up = one.given_up, None, False
        if isinstance(result, Exception):
            raise result  # sample() never raises; this is a mistake in the program
        if not late and not one.over():
            self._take(one, result, self._system.monotonic())

    def _take(self, one: _Watched, sample: Sample, now: float) -> None:
        one.take(sample, now)
        report = one.report()
        told = (report["state"], one.verdict is not None)
        if told != one.told:
            one.told = told
            names = ("component", "layer", "name", "critical", "state", "message")
            event = {name: report[name] for name in names}
            self._emit(dict(event, check=report["id"], settled=one.verdict is not None))

    def _finished(self, now: float) -> bool:
        if self._mode != "once" and any(
            one.required and one.over() and not one.passed() for one in self._watched
        ):
            return self._seen_enough(now)
        if any(one.verdict is None for one in self._watched):
            return False
        if self._mode == "once":
            return True
        return not self._closing_look(now)

    def _seen_enough(self, now: float) -> bool:
        """Whether every other check had what the findings need: its first look, and, when its own
        deadline has come too, its last one, so that it does not depend on who was asked first
        which of several is named. Neither is waited for longer than ``SLACK``."""
        failed_at = now if self._failed_at is None else self._failed_at
        self._failed_at = failed_at
        return all(
            (one.looks or now >= one.started + SLACK)
            and (not one.is_due_to_settle(now) or now >= failed_at + SLACK)
            for one in self._watched
        )

    def _closing_look(self, now: float) -> bool:
        """Whether a process has to be looked at once more; makes that look due."""
        settled = max((one.settled_at for one in self._watched), default=now)
        needed = False
        for one in self._watched:
            stale = one.last_begun < settled - FRESH
            if one.is_process() and not one.over() and stale:
                needed = True
                if one.begun is None:
                    one.due = min(one.due, now)
        return needed
