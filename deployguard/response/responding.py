"""Does what was chosen, proves it, and writes it into the incident."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deployguard import api
from deployguard.errors import ExitCode
from deployguard.incidents.book import Book
from deployguard.incidents.change import Changes
from deployguard.incidents.entries import Draft, Opening
from deployguard.incidents.fingerprint import shape
from deployguard.incidents.record import Incident
from deployguard.incidents.severity import Level, name_of
from deployguard.report.incidents import targets_of
from deployguard.response import asking
from deployguard.response.assessment import Assessment, Choice
from deployguard.response.containment import Done, Hands, in_force
from deployguard.response.history import History
from deployguard.response.options import Option

if TYPE_CHECKING:
    from deployguard.plan.model import Plan
    from deployguard.rollout.outcome import Outcome

__all__ = ["Result", "execute", "opened"]


@dataclass(frozen=True)
class Result:
    """How a response ended. ``outcome`` is that of the transaction, where there was one; ``after``
    the look at the end; ``left`` the steps that are still in force."""

    choice: Choice
    exit_code: ExitCode
    incident: Incident
    outcome: Outcome | None = None
    after: Assessment | None = None
    left: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether all checks that matter were healthy at the end."""
        return self.after is not None and self.after.healthy


def opened(
    book: Book, plan: Plan, level: Level, title: str, since: float | None = None
) -> Incident:
    """Open an incident of a plan's service, or join the ongoing one with the same title."""
    opening = Opening(
        title=title,
        severity=level,
        service=plan.name,
        environment=plan.environment,
        signature=(shape(title.lower()),),
        targets=targets_of(plan),
        impact_at=since,
    )

    def join(_: Incident) -> tuple[Changes, list[Draft]]:
        return {}, [Draft("joined", f"seen again, as {name_of(level)}: {title}")]

    return book.open_or_join(opening, join=join)[0]


def execute(
    option: Option,
    plan: Plan,
    book: Book,
    incident: Incident,
    hands: Hands,
    history: History,
    before: Assessment,
    *,
    deploy: Callable[[Option], Outcome],
    person: bool,
    keep: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Result:
    """Do one option; ``deploy`` is how a rollback or a hotfix is done.

    Containment is taken back once the new state is committed, unless ``keep``; then every check is
    made once more, and the incident is mitigated if those that matter are healthy. ``person`` says
    that somebody sits there.
    """
    began = time.monotonic()
    outcome: Outcome | None = None
    if option.kind == "mitigate":
        code = _mitigate(plan, hands, [host.host for host in before.unreachable])
    else:
        outcome = deploy(option)
        code = outcome.exit_code
        if code == ExitCode.COMMITTED and not keep:
            hands.undo(in_force(book.lookup.timeline(incident.id)))
    left = tuple(one.step for one in in_force(book.lookup.timeline(incident.id)) if one.undo)
    if code == ExitCode.INTERRUPTED:
        incident = _written(book, incident, option, code, outcome, None, began)
        return Result(option.kind, code, incident, outcome, None, left)
    tell("looking once more")
    after = asking.assess(plan, api.connect, history)
    if code == ExitCode.COMMITTED and not after.healthy:
        code = ExitCode.UNHEALTHY
    incident = _written(book, incident, option, code, outcome, after, began)
    if code == ExitCode.COMMITTED and incident.state in ("open", "acknowledged"):
        words = f"{option.kind} ({option.title}): every check that matters is healthy"
        incident = book.move(incident.id, "mitigate", words, person=person)
    return Result(option.kind, code, incident, outcome, after, left)


def _mitigate(plan: Plan, hands: Hands, silent: Sequence[str]) -> ExitCode:
    """All steps, or none of them."""
    before = len(hands.begun)
    for step in plan.respond.mitigate:
        done = hands.do(step, silent)
        if not done.ok:
            back: list[Done] = hands.undo(hands.begun[before:])
            return ExitCode.ROLLED_BACK if all(b.ok for b in back) else ExitCode.NEEDS_PERSON
    return ExitCode.COMMITTED


def _written(
    book: Book,
    incident: Incident,
    option: Option,
    code: ExitCode,
    outcome: Outcome | None,
    after: Assessment | None,
    began: float,
) -> Incident:
    healthy = after is not None and after.healthy
    words = f"{option.kind}: "
    words += outcome.summary if outcome is not None else option.title
    if outcome is not None and outcome.incident not in (None, incident.id):
        words += f"; that it failed is {outcome.incident}"
    if after is not None:
        failing = ", ".join(f"{one.host} {one.name}" for one in after.failing if one.critical)
        words += (
            "; every check that matters is healthy" if healthy else f"; still failing: {failing}"
        )
    return book.note(
        incident.id,
        words,
        kind="responded",
        links=[] if outcome is None else [("transaction", outcome.transaction)],
        detail={
            "choice": option.kind,
            "version": option.version,
            "transaction": "" if outcome is None else outcome.transaction,
            "exit_code": int(code),
            "healthy": healthy,
            "seconds": round(time.monotonic() - began, 3),
        },
    )
