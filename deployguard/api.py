"""The library: what the command line does, as functions.

A deploy script is five lines::

    import deployguard

    plan = deployguard.load("plan.yaml")
    outcome = deployguard.apply(plan)
    raise SystemExit(outcome.exit_code)

:func:`apply` raises :class:`PlanInvalid` for what is wrong with the plan or an artifact. Hosts may
be connected by then, since artifacts are read meanwhile; nothing on a host is touched. However a
deploy ends, it returns an :class:`Outcome`.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Collection, Mapping
from os import PathLike
from typing import Any, Literal

from deployguard.errors import (
    EngineUnavailable,
    JournalUnavailable,
    PlanInvalid,
    UsageError,
    with_plan,
)
from deployguard.evidence.timeline import parse_iso
from deployguard.guards.base import Ask
from deployguard.guards.registry import checked_overrides
from deployguard.incidents.lookup import Lookup
from deployguard.incidents.record import Incident
from deployguard.plan.model import Host, Plan
from deployguard.plan.snapshots import split_snapshot
from deployguard.report import reporting
from deployguard.report.redaction import CleanJournal, Redaction
from deployguard.rollout import (
    audit,
    deployment,
    inspection,
    recovery,
    restoring,
    survey,
    taken,
)
from deployguard.rollout.outcome import Event, Listener, Outcome
from deployguard.rollout.preview import Preview
from deployguard.rollout.taken import Taken
from deployguard.rollout.work import Work
from deployguard.snapshots.opening import open_vault
from deployguard.store.journal import Journal
from deployguard.store.opening import open_journal
from deployguard.store.trail import Trail
from deployguard.transport import registry
from deployguard.transport.session import Session

__all__ = [
    "apply",
    "history",
    "load",
    "load_hosts",
    "ongoing",
    "preview",
    "recover",
    "restore",
    "rollback",
    "snapshots",
    "status",
    "take_snapshot",
    "transaction",
]

Store = Journal

#: Seconds between two signs of life to a host before a transaction sets its own pace.
_BEAT = 5.0


def load(
    path: str | PathLike[str],
    *,
    version: str | None = None,
    variables: Mapping[str, str] | None = None,
    local_files: bool = True,
) -> Plan:
    """Read, template and validate a plan file.

    ``version`` replaces the plan's, ``variables`` are its ``vars``. With ``local_files=False`` the
    artifacts need not be here: enough to ask about hosts, to recover them and to roll them back.
    Raises :class:`PlanInvalid` with every mistake there is.
    """
    from deployguard.plan.load import load as load_plan

    return load_plan(path, version=version, variables=variables, local_files=local_files)


def load_hosts(path: str | PathLike[str]) -> Plan:
    """Read an inventory file, for :func:`recover` where there is no plan.

    Raises :class:`PlanInvalid` with every mistake there is.
    """
    from deployguard.plan.load import load_hosts as load_inventory

    return load_inventory(path)


def apply(
    plan: Plan,
    *,
    listen: Listener | None = None,
    store: Store | None = None,
    drift: str | None = None,
    overrides: Mapping[str, str] | None = None,
    fix: bool = False,
    ask: Ask | None = None,
    stop: threading.Event | None = None,
    engine: str | None = None,
    incident: str = "",
) -> Outcome:
    """Deploy. ``drift="save"`` keeps hand-made changes as a bundle and goes on; ``stop`` hands the
    hosts over to themselves when it is set. ``engine`` is the URL of a Dask scheduler whose workers
    run the hosts' transactions instead of this process; ``store`` is in PostgreSQL then.

    ``overrides`` are reasons to go over guards, by the guard's name; they go on record. ``fix``
    says that the deploy mends what is not healthy now: the guard ``baseline`` lets it pass then.
    ``ask`` asks a person for the guard ``approval``; without it there is nobody to ask.
    ``incident`` is the id of the one that this should end; if it fails, that is written there.

    Raises :class:`PlanInvalid` for an artifact that is damaged, unsafe or not the one whose SHA-256
    the plan names. Hosts are being connected to while it is read; they are asked for nothing.
    """
    going_over = checked_overrides(overrides)
    return _transact(
        plan,
        None,
        listen,
        store,
        stop,
        engine,
        incident,
        drift=drift,
        overrides=going_over,
        fix=fix,
        ask=ask,
    )


def rollback(
    plan: Plan,
    *,
    to: str | None = None,
    hosts: Collection[str] | None = None,
    variables: Mapping[str, str] | None = None,
    listen: Listener | None = None,
    store: Store | None = None,
    drift: str | None = None,
    overrides: Mapping[str, str] | None = None,
    stop: threading.Event | None = None,
    engine: str | None = None,
    incident: str = "",
) -> Outcome:
    """Go back to a version that the hosts have kept: a transaction like any other.

    ``to`` is the version; the one before the live one when left out. ``hosts`` are those that go
    back; all of the plan when left out. The plan file is read again for that version, with
    ``variables`` as in :func:`load`, because its checks name the version they expect. Guards of the
    host are asked, as in :func:`apply`; those that judge a new release are not. ``incident`` is as
    there. Raises :class:`UsageError` when the hosts do not agree on what the version before is.
    """
    going_over = checked_overrides(overrides)
    target = to or survey.previous_version(plan, connect)
    old = load(plan.source, version=target, variables=variables, local_files=False)
    if hosts is not None:
        old = old.model_copy(update={"hosts": {name: old.hosts[name] for name in hosts}})
    return _transact(
        old, target, listen, store, stop, engine, incident, drift=drift, overrides=going_over
    )


def restore(
    plan: Plan,
    *,
    source: str | None = None,
    hosts: Collection[str] = (),
    of: str | None = None,
    release: str | None = None,
    variables: Mapping[str, str] | None = None,
    listen: Listener | None = None,
    store: Store | None = None,
    drift: str | None = None,
    overrides: Mapping[str, str] | None = None,
    stop: threading.Event | None = None,
) -> Outcome:
    """Bring a snapshot from off the hosts to them, empty or not: a transaction like any other.

    ``source`` is ``STORE``, ``STORE@SNAPSHOT`` or ``@SNAPSHOT``; the newest of the plan's store
    when left out. ``hosts`` are those that get what they ran themselves, or what ``of`` ran;
    ``release`` is what the version is called, where nobody knows. The plan file is read again for
    that version, with ``variables`` as in :func:`load`. Raises :class:`UsageError`, before a host
    is asked for anything, where the snapshot is not there, damaged, or sealed with another key.
    """
    going_over = checked_overrides(overrides)
    address, snapshot_id = split_snapshot(source or "")
    vault = open_vault(plan, address)
    snapshot = vault.snapshot(snapshot_id)
    parts = restoring.chosen(plan, snapshot, hosts, of)
    version = restoring.version_of(snapshot, parts, release)
    plan = load(plan.source, version=version, variables=variables, local_files=False)
    back = restoring.Restoring(plan, vault, snapshot, parts)
    return _transact(
        back.plan,
        None,
        listen,
        store,
        stop,
        None,
        drift=drift,
        overrides=going_over,
        restoring=back,
    )


def snapshots(plan: Plan, source: str | None = None, *, verify: bool = False) -> list[Taken]:
    """The snapshots of a plan and environment, newest first, or the one that ``source`` names.

    With ``verify`` every object of each is read. One that cannot be read has its ``error``.
    """
    address, snapshot_id = split_snapshot(source or "")
    return taken.listed(open_vault(plan, address), snapshot_id, verify=verify)


def take_snapshot(plan: Plan) -> Taken:
    """Send what is live on the hosts of a plan to its store now; no transaction, no deploy.

    Raises :class:`UsageError`, and :class:`~deployguard.errors.HostFailure` where a host cannot be
    asked: there is no snapshot then.
    """
    return taken.take(plan, open_vault(plan), connect)


def _transact(
    plan: Plan,
    version: str | None,
    listen: Listener | None,
    store: Store | None,
    stop: threading.Event | None,
    engine: str | None,
    incident: str = "",
    **options: Any,
) -> Outcome:
    redaction = Redaction(plan)
    journal = store or open_journal()
    journal.heed(stop or threading.Event())
    work = _engine(engine, plan, journal) if engine is not None else None
    trail: Trail[Event] = Trail(listen)
    with deployment.Run(
        plan,
        connect=connect,
        listen=redaction.listener(trail),
        stop=stop,
        version=version,
        settle=lambda host, session, earlier: recovery.settle(session, earlier, journal, host),
        work=work,
        **options,
    ) as run:
        journal.begin(
            {
                "id": run.context.transaction,
                "plan": plan.name,
                "version": run.version,
                "environment": plan.environment,
                "source": plan.source,
                "owner": run.context.owner,
                "started_at": run.started_at,
                "changed_at": parse_iso(plan.changed_at) if plan.changed_at else None,
            },
            [member.name for member in run.members],
        )
        trail.begin(journal.path, run.context.transaction)
        names = [member.name for member in run.members]
        forensics = reporting.Forensics(plan, run.version, run.started_at, names, redaction)
        try:
            outcome = redaction.outcome(
                deployment.deploy(run, CleanJournal(journal, redaction), forensics.save)
            )
        except (PlanInvalid, UsageError, EngineUnavailable) as error:
            refused = deployment.usage_outcome(run, error)
            journal.end(run.context.transaction, redaction.outcome(refused).as_dict())
            trail.end()
            raise
    # From here on the deploy is over: what goes wrong with a report is a note in the outcome.
    # It is on record before anybody is told, which may take a while, and again with who was told.
    outcome = _ended(journal, redaction.outcome(forensics.seal(outcome)))
    trail.end()
    heard = redaction.listener(listen)
    outcome = redaction.outcome(
        reporting.report(outcome, plan, journal, heard, redaction, incident)
    )
    return _ended(journal, outcome)


def _ended(journal: Store, outcome: Outcome) -> Outcome:
    """Record how it ended, and what is owed to hosts."""
    try:
        journal.owe(outcome.transaction, _owed(outcome))
        journal.end(outcome.transaction, outcome.as_dict())
    except JournalUnavailable as error:
        if error.message not in outcome.report_errors:
            errors = (*outcome.report_errors, error.message)
            outcome = dataclasses.replace(outcome, report_errors=errors)
    return outcome


def _engine(url: str, plan: Plan, journal: Journal) -> Work:
    # It takes most of a second to import, which only who wants one should pay.
    from deployguard.engine.opening import open_engine

    return open_engine(url, plan, journal)


def _owed(outcome: Outcome) -> dict[str, str]:
    """Hosts that have not heard how it ended, or could not be brought to their end."""
    return {
        host.host: host.error or f"left {host.state}"
        for host in outcome.hosts
        if host.state in ("prepared", "armed", "switched", "lost", "held")
    }


def preview(
    plan: Plan,
    *,
    listen: Listener | None = None,
    store: Store | None = None,
    drift: str | None = None,
    overrides: Mapping[str, str] | None = None,
    fix: bool = False,
    ask: Ask | None = None,
) -> Preview:
    """What :func:`apply` would do with the same options, from the hosts' real state, changing
    nothing. Nobody is asked to approve it."""
    listen = Redaction(plan).listener(listen)
    going_over = checked_overrides(overrides)
    with deployment.Run(
        plan, connect=connect, listen=listen, drift=drift, overrides=going_over, fix=fix, ask=ask
    ) as run:
        return inspection.preview(run, inspection.inspect(run))


def recover(
    plan: Plan | None = None,
    *,
    transaction: str | None = None,
    listen: Listener | None = None,
    store: Store | None = None,
    force: bool = False,
    held: Literal["old", "new"] | None = None,
) -> Outcome:
    """Finish what an earlier run left unfinished, by what the hosts say and what was decided.

    Hosts that wait for a person behind a point of no return go on waiting, unless ``held`` says
    which version is to stay. A transaction whose controller is still heard from is left alone
    unless ``force`` says to take it over; that controller then ends with
    :attr:`ExitCode.INTERRUPTED`.
    """
    redaction = Redaction(plan)
    listen = redaction.listener(listen)
    journal = store or open_journal()
    clean = CleanJournal(journal, redaction)
    outcome = recovery.recover(
        plan, transaction, clean, connect, listen, force=force, choice=held or ""
    )
    if plan is not None:
        named = tuple(
            dataclasses.replace(found, evidence=with_plan(found.evidence, plan.arguments))
            for found in outcome.findings
        )
        outcome = dataclasses.replace(outcome, source=plan.arguments, findings=named)
    return redaction.outcome(reporting.after_recovery(outcome, plan, journal, redaction))


def status(plan: Plan, *, verify: bool = False, store: Store | None = None) -> list[dict[str, Any]]:
    """What is live where, since when, what is unfinished, and what is owed: one row a host.

    With ``verify`` each host hashes its live trees anew; ``verification`` of its row has how they
    differ from what was deployed, by component, and what transactions left behind.
    """
    rows = survey.status(plan, connect)
    debts = (store or open_journal()).debts()
    rows = [{**row, "debts": [d for d in debts if d["host"] == row["host"]]} for row in rows]
    if verify:
        found = audit.verify(plan, connect)
        rows = [{**row, "verification": found[row["host"]]} for row in rows]
    return rows


def ongoing(plan: Plan, store: Store | None = None) -> list[Incident]:
    """The incidents of the plan's service and environment that are not over, the worst first."""
    return Lookup(store or open_journal()).ongoing(plan.name, plan.environment)


def history(store: Store | None = None, limit: int = 20) -> list[dict[str, Any]]:
    """The newest transactions of this controller, newest first."""
    return (store or open_journal()).history(limit)


def transaction(name: str, store: Store | None = None) -> dict[str, Any]:
    """One transaction of this controller, whole: its row of :func:`history`, the ``decision`` and
    the ``outcome`` as :meth:`Outcome.as_dict` has it, each ``None`` where there is none yet.

    ``name`` is the id, or the beginning of one. Raises :class:`UsageError` when it is not the
    beginning of exactly one.
    """
    journal = store or open_journal()
    found = journal.named(name) if name else []
    if len(found) > 1:
        more = "name more of it; it begins " + ", ".join(found)
        raise UsageError(f"{name} is the beginning of more than one transaction", hint=more)
    row = journal.get(found[0]) if found else None
    if row is None:
        raise UsageError(
            f"no transaction of this machine begins with {name!r}",
            hint="`deployguard history` lists them; those of other machines are in their history",
        )
    return {**row, "decision": journal.decision(row["id"])}


def connect(name: str, host: Host) -> Session:
    session = registry.reach(name, host)
    # A host program that hears nothing takes its controller for gone, whatever it was asked before.
    session.keep_alive(_BEAT)
    return session
