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
from typing import Any

from deployguard.errors import ExitCode, UsageError
from deployguard.plan.model import Plan
from deployguard.rollout import decide
from deployguard.rollout.member import Connect, Recorder
from deployguard.rollout.outcome import Finding, HostOutcome, Listener, Outcome
from deployguard.rollout.owner import owner_name
from deployguard.rollout.survey import Reached, reach
from deployguard.rollout.unfinished import ENDED, Decisions, Unfinished, state_of
from deployguard.transport.session import Session

__all__ = ["Decisions", "recover", "settle"]


def recover(
    plan: Plan | None,
    transaction: str | None,
    decisions: Decisions,
    connect: Connect,
    listen: Listener | None,
    *,
    force: bool = False,
    choice: str = "",
) -> Outcome:
    """Finish the unfinished transactions on the plan's hosts, or the one named.

    ``force`` takes over from a controller that is still at work. Without it such a transaction is
    refused, with :attr:`ExitCode.LOCKED`. ``choice`` is what a person says of hosts behind a point
    of no return, ``old`` or ``new``; see :meth:`Unfinished.finish`.
    """
    if plan is None:
        raise UsageError(
            "recover needs to know the hosts",
            hint="deployguard recover PLAN, or --hosts with an inventory file",
        )
    started = time.time()
    record = Recorder(listen)
    reached = reach(plan, connect)
    try:
        identifiers = [
            identifier
            for identifier in _left(plan, reached, decisions)
            if transaction in (None, identifier)
        ]
        for host in reached:
            if host.error:
                record("connect", "failed", host.name, host.error)
        outcomes: dict[str, list[HostOutcome]] = {}
        running: list[str] = []
        for identifier in identifiers:
            found = Unfinished(identifier, plan, reached, decisions, record)
            if found.attended() and not force:
                running.append(found.running())
                continue
            hosts = found.finish(choice)
            outcomes[identifier] = hosts
            if all(host.state in ENDED for host in hosts) and not found.waits():
                ended = _outcome(plan, [identifier], {identifier: hosts}, [], [], started, record)
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
    if report is None or report["attended"] or report["held"]:
        return ""
    if report["state"] in ("damaged", "stuck"):
        return ""
    recorded = decisions.decision(identifier)
    if state_of(report) == "prepared" and (
        recorded is None or (recorded == "commit" and report["takeovers"])
    ):
        return ""
    epoch = int(report["epoch"] or 0) + 1
    args = {"transaction": identifier, "epoch": epoch, "owner": owner_name()}
    state = state_of(session.call("adopt", args))
    if recorded == "commit" and state in ("prepared", "committed"):
        state = session.call("commit")["state"]
    elif recorded is not None or state != "prepared":
        state = session.call("restore")["state"]
        if state == "restored":
            session.call("finish")
    if state not in ENDED:
        return ""
    decisions.settled(identifier, [host])
    return str(state)


def _left(plan: Plan, reached: list[Reached], decisions: Decisions) -> list[str]:
    """Transactions that are unfinished on a host, or of which nobody here has heard the end."""
    unfinished = {t["transaction"] for host in reached for t in host.report["unfinished"]}
    ended = {t["transaction"] for host in reached for t in host.report["ended"]}
    return sorted(unfinished | (ended & set(decisions.unended(plan.name))))


def _forgive(plan: Plan, reached: list[Reached], decisions: Decisions) -> None:
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


def _outcome(
    plan: Plan,
    identifiers: list[str],
    transactions: dict[str, list[HostOutcome]],
    reached: list[Reached],
    running: list[str],
    started: float,
    record: Recorder,
) -> Outcome:
    """What to tell of them all; ``transactions`` has the hosts of each that was finished."""
    lost = [host for host in reached if host.error]
    everybody = [host for hosts in transactions.values() for host in hosts]
    code = decide.exit_code(everybody) if everybody else ExitCode.COMMITTED
    if code == ExitCode.ROLLED_BACK:
        # What was asked for here is that everything is settled, and it is.
        code = ExitCode.COMMITTED
    if lost and code == ExitCode.COMMITTED:
        code = ExitCode.INTERRUPTED
    if running and code in (ExitCode.COMMITTED, ExitCode.INTERRUPTED):
        code = ExitCode.LOCKED
    parts = [
        f"{identifier}: {', '.join(f'{host.host} {host.state}' for host in hosts)}"
        for identifier, hosts in transactions.items()
        if hosts
    ]
    parts += running
    if not identifiers:
        parts.append("nothing is unfinished")
    if lost:
        parts.append(f"not reached: {', '.join(host.name for host in lost)}")
    status: Any = {
        ExitCode.COMMITTED: "unchanged" if not identifiers else "committed",
        ExitCode.NEEDS_PERSON: "needs_person",
        ExitCode.INTERRUPTED: "interrupted",
        ExitCode.LOCKED: "locked",
    }.get(code, "rolled_back")
    if everybody and all(host.state in ("restored", "aborted") for host in everybody):
        status = "rolled_back"
    return Outcome(
        transaction=",".join(identifiers),
        plan=plan.name,
        version=plan.version,
        environment=plan.environment,
        exit_code=code,
        status=status,
        summary="; ".join(parts),
        started_at=started,
        ended_at=time.time(),
        hosts=_one_each(everybody),
        findings=(
            *(
                Finding(host.name, "", "connection", "connection", host.error, evidence=host.hint)
                for host in lost
            ),
            *(_held(host) for host in everybody if host.state == "held"),
        ),
        timeline=tuple(record.events),
    )


def _held(host: HostOutcome) -> Finding:
    why, _, choices = host.error.partition("\n")
    return Finding(host.host, "", "step", "held", why, evidence=choices)


def _one_each(outcomes: list[HostOutcome]) -> tuple[HostOutcome, ...]:
    """How each host stands: what is unsettled there, else what happened to it last."""
    found: dict[str, HostOutcome] = {}
    for outcome in outcomes:
        before = found.get(outcome.host)
        if before is None or before.state in ENDED:
            found[outcome.host] = outcome
    return tuple(found.values())
