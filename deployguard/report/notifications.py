"""Notifications at the end of a deploy: put into the outbox, sent, and what became of them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence

from deployguard.errors import ExitCode
from deployguard.incidents.deploys import touched
from deployguard.notify.announce import deployed
from deployguard.notify.delivery import Told, flush
from deployguard.notify.settings import remember
from deployguard.plan.model import Plan
from deployguard.report.redaction import Redaction
from deployguard.rollout.outcome import Event, Listener, Outcome
from deployguard.store.journal import Journal

__all__ = ["line", "send", "tell", "waiting"]

_FAILED = (ExitCode.ROLLED_BACK, ExitCode.NEEDS_PERSON)


def tell(
    outcome: Outcome,
    plan: Plan,
    journal: Journal,
    redaction: Redaction,
    listen: Listener | None = None,
) -> Outcome:
    """Put the end of a deploy that changed something into the outbox, and send all that waits."""
    committed = outcome.status == "committed"
    if committed or (outcome.exit_code in _FAILED and touched(outcome)):
        end = {
            "transaction": outcome.transaction,
            "version": outcome.version,
            "summary": outcome.summary,
            "ended_at": outcome.ended_at,
            "committed": committed,
            "incident": outcome.incident,
        }
        deployed(journal, remember(journal, plan), end, clean=redaction.value, clock=time.time)
    return send(outcome, journal, listen)


def send(outcome: Outcome, journal: Journal, listen: Listener | None = None) -> Outcome:
    """Send what waits; what did not arrive is a line in the outcome."""
    found = flush(journal)
    for one in found:
        if listen is not None:
            listen(Event(time.time(), "report", "note", "", line(one)))
    errors = (*outcome.report_errors, *waiting(found))
    return dataclasses.replace(outcome, report_errors=errors)


def line(one: Told) -> str:
    """What became of a message, in one line."""
    about = f"{one.channel}: {one.kind} {one.subject}"
    if one.state == "delivered":
        return f"told {about}"
    return f"not told {about} ({one.state}): {one.said or 'not tried yet'}"


def waiting(found: Sequence[Told]) -> Iterable[str]:
    """One line for each channel that was not told: why, and what becomes of it."""
    for channel in dict.fromkeys(one.channel for one in found):
        left = [one for one in found if one.channel == channel and one.state == "pending"]
        refused = [one for one in found if one.channel == channel and one.state == "rejected"]
        if refused:
            yield f"{channel} refused {_messages(refused)}: {refused[-1].said}"
        if left:
            reason = next((one.said for one in left if one.said), "not tried yet")
            yield (
                f"{channel} was not told yet, {_messages(left)} left for `deployguard notify "
                f"flush`: {reason}"
            )


def _messages(found: Sequence[Told]) -> str:
    return f"{len(found)} message{'s' if len(found) != 1 else ''}"
