"""One transaction that an earlier run left: taken over, decided, carried out."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from deployguard.errors import DeployguardError, UsageError
from deployguard.plan.model import Plan
from deployguard.plan.order import hosts_in_order
from deployguard.rollout import decide
from deployguard.rollout.decide import Decision
from deployguard.rollout.held import choices, reason, stopped
from deployguard.rollout.member import Recorder
from deployguard.rollout.outcome import HostOutcome
from deployguard.rollout.owner import owner_name
from deployguard.rollout.survey import THREADS, Reached

__all__ = ["ENDED", "Decisions", "Unfinished", "state_of"]

#: Seconds between two signs of life; the lease of the transaction may be short.
_BEAT = 1.0

#: Nothing is left to be done on a host in one of these.
ENDED = ("committed", "restored", "aborted")


class Decisions(Protocol):
    """What the coordinator's journal knows."""

    def decision(self, transaction: str) -> str | None: ...

    def decide(self, transaction: str, decision: str) -> str: ...

    def get(self, transaction: str) -> dict[str, Any] | None: ...

    def unended(self, plan: str) -> list[str]: ...

    def end(self, transaction: str, outcome: Mapping[str, Any]) -> None: ...

    def debts(self) -> list[dict[str, Any]]: ...

    def settled(self, transaction: str, hosts: Iterable[str]) -> None: ...


def state_of(report: Mapping[str, Any]) -> str:
    """The state that a decision is made from: a restore that has begun is one to the end."""
    if report["going_back"] and report["state"] == "prepared":
        return "going_back"
    return str(report["state"])


class Unfinished:
    """One transaction that was left, and the hosts that know of it."""

    def __init__(
        self,
        identifier: str,
        plan: Plan,
        reached: list[Reached],
        decisions: Decisions,
        record: Recorder,
    ) -> None:
        self._identifier = identifier
        self._decisions = decisions
        self._record = record
        self._reached = reached
        known = decisions.get(identifier)
        self._journalled = known is not None
        expected = set(known["hosts"]) if known is not None else set(hosts_in_order(plan))
        self._unreachable = [h.name for h in reached if h.error and h.name in expected]
        self._reports: dict[str, dict[str, Any]] = {}
        self._hosts: dict[str, Reached] = {}
        self._states: dict[str, str] = {}
        self._ended: dict[str, str] = {}
        self._sent_back = False
        #: How often each host had been taken over before us.
        self._before: dict[str, int] = {}
        for host in reached:
            self._hear(host)

    def _hear(self, host: Reached) -> None:
        """What the host has said about it."""
        for report in host.report["unfinished"]:
            if report["transaction"] == self._identifier:
                self._reports[host.name] = report
                self._hosts[host.name] = host
                self._states[host.name] = state_of(report)
                self._before[host.name] = int(report["takeovers"])
                self._sent_back |= report["sent_back"]
        for report in host.report["ended"]:
            if report["transaction"] == self._identifier:
                # It came to its end without us: by its lease, or by a run that was cut off.
                self._states[host.name] = self._ended[host.name] = report["state"]
                self._sent_back |= report["sent_back"]
        for live in host.report["live"]:
            if live["transaction"] == self._identifier:
                self._states[host.name] = "committed"

    def attended(self) -> bool:
        """Whether its controller is heard from, on any host."""
        return any(report.get("attended") for report in self._reports.values())

    def running(self) -> str:
        """Who is at work on it, and since when, in words."""
        report = next(r for r in self._reports.values() if r.get("attended"))
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(float(report["since"] or 0)))
        return f"{self._identifier} is being run by {report['owner']} since {since}"

    def held(self) -> list[str]:
        """Hosts that wait for a person behind a point of no return."""
        return [name for name, report in self._reports.items() if report.get("held")]

    def finish(self, choice: str = "") -> list[HostOutcome]:
        """Take over, decide, carry out.

        ``choice`` is what a person has said of hosts behind a point of no return: ``new`` keeps the
        new version, ``old`` puts the old one back. Without it such hosts are left as they are.
        """
        if choice == "new":
            return self._keep_new()
        waiting = [] if choice else self.held()
        outcomes = {name: self._left(name, self._reports[name]["held"]) for name in waiting}
        for name in waiting:
            del self._hosts[name], self._states[name]
        found = self._finish(choice) if self._hosts or self._ended else []
        return [*outcomes.values(), *found]

    def _finish(self, choice: str) -> list[HostOutcome]:
        recorded = self._decisions.decision(self._identifier)
        if self._decide(recorded) == "in_doubt":
            # Who has voted keeps its epoch: the earlier run, or one that finds its journal, may
            # still tell it the decision.
            chosen = [n for n in self._hosts if self._states[n] != "prepared"]
        else:
            chosen = list(self._hosts)
        epoch = max([0, *(int(r.get("epoch") or 0) for r in self._reports.values())]) + 1
        failed = self._take_over(chosen, epoch)
        failed.update(self._take_over(self._joined_since(), epoch))
        decision = self._decide(recorded)
        if decision != "in_doubt" and self._journalled:
            self._decisions.decide(self._identifier, decision)
            # The earlier run may have been faster, and its record stands: ask once more.
            decision = self._decide(self._decisions.decision(self._identifier))
        self._record(
            "report", "note", "", f"{self._identifier}: {decision}", states=dict(self._states)
        )
        outcomes = dict(failed)
        with ThreadPoolExecutor(min(THREADS, max(len(self._hosts), 1))) as threads:
            able = [name for name in self._hosts if name not in failed]
            settle = functools.partial(self._settle, decision=decision, choice=choice)
            # In the order of a rescue: no old code starts before the schema was taken back.
            first = [n for n in able if decision == "abort" and self._reports[n].get("takes_back")]
            rest = [n for n in able if n not in first]
            if first and not choice:
                list(threads.map(self._stop, rest))
            outcomes.update(zip(first, threads.map(settle, first), strict=True))
            if any(outcomes[name].state == "stuck" for name in first):
                rest = self._leave_stopped(rest, outcomes)
            outcomes.update(zip(rest, threads.map(settle, rest), strict=True))
        if self._journalled:
            ended = [n for n, o in outcomes.items() if o.state in ENDED]
            self._decisions.settled(self._identifier, ended)
        for name, state in self._ended.items():
            self._record("report", "note", name, f"{self._identifier}: {state} already")
            outcomes[name] = HostOutcome(name, state, verified=True, healthy=True)
        return list(outcomes.values())

    def _joined_since(self) -> list[str]:
        """Hosts that knew nothing of it when they were asked, and do now.

        The earlier run may have been at work on them meanwhile. Now that the others are taken over
        none that begins can come to a vote that counts.
        """
        absent = [h for h in self._reached if not h.error and h.name not in self._states]

        def ask(host: Reached) -> bool:
            assert host.session is not None
            try:
                host.report = host.session.call("status")
            except DeployguardError as error:
                host.error = error.message
                self._unreachable.append(host.name)
                return False
            self._hear(host)
            return host.name in self._hosts

        with ThreadPoolExecutor(min(THREADS, max(len(absent), 1))) as threads:
            joined = list(threads.map(ask, absent))
        return [host.name for host, found in zip(absent, joined, strict=True) if found]

    def waits(self) -> list[str]:
        """Hosts of this transaction that did not answer."""
        return self._unreachable

    def _decide(self, recorded: str | None) -> Decision:
        return decide.decision_for(
            recorded,
            self._states,
            self._unreachable,
            all_or_nothing=all(r.get("all_or_nothing", True) for r in self._reports.values()),
            sent_back=self._sent_back,
            first_takeover=any(
                self._before[name] == 0
                for name, state in self._states.items()
                if state == "prepared" and name in self._before
            ),
        )

    def _take_over(self, names: list[str], epoch: int) -> dict[str, HostOutcome]:
        """Fence the earlier run off; the hosts where that failed, with why."""

        def adopt(name: str) -> DeployguardError | None:
            session = self._hosts[name].session
            assert session is not None
            args = {"transaction": self._identifier, "epoch": epoch, "owner": owner_name()}
            # From here on it is a controller's work, and the lease is its own: a restore may last.
            session.keep_alive(_BEAT)
            try:
                answer = session.call("adopt", args)
            except DeployguardError as error:
                return error
            self._states[name] = state_of(answer)
            # Not what it said before: another recover may have come between.
            self._before[name] = int(answer["takeovers"]) - 1
            self._sent_back |= bool(answer["sent_back"])
            return None

        with ThreadPoolExecutor(min(THREADS, max(len(names), 1))) as threads:
            errors = dict(zip(names, threads.map(adopt, names), strict=True))
        failed = {}
        for name, error in errors.items():
            if error is None:
                continue
            self._record("restore", "failed", name, error.message)
            # What it will say next is not known: for the decision it is as if not reached.
            self._unreachable.append(name)
            state = self._states.pop(name)
            fenced = getattr(error, "kind", "") == "stale_epoch"
            failed[name] = HostOutcome(
                name,
                "taken_over" if fenced else state if state == "prepared" else "lost",
                error=error.message,
            )
        return failed

    def _keep_new(self) -> list[HostOutcome]:
        """A person has said that the new version stays: it is what the hosts commit.

        Raises :class:`UsageError` where that is not possible, with nothing done.
        """
        if self._unreachable:
            raise UsageError(
                f"not reached: {', '.join(self._unreachable)}; all hosts of {self._identifier} "
                "have to be there to keep the new version",
                hint="bring them back, or choose --held old",
            )
        whole = [n for n, r in self._reports.items() if r["state"] in ("switched", "prepared")]
        partial = [
            name
            for name, report in self._reports.items()
            if name not in whole and report["state"] not in ("begun", "staged")
        ]
        if partial:
            raise UsageError(
                f"the new version is not whole on {', '.join(partial)}, and cannot be kept",
                hint="choose --held old, or bring the schema back first",
            )
        epoch = max([0, *(int(r.get("epoch") or 0) for r in self._reports.values())]) + 1
        outcomes = self._take_over(list(self._hosts), epoch)
        able = [name for name in self._hosts if name not in outcomes]
        for name in able:
            if self._states[name] == "switched":
                self._vote(name)
        if self._journalled:
            self._decisions.decide(self._identifier, "commit")
        self._record("report", "note", "", f"{self._identifier}: the new version is kept")
        with ThreadPoolExecutor(min(THREADS, max(len(able), 1))) as threads:
            settle = functools.partial(self._settle, decision="commit", choice="")
            outcomes.update(zip(able, threads.map(settle, able), strict=True))
        if self._journalled:
            ended = [name for name, outcome in outcomes.items() if outcome.state in ENDED]
            self._decisions.settled(self._identifier, ended)
        return list(outcomes.values())

    def _stop(self, name: str) -> None:
        """The new services of a touched host, and no more."""
        session = self._hosts[name].session
        assert session is not None
        if self._states[name] in ("armed", "switched", "prepared", "going_back", "stuck"):
            with contextlib.suppress(DeployguardError):  # to settle it meets the same, and tells
                session.call("restore", {"stop": True})

    def _leave_stopped(self, names: list[str], outcomes: dict[str, HostOutcome]) -> list[str]:
        """Hosts that cannot go back while the new schema is there; those that can are answered."""
        going = []
        for name in names:
            session = self._hosts[name].session
            assert session is not None
            if self._states[name] in ("begun", "staged"):
                going.append(name)
                continue
            try:
                state = str(session.call("hold")["state"])
                words = "stopped: the schema was not taken back on another host"
            except DeployguardError as error:
                state, words = "lost", error.message
            self._record("restore", "failed", name, words)
            outcomes[name] = HostOutcome(name, state, error=words)
        return going

    def _vote(self, name: str) -> None:
        session = self._hosts[name].session
        assert session is not None
        self._states[name] = str(session.call("prepare")["state"])

    def _left(self, name: str, held: Mapping[str, Any]) -> HostOutcome:
        """A host that waits for a person, who is told once more."""
        self._record("restore", "note", name, reason(held))
        return HostOutcome(name, "held", error=f"{reason(held)}\n{choices(held)}")

    def _settle(self, name: str, decision: Decision, choice: str) -> HostOutcome:
        """Carry the decision out on one host."""
        host, state, record = self._hosts[name], self._states[name], self._record
        assert host.session is not None
        if decision == "in_doubt" and state == "prepared":
            record("restore", "note", name, "in doubt, serving the new version")
            waits = f"waits for the decision, which needs {', '.join(self._unreachable)}"
            return HostOutcome(name, "prepared", error=waits)
        try:
            if decision == "commit" and state in ("prepared", "committed"):
                host.session.call("commit")
                record("commit", "done", name, "committed")
                return HostOutcome(name, "committed", verified=True, healthy=True)
            result = host.session.call("restore", {"no_return": True} if choice else None)
            if result.get("held"):
                return self._left(name, result["held"])
            if result["state"] == "restored":
                host.session.call("finish")
                result.setdefault("verified", True)
                result.setdefault("healthy", True)
        except DeployguardError as error:
            record("restore", "failed", name, error.message)
            return HostOutcome(name, state if state == "prepared" else "lost", error=error.message)
        ok = result["state"] in ("restored", "aborted")
        words = [f"{f['title']}: {f['message']}" for f in result.get("failures", [])]
        words += list(result.get("differences", []))[:5]
        message = "; ".join(words)
        mend = stopped(result.get("failures", []))
        message += f"\n{mend}" if mend else ""
        record("restore", "done" if ok else "failed", name, message or result["state"])
        return HostOutcome(
            name,
            result["state"],
            verified=bool(result.get("verified")),
            healthy=bool(result.get("healthy")),
            error=message,
        )
