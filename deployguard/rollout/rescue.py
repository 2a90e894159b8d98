"""The way back, for one host: evidence that would be lost, restore, the rest of the evidence.

This module knows no driver on purpose: what a restore does stands in the host's journal, and
"previous" is never worked out anew when something has already gone wrong. Evidence is bounded and
its failure is noted, never raised: it must not delay or change a restore.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deployguard.errors import DeployguardError, HostFailure, with_plan
from deployguard.health import findings
from deployguard.rollout import held
from deployguard.rollout.member import Context, Member
from deployguard.rollout.outcome import Finding

__all__ = ["hold", "restore", "stop"]

Save = Callable[[Member, Any], None]


def restore(context: Context, member: Member, save: Save | None) -> None:
    """Bring the host back, and record how that ended in ``member``; raises nothing.

    ``save`` takes the evidence stream of the host; ``None`` where there is nothing to collect.
    """
    began = time.monotonic()
    touched = member.touched
    if touched:
        context.record("restore", "started", member.name)
    try:
        _reconnect(context, member)
        if touched and save is not None and not member.collected:
            _collect(context, member, "critical")
        member.restored = member.call(
            "restore",
            on_event=lambda event: context.record(
                "restore", "progress", member.name, str(event.get("operation", ""))
            ),
        )
        member.seconds["restore"] = time.monotonic() - began
        if member.restored.get("held"):
            member.state = "held"
        _report(context, member, touched)
        if touched and save is not None:
            _collect(context, member, "rest")
            _fetch(context, member, save)
        if member.state == "restored":
            member.call("finish")
    except HostFailure as error:
        member.seconds["restore"] = time.monotonic() - began
        if member.failure is None:
            member.failure = error
        if member.state not in ("restored", "stuck", "taken_over"):
            member.state = "lost" if member.begun else "unreachable"
        context.record("restore", "failed", member.name, error.reason)
        if touched:
            member.findings.append(
                Finding(
                    member.name,
                    "",
                    "connection",
                    "restore",
                    f"not restored: {error.reason}",
                    evidence=with_plan(error.hint, context.plan.arguments),
                )
            )


def stop(context: Context, member: Member, save: Save | None) -> None:
    """Stop the new services, and no more: :func:`restore` does the rest. Raises nothing.

    For hosts that must not start their old code before the schema was taken back on another one.
    """
    context.record("restore", "started", member.name)
    try:
        _reconnect(context, member)
        if save is not None:
            _collect(context, member, "critical")
            member.collected = True
        member.call("restore", {"stop": True})
        context.record("restore", "note", member.name, "stopped, until the schema is taken back")
    except HostFailure as error:
        # The restore that follows meets the same, and tells of it.
        context.record("restore", "note", member.name, f"not stopped: {error.reason}")


def hold(context: Context, member: Member) -> None:
    """Leave the host as it is for a person, deaf to its lease."""
    try:
        _reconnect(context, member)
        answer = member.call("hold")
        if answer.get("held"):
            member.state, member.restored = "held", answer
            _report_held(context, member)
        else:
            context.record("restore", "note", member.name, "held as it is")
    except HostFailure as error:
        member.state = "lost"
        context.record("restore", "failed", member.name, error.reason)


def _reconnect(context: Context, member: Member) -> None:
    """Make sure of a connection; a new one takes the transaction over under a higher epoch."""
    if member.session is not None and not member.session.closed:
        return
    member.session = context.connect(member.name, member.host)
    member.session.keep_alive(max(context.plan.lease / 4, 1.0))
    if member.begun:
        context.epoch += 1
        member.call(
            "adopt",
            {
                "transaction": context.transaction,
                "epoch": context.epoch,
                "owner": context.owner,
            },
        )


def _report(context: Context, member: Member, touched: bool) -> None:
    if not touched:
        return
    member.findings += findings.lies_before(member.name, member.looked.get("baseline"))
    seconds = float(member.restored.get("seconds", {}).get("total", 0.0))
    if member.state == "restored":
        context.record(
            "restore",
            "done",
            member.name,
            f"restored and verified in {seconds:.2f} s",
            seconds=member.restored.get("seconds", {}),
            healthy_at=_healthy_at(member.restored),
            health=_health(member.restored),
        )
        for task in member.restored.get("stays", ()):
            note = f"{task} was not taken back: the schema stays as it made it"
            context.record("restore", "note", member.name, note)
        return
    if member.state == "held":
        _report_held(context, member)
        return
    words = [f"{f['title']}: {f['message']}" for f in member.restored.get("failures", [])]
    words += list(member.restored.get("differences", []))[:5]
    if not member.restored.get("healthy", True):
        words.append("the old version is back but not healthy")
    message = "; ".join(words) or f"ended in state {member.state}"
    context.record("restore", "failed", member.name, message)
    mend = with_plan(held.stopped(member.restored.get("failures", [])), context.plan.arguments)
    member.findings.append(Finding(member.name, "", "step", "restore", message, evidence=mend))


def _report_held(context: Context, member: Member) -> None:
    """Say why the host waits for a person, and what there is to choose from."""
    why = held.reason(member.restored["held"])
    context.record("restore", "note", member.name, why)
    mend = with_plan(held.choices(member.restored["held"]), context.plan.arguments)
    member.findings.append(Finding(member.name, "", "step", "held", why, evidence=mend))


def _healthy_at(restored: Mapping[str, Any]) -> float | None:
    """When every check that matters was healthy first after the restore, by our clock; the host
    said how long before its answer that was. ``None`` where no check matters."""
    health = restored.get("health") or {}
    firsts = [
        check.get("first_healthy_after")
        for check in health.get("checks", [])
        if check.get("required")
    ]
    if not firsts or any(first is None for first in firsts):
        return None
    since: float = float(health["seconds"]) - max(firsts)
    # A date for the record, made of a duration: nothing is reckoned from it.
    now = time.time()
    return now - max(since, 0.0)


def _health(restored: Mapping[str, Any]) -> list[list[Any]]:
    """How each check was after the restore: when, which, and its state."""
    return [
        [time.time(), check["id"], check["state"], check["settled"]]
        for check in (restored.get("health") or {}).get("checks", [])
    ]


def _collect(context: Context, member: Member, stage: str) -> None:
    evidence = context.plan.rescue.evidence
    # Before the restore every second is an outage: what cannot be had by then is not had.
    seconds = evidence.critical_seconds if stage == "critical" else evidence.max_seconds
    try:
        member.call(
            "evidence",
            {
                "stage": stage,
                "max_bytes": evidence.max_bytes,
                "max_seconds": seconds,
            },
        )
    except DeployguardError as error:
        context.record("restore", "note", member.name, f"evidence ({stage}): {error.message}")


def _fetch(context: Context, member: Member, save: Save) -> None:
    try:
        _, pieces = member.wire().call_stream("fetch")
        save(member, pieces)
    except (DeployguardError, OSError) as error:
        context.record("restore", "note", member.name, f"evidence was not fetched: {error}")


def evidence_directory(plan_source: str, directory: str, version: str, started_at: float) -> Path:
    """``<directory>/<version>-<epoch>``, relative to the plan file."""
    base = Path(plan_source).parent if plan_source else Path.cwd()
    return base / directory / f"{version}-{int(started_at)}"
