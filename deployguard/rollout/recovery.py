"""Finishes what an earlier run left: reads the hosts, decides by the rules, carries it out.

The rules: a recorded decision stands. Without one, any host that committed means commit; if none
did and every host was reached it means abort; otherwise hosts that have voted stay in doubt, and
the answer says which hosts it waits for. Hosts that have not voted go back in any case.
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

    def decide(self, transaction: str, decision: str) -> None: ...

    def get(self, transaction: str) -> dict[str, Any] | None: ...


def decision_for(
    recorded: str | None, states: Mapping[str, str], unreachable: Iterable[str]
) -> Decision:
    """The decision for one transaction, from the record and the hosts' states. Pure.

    ``states`` are the journal states of the hosts that took part and answered.
    """
    if recorded == "commit" or "committed" in states.values():
        return "commit"
    if recorded == "abort":
        return "abort"
    if any(state in ("restored", "aborted") for state in states.values()):
        # A host that went back can only have done so because no commit was told to it.
        return "abort"
    return "in_doubt" if list(unreachable) else "abort"


class _Reached:
    """One host that answered, or why it did not."""

    def __init__(self, name: str, host: Host, connect: Connect) -> None:
        self.name = name
        self.session: Session | None = None
        self.report: dict[str, Any] = {"live": [], "unfinished": [], "locks": []}
        self.error = ""
        try:
            self.session = connect(name, host)
            self.report = self.session.call("status")
        except HostFailure as error:
            self.error = error.reason

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
            raise UsageError(f"{row['host']}: {row['error']}", hint="or name the version with --to")
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
) -> Outcome:
    """Finish the unfinished transactions on the plan's hosts, or the one named."""
    if plan is None:
        raise UsageError("recover needs a plan file for its hosts", hint="deployguard recover PLAN")
    started = time.time()
    record = Recorder(listen)
    reached = _reach(plan, connect)
    try:
        identifiers = sorted(
            {
                unfinished["transaction"]
                for host in reached
                for unfinished in host.report["unfinished"]
                if transaction in (None, unfinished["transaction"])
            }
        )
        outcomes: list[HostOutcome] = []
        for identifier in identifiers:
            outcomes += _finish(identifier, plan, reached, decisions, record)
        for host in reached:
            if host.error:
                record("connect", "failed", host.name, host.error)
        return _outcome(plan, identifiers, outcomes, reached, started, record)
    finally:
        for host in reached:
            host.close()


def _finish(
    identifier: str,
    plan: Plan,
    reached: list[_Reached],
    decisions: Decisions,
    record: Recorder,
) -> list[HostOutcome]:
    known = decisions.get(identifier)
    expected = set(known["hosts"]) if known is not None else set(hosts_in_order(plan))
    unreachable = [h.name for h in reached if h.error and h.name in expected]
    states: dict[str, str] = {}
    epochs = [0]
    for host in reached:
        for unfinished in host.report["unfinished"]:
            if unfinished["transaction"] == identifier:
                states[host.name] = unfinished["state"]
                epochs.append(int(unfinished["epoch"] or 0))
        for live in host.report["live"]:
            if live["transaction"] == identifier:
                states[host.name] = "committed"
    decision = decision_for(decisions.decision(identifier), states, unreachable)
    record("report", "note", "", f"{identifier}: {decision}", states=states)
    if decision != "in_doubt" and known is not None and decisions.decision(identifier) is None:
        decisions.decide(identifier, decision)
    outcomes = []
    for host in reached:
        if host.session is None or not any(
            u["transaction"] == identifier for u in host.report["unfinished"]
        ):
            continue
        outcomes.append(
            _settle(host, identifier, max(epochs) + 1, states[host.name], decision, record)
        )
    return outcomes


def _settle(
    host: _Reached, identifier: str, epoch: int, state: str, decision: Decision, record: Recorder
) -> HostOutcome:
    """Carry the decision out on one host."""
    assert host.session is not None
    if decision == "in_doubt" and state == "prepared":
        record("restore", "note", host.name, "in doubt, serving the new version")
        return HostOutcome(host.name, "prepared", error="waits for the decision")
    try:
        taken = host.session.call(
            "adopt", {"transaction": identifier, "epoch": epoch, "owner": owner_name()}
        )
        if decision == "commit" and taken["state"] in ("prepared", "committed"):
            result = host.session.call("commit")
            record("commit", "done", host.name, "committed")
            return HostOutcome(host.name, "committed", verified=True, healthy=True)
        result = host.session.call("restore")
        if result["state"] == "restored":
            host.session.call("finish")
            result.setdefault("verified", True)
            result.setdefault("healthy", True)
        ok = result["state"] in ("restored", "aborted")
        words = [f"{f['title']}: {f['message']}" for f in result.get("failures", [])]
        words += list(result.get("differences", []))[:5]
        message = "; ".join(words)
        record("restore", "done" if ok else "failed", host.name, message or result["state"])
        return HostOutcome(
            host.name,
            result["state"],
            verified=bool(result.get("verified")),
            healthy=bool(result.get("healthy")),
            error=message,
        )
    except DeployguardError as error:
        record("restore", "failed", host.name, error.message)
        return HostOutcome(host.name, state if state == "prepared" else "lost", error=error.message)


def _outcome(
    plan: Plan,
    identifiers: list[str],
    hosts: list[HostOutcome],
    reached: list[_Reached],
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
    if not identifiers:
        summary = "nothing is unfinished"
    else:
        ends = ", ".join(f"{host.host} {host.state}" for host in hosts)
        summary = f"{', '.join(identifiers)}: {ends}"
    if lost:
        summary += f"; not reached: {', '.join(host.name for host in lost)}"
    status: Any = {
        ExitCode.COMMITTED: "unchanged" if not identifiers else "committed",
        ExitCode.NEEDS_PERSON: "needs_person",
        ExitCode.INTERRUPTED: "interrupted",
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
            Finding(host.name, "", "connection", "connection", host.error) for host in lost
        ),
        timeline=tuple(record.events),
    )
