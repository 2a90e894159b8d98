"""Finishes what an earlier run left: fences it off, decides by the rules, carries it out.

The rules: a recorded decision stands. Without one, any host that committed means commit; if none
did and every host was reached it means abort; otherwise hosts that have voted stay in doubt, and
the answer says which hosts it waits for. Hosts that have not voted go back in any case.

A run that may still be alive must not decide anything while this one does. So every host is taken
over under a higher epoch first, and what it answers then is what the rules are given: from there on
it refuses the earlier run. The decision goes into the journal before a host hears of it, and where
the earlier run shares that journal, the record that came first stands for both. A transaction whose
controller is heard from is left alone, unless the caller says otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Protocol

from deployguard.errors import DeployguardError, ExitCode, HostFailure, UsageError
from deployguard.plan.model import Host, Plan
from deployguard.plan.order import hosts_in_order
from deployguard.rollout import decide
from deployguard.rollout.deployment import owner_name
from deployguard.rollout.member import Connect, Recorder
from deployguard.rollout.outcome import Finding, HostOutcome, Listener, Outcome
from deployguard.transport.session import Session

__all__ = ["Decisions", "decision_for", "previous_version", "recover", "status"]

_THREADS = 20

Decision = Literal["commit", "abort", "in_doubt"]


class Decisions(Protocol):
    """What the coordinator's journal knows."""

    def decision(self, transaction: str) -> str | None: ...

    def decide(self, transaction: str, decision: str) -> str: ...

    def get(self, transaction: str) -> dict[str, Any] | None: ...

    def unended(self, plan: str) -> list[str]: ...

    def end(self, transaction: str, outcome: Mapping[str, Any]) -> None: ...

    def debts(self) -> list[dict[str, Any]]: ...

    def settled(self, transaction: str, hosts: Iterable[str]) -> None: ...


def decision_for(
    recorded: str | None,
    states: Mapping[str, str],
    unreachable: Iterable[str],
    *,
    all_or_nothing: bool = True,
    sent_back: bool = False,
    first_takeover: bool = True,
) -> Decision:
    """The decision for one transaction, from the record and the hosts' states. Pure.

    ``states`` are the journal states of the hosts that took part and answered, after they were
    taken over. ``all_or_nothing`` is false for a plan that goes on without some of its hosts.

    A recover without the record may have decided before us, and its abort outweighs a commit that
    was recorded and told to nobody: it had fenced every host off. ``sent_back`` says that a host
    which had voted was restored in that way; ``first_takeover`` that one which has voted was never
    taken over before us, so that nobody can have had the answer of every host.
    """
    if "committed" in states.values():
        return "commit"
    if recorded == "abort" or (sent_back and (all_or_nothing or not list(unreachable))):
        return "abort"
    if recorded == "commit":
        return "commit" if first_takeover or not list(unreachable) else "in_doubt"
    if all_or_nothing and any(state in ("restored", "aborted") for state in states.values()):
        # A host that went back can only have done so because no commit was told to it.
        return "abort"
    return "in_doubt" if list(unreachable) else "abort"


class _Reached:
    """One host that answered, or why it did not."""

    def __init__(self, name: str, host: Host, connect: Connect) -> None:
        self.name = name
        self.session: Session | None = None
        self.report: dict[str, Any] = {
            "live": [],
            "unfinished": [],
            "ended": [],
            "locks": [],
        }
        self.error = ""
        self.hint = ""
        try:
            self.session = connect(name, host)
            self.report = self.session.call("status")
        except HostFailure as error:
            self.error = error.reason
            self.hint = error.hint

    def close(self) -> None:
        if self.session is not None:
            self.session.close()


def _reach(plan: Plan, connect: Connect) -> list[_Reached]:
    names = hosts_in_order(plan)
    with ThreadPoolExecutor(min(_THREADS, max(len(names), 1))) as threads:
        return list(threads.map(lambda n: _Reached(n, plan.hosts[n], connect), names))


def status(plan: Plan, connect: Connect) -> list[dict[str, Any]]:
    """One row a host: what is live at the plan's paths, what is unfinished, what is locked."""
    paths = {component.path: name for name, component in plan.components.items()}
    rows = []
    for reached in _reach(plan, connect):
        live = [record for record in reached.report["live"] if record["path"] in paths]
        rows.append(
            {
                "host": reached.name,
                "error": reached.error,
                "hint": reached.hint,
                "live": [{**record, "component": paths[record["path"]]} for record in live],
                "unfinished": reached.report["unfinished"],
                "locks": reached.report["locks"],
            }
        )
        reached.close()
    return rows


def previous_version(plan: Plan, connect: Connect) -> str:
    """The version before the live one, from the hosts' own records.

    Raises :class:`UsageError` when a host has none, cannot be reached, or they differ.
    """
    found: dict[str, list[str]] = {}
    for row in status(plan, connect):
        if row["error"]:
            raise UsageError(
                f"{row['host']}: {row['error']}", hint=row["hint"] or "name the version with --to"
            )
        for record in row["live"]:
            if not record["previous"]:
                raise UsageError(f"{row['host']} has no earlier version of {record['component']}")
            found.setdefault(record["previous"][0]["version"], []).append(row["host"])
    if not found:
        raise UsageError("nothing was deployed to these hosts yet, so there is no way back")
    if len(found) > 1:
        words = "; ".join(f"{v} on {', '.join(hosts)}" for v, hosts in sorted(found.items()))
        raise UsageError(f"the previous version differs: {words}", hint="name one with --to")
    return next(iter(found))


def recover(
    plan: Plan | None,
    transaction: str | None,
    decisions: Decisions,
    connect: Connect,
    listen: Listener | None,
    *,
    force: bool = False,
) -> Outcome:
    """Finish the unfinished transactions on the plan's hosts, or the one named.

    ``force`` takes over from a controller that is still at work. Without it such a transaction is
    refused, with :attr:`ExitCode.LOCKED`.
    """
    if plan is None:
        raise UsageError(
            "recover needs to know the hosts",
            hint="deployguard recover PLAN, or --hosts with an inventory file",
        )
    started = time.time()
    record = Recorder(listen)
    reached = _reach(plan, connect)
    try:
        identifiers = [
            identifier
            for identifier in _left(plan, reached, decisions)
            if transaction in (None, identifier)
        ]
        for host in reached:
            if host.error:
                record("connect", "failed", host.name, host.error)
        outcomes: list[HostOutcome] = []
        running: list[str] = []
        for identifier in identifiers:
            found = _Unfinished(identifier, plan, reached, decisions, record)
            if found.attended() and not force:
                running.append(found.running())
                continue
            hosts = found.finish()
            outcomes += hosts
            if all(host.state in _ENDED for host in hosts) and not found.waits():
                ended = _outcome(plan, [identifier], hosts, [], [], started, record)
                decisions.end(identifier, dict(ended.as_dict(), exit_code=decide.exit_code(hosts)))
        _forgive(plan, reached, decisions)
        return _outcome(plan, identifiers, outcomes, reached, running, started, record)
    finally:
        for host in reached:
            host.close()


def settle(session: Session, identifier: str, decisions: Decisions, host: str) -> str:
    """End on one host what an earlier run left there; its state then, or empty.

    Only where that needs nobody else: the decision is recorded, or the host has not voted. Leaves
    alone what somebody is at work on, and what needs a person.
    """
    report = next(
        (r for r in session.call("status")["unfinished"] if r["transaction"] == identifier), None
    )
    if report is None or report["attended"] or report["state"] in ("damaged", "stuck"):
        return ""
    recorded = decisions.decision(identifier)
    if _state_of(report) == "prepared" and (
        recorded is None or (recorded == "commit" and report["takeovers"])
    ):
        return ""
    epoch = int(report["epoch"] or 0) + 1
    args = {"transaction": identifier, "epoch": epoch, "owner": owner_name()}
    state = _state_of(session.call("adopt", args))
    if recorded == "commit" and state in ("prepared", "committed"):
        state = session.call("commit")["state"]
    elif recorded is not None or state != "prepared":
        state = session.call("restore")["state"]
        if state == "restored":
            session.call("finish")
    if state not in _ENDED:
        return ""
    decisions.settled(identifier, [host])
    return str(state)


def _left(plan: Plan, reached: list[_Reached], decisions: Decisions) -> list[str]:
    """Transactions that are unfinished on a host, or of which nobody here has heard the end."""
    unfinished = {t["transaction"] for host in reached for t in host.report["unfinished"]}
    ended = {t["transaction"] for host in reached for t in host.report["ended"]}
    return sorted(unfinished | (ended & set(decisions.unended(plan.name))))


def _forgive(plan: Plan, reached: list[_Reached], decisions: Decisions) -> None:
    """Strike out what hosts have ended by themselves since."""
    unfinished = {
        host.name: {report["transaction"] for report in host.report["unfinished"]}
        for host in reached
        if not host.error
    }
    for debt in decisions.debts():
        known = decisions.get(debt["transaction"])
        if known is None or plan.name not in ("", known["plan"]) or debt["host"] not in unfinished:
            continue
        if debt["transaction"] not in unfinished[debt["host"]]:
            decisions.settled(debt["transaction"], [debt["host"]])


def _state_of(report: Mapping[str, Any]) -> str:
    """The state that a decision is made from: a restore that has begun is one to the end."""
    if report["going_back"] and report["state"] == "prepared":
        return "going_back"
    return str(report["state"])


class _Unfinished:
    """One transaction that was left, and the hosts that know of it."""

    def __init__(
        self,
        identifier: str,
        plan: Plan,
        reached: list[_Reached],
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
        self._hosts: dict[str, _Reached] = {}
        self._states: dict[str, str] = {}
        self._ended: dict[str, str] = {}
        self._sent_back = False
        #: How often each host had been taken over before us.
        self._before: dict[str, int] = {}
        for host in reached:
            self._hear(host)

    def _hear(self, host: _Reached) -> None:
        """What the host has said about it."""
        for report in host.report["unfinished"]:
            if report["transaction"] == self._identifier:
                self._reports[host.name] = report
                self._hosts[host.name] = host
                self._states[host.name] = _state_of(report)
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

    def finish(self) -> list[HostOutcome]:
        """Take over, decide, carry out."""
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
        with ThreadPoolExecutor(min(_THREADS, max(len(self._hosts), 1))) as threads:
            able = [name for name in self._hosts if name not in failed]
            outcomes.update(
                zip(able, threads.map(lambda n: self._settle(n, decision), able), strict=True)
            )
        if self._journalled:
            ended = [n for n, o in outcomes.items() if o.state in _ENDED]
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

        def ask(host: _Reached) -> bool:
            assert host.session is not None
            try:
                host.report = host.session.call("status")
            except DeployguardError as error:
                host.error = error.message
                self._unreachable.append(host.name)
                return False
            self._hear(host)
            return host.name in self._hosts

        with ThreadPoolExecutor(min(_THREADS, max(len(absent), 1))) as threads:
            joined = list(threads.map(ask, absent))
        return [host.name for host, found in zip(absent, joined, strict=True) if found]

    def waits(self) -> list[str]:
        """Hosts of this transaction that did not answer."""
        return self._unreachable

    def _decide(self, recorded: str | None) -> Decision:
        return decision_for(
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
            try:
                answer = session.call("adopt", args)
            except DeployguardError as error:
                return error
            self._states[name] = _state_of(answer)
            # Not what it said before: another recover may have come between.
            self._before[name] = int(answer["takeovers"]) - 1
            self._sent_back |= bool(answer["sent_back"])
            return None

        with ThreadPoolExecutor(min(_THREADS, max(len(names), 1))) as threads:
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

    def _settle(self, name: str, decision: Decision) -> HostOutcome:
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
            result = host.session.call("restore")
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
        record("restore", "done" if ok else "failed", name, message or result["state"])
        return HostOutcome(
            name,
            result["state"],
            verified=bool(result.get("verified")),
            healthy=bool(result.get("healthy")),
            error=message,
        )


#: Nothing is left to be done on a host in one of these.
_ENDED = ("committed", "restored", "aborted")


def _outcome(
    plan: Plan,
    identifiers: list[str],
    hosts: list[HostOutcome],
    reached: list[_Reached],
    running: list[str],
    started: float,
    record: Recorder,
) -> Outcome:
    lost = [host for host in reached if host.error]
    code = decide.exit_code(hosts) if hosts else ExitCode.COMMITTED
    if code == ExitCode.ROLLED_BACK:
        # What was asked for here is that everything is settled, and it is.
        code = ExitCode.COMMITTED
    if lost and code == ExitCode.COMMITTED:
        code = ExitCode.INTERRUPTED
    if running and code in (ExitCode.COMMITTED, ExitCode.INTERRUPTED):
        code = ExitCode.LOCKED
    if not identifiers:
        summary = "nothing is unfinished"
    elif hosts:
        ends = ", ".join(f"{host.host} {host.state}" for host in hosts)
        summary = f"{', '.join(identifiers)}: {ends}"
    else:
        summary = ""
    summary = "; ".join([*filter(None, [summary]), *running])
    if lost:
        summary += f"; not reached: {', '.join(host.name for host in lost)}"
    status: Any = {
        ExitCode.COMMITTED: "unchanged" if not identifiers else "committed",
        ExitCode.NEEDS_PERSON: "needs_person",
        ExitCode.INTERRUPTED: "interrupted",
        ExitCode.LOCKED: "locked",
    }.get(code, "rolled_back")
    if hosts and all(host.state in ("restored", "aborted") for host in hosts):
        status = "rolled_back"
    return Outcome(
        transaction=",".join(identifiers),
        plan=plan.name,
        version=plan.version,
        environment=plan.environment,
        exit_code=code,
        status=status,
        summary=summary,
        started_at=started,
        ended_at=time.time(),
        hosts=tuple(hosts),
        findings=tuple(
            Finding(host.name, "", "connection", "connection", host.error, evidence=host.hint)
            for host in lost
        ),
        timeline=tuple(record.events),
    )
