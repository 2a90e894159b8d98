"""The incidents of deploys, as the end of a deploy and `recover` write them down.

What goes wrong here raises; :mod:`deployguard.report.reporting` makes a line of it in the outcome.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from deployguard.incidents import deploys
from deployguard.incidents.book import Book, Hook
from deployguard.incidents.entries import AUTOMATIC
from deployguard.incidents.record import Incident
from deployguard.incidents.severity import Level, Target, Targets, level_named
from deployguard.notify.announce import Announcer
from deployguard.plan.order import hosts_named
from deployguard.report.redaction import Redaction
from deployguard.rollout.outcome import Outcome
from deployguard.store.work import Store

if TYPE_CHECKING:
    from deployguard.plan.model import Plan
    from deployguard.plan.model import Target as PlannedTarget

__all__ = ["after_deploy", "after_recovery", "book_of", "filed", "targets_of"]


def book_of(
    store: Store, redaction: Redaction, actor: str = AUTOMATIC, hooks: Iterable[Hook] = ()
) -> Book:
    """The book of incidents, for texts that may hold what a plan calls secret. What is written in
    it is put into the outbox of the channels that are told."""
    announce = Announcer(redaction.value, time.time)
    return Book(store, actor=actor, clean=redaction.value, hooks=(announce, *hooks))


def targets_of(plan: Plan | None) -> Targets:
    """What the plan asks for, where it asks for something."""
    targets = Targets()
    if plan is None:
        return targets
    planned = plan.rescue.incident.targets
    levels = {
        name: _filled(target, getattr(planned, name)) for name, target in targets.levels.items()
    }
    return Targets(levels, planned.zone)


def _filled(target: Target, planned: PlannedTarget) -> Target:
    given = {name: value for name, value in planned.model_dump().items() if value is not None}
    return replace(target, **given)


def after_deploy(
    outcome: Outcome, plan: Plan, book: Book, within: str = ""
) -> tuple[Outcome, Incident | None]:
    """Open or join the incident of a deploy that failed; note one that went well where an incident
    of its service is not over. ``within`` is the incident that the deploy should have ended."""
    rules = plan.rescue.incident.severity
    at_most: Level = level_named(rules.at_most)
    canary = hosts_named(plan.hosts, rules.canary) if rules.canary else ()
    postmortem = plan.rescue.postmortem
    found = deploys.failed(
        outcome,
        book,
        targets=targets_of(plan),
        canary=canary,
        at_most=at_most,
        postmortem=postmortem.due if postmortem.draft else None,
        within=within,
    )
    if found is None:
        deploys.committed(outcome, book)
        return outcome, None
    incident, _ = found
    return replace(outcome, incident=incident.id), incident


def after_recovery(outcome: Outcome, plan: Plan | None, book: Book) -> Sequence[Incident]:
    """What `recover` ended, in the incidents of the transactions that it ended."""
    return deploys.recovered(outcome, book, targets=targets_of(plan))


def filed(book: Book, transaction: str, url: str, action: str) -> None:
    """An issue was filed: it is linked to the incident of the transaction that it tells of."""
    for incident in book.lookup.of_link("transaction", transaction):
        book.note(
            incident.id,
            f"issue {action}: {url}",
            kind="linked",
            links=[("issue", url)],
            key=f"issue/{transaction}/{incident.id}",
        )
