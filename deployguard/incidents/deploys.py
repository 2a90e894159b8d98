"""What a deploy makes of incidents: opens one, joins one, mitigates it, or none of these.

A refusal, a lock and an unchanged deploy make none. A verified restore mitigates, by itself: the
old version is back, and nobody has looked yet. What is not proven to be back stays open. So does a
failure before anything was touched, because nobody knows what it means.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence

from deployguard.errors import ExitCode
from deployguard.incidents.book import Book
from deployguard.incidents.change import Changes, moved, regraded
from deployguard.incidents.entries import AUTOMATIC, Draft, Opening
from deployguard.incidents.fingerprint import signature
from deployguard.incidents.record import Incident
from deployguard.incidents.severity import Level, Targets, name_of
from deployguard.rollout.outcome import Outcome

__all__ = ["FAILED", "committed", "failed", "impact", "recovered", "severity", "touched"]

#: How a deploy ends that makes an incident.
FAILED = (ExitCode.ROLLED_BACK, ExitCode.NEEDS_PERSON)

_UNTOUCHED = ("untouched", "aborted", "unreachable")


def severity(
    outcome: Outcome, *, canary: Collection[str] = (), at_most: Level = 1
) -> tuple[Level, str]:
    """How bad a failed deploy is, and why.

    ``canary`` are hosts without users that matter; ``at_most`` is the worst that a deploy of this
    plan can be, for a staging environment.
    """
    hit = touched(outcome)
    level: Level
    if outcome.exit_code != ExitCode.ROLLED_BACK:
        level, why = 1, "a host is not proven to be back on the old version"
    elif not hit:
        level, why = 3, "nothing live was touched"
    elif all(host in canary for host in hit):
        level, why = 3, "only canaries were hit, and the old version is back"
    else:
        level, why = 2, "users may have been hit, and the old version is back"
    if level < at_most:
        return at_most, f"{why}; the plan says that it is {name_of(at_most)} at most"
    return level, why


def touched(outcome: Outcome) -> list[str]:
    """The hosts whose services were stopped, or may have been."""
    return sorted(host.host for host in outcome.hosts if host.state not in _UNTOUCHED)


def impact(outcome: Outcome) -> float | None:
    """When users may first have been hit: the first service was stopped. ``None``: never."""
    hit = touched(outcome)
    return min(
        (
            event.at
            for event in outcome.timeline
            if event.host in hit and (event.phase, event.status) == ("switch", "started")
        ),
        default=None,
    )


def failed(
    outcome: Outcome,
    book: Book,
    *,
    targets: Targets,
    canary: Collection[str] = (),
    at_most: Level = 1,
    postmortem: float | None = None,
    links: Iterable[tuple[str, str]] = (),
    within: str = "",
) -> tuple[Incident, bool] | None:
    """Open or join the incident of a failed deploy; whether it was opened. ``None`` for a deploy
    that makes none. ``postmortem`` is how many seconds later one is due; ``within`` is the incident
    that the deploy should have ended."""
    if outcome.exit_code not in FAILED:
        return None
    level, why = severity(outcome, canary=canary, at_most=at_most)
    detected = _detected(outcome)
    back = _back(outcome)
    opening = Opening(
        title=f"{outcome.plan} {outcome.version} failed in {outcome.environment}",
        severity=level,
        service=outcome.plan,
        environment=outcome.environment,
        origin="deploy",
        signature=signature(outcome),
        targets=targets,
        detected_at=detected,
        impact_at=impact(outcome),
        text=f"{name_of(level)}, because {why}: {outcome.summary}",
        before=tuple(_before(outcome, detected)),
        mitigated=None if back is None else Draft("mitigated", _proof(outcome), back),
        links=(("transaction", outcome.transaction), *_forensics(outcome), *links),
        postmortem=postmortem if touched(outcome) else None,
    )

    def join(same: Incident) -> tuple[Changes, Sequence[Draft]]:
        return _joined(same, outcome, opening, why, back, ending=same.id == within)

    key = f"deploy/{outcome.transaction}"
    return book.open_or_join(opening, join=join, key=key, within=within)


def committed(outcome: Outcome, book: Book) -> list[Incident]:
    """Note a deploy that went well in the incidents of its service that are not over."""
    if outcome.status != "committed":
        return []
    return [
        book.note(
            incident.id,
            f"{outcome.version} was deployed, transaction {outcome.transaction}: {outcome.summary}",
            at=outcome.ended_at,
            kind="deployed",
            key=f"deploy/{outcome.transaction}/{incident.id}",
        )
        for incident in book.lookup.ongoing(outcome.plan, outcome.environment)
    ]


def recovered(outcome: Outcome, book: Book, *, targets: Targets) -> list[Incident]:
    """What `recover` has ended, in the incidents of the transactions it ended; one that needs a
    person and has no incident yet gets one."""
    found = []
    for transaction in filter(None, outcome.transaction.split(",")):
        incidents = book.lookup.of_link("transaction", transaction)
        settled = outcome.exit_code == ExitCode.COMMITTED
        if not incidents and outcome.exit_code == ExitCode.NEEDS_PERSON:
            opening = Opening(
                title=f"{outcome.plan}: {transaction} cannot be finished",
                severity=1,
                service=outcome.plan,
                environment=outcome.environment,
                origin="deploy",
                signature=signature(outcome),
                targets=targets,
                text=f"critical, because a host is not restored: {outcome.summary}",
                links=(("transaction", transaction),),
            )
            found.append(book.open(opening, key=f"recover/{transaction}"))
        for incident in incidents:
            if settled and incident.state in ("open", "acknowledged"):
                words = f"`recover` finished it: {outcome.summary}"
                found.append(book.move(incident.id, "mitigate", words, person=False))
            elif incident.ongoing:
                words = f"`recover`: {outcome.summary}"
                digest = hashlib.sha256(words.encode("utf-8", "replace")).hexdigest()[:12]
                # One that is repeated by a scheduler says the same again and again.
                key = f"recover/{transaction}/{incident.id}/{digest}"
                found.append(book.note(incident.id, words, key=key))
    return found


def _joined(
    same: Incident,
    outcome: Outcome,
    opening: Opening,
    why: str,
    back: float | None,
    *,
    ending: bool,
) -> tuple[Changes, Sequence[Draft]]:
    """It failed again: perhaps worse, perhaps the old version is back, perhaps no longer.

    What should have been the ``ending`` of the incident and failed has brought back what was live
    before it, which is what the incident is about: nothing is mitigated by that.
    """
    how = "failed as the way out" if ending else "failed in the same way"
    words = f"{outcome.version} {how}: {outcome.summary}"
    changes: Changes = {}
    now, level = outcome.ended_at, opening.severity
    if same.impact_at is None and opening.impact_at is not None:
        changes["impact_at"] = opening.impact_at
    if same.postmortem_by is None and opening.postmortem is not None:
        changes["postmortem_by"] = _detected(outcome) + opening.postmortem
    if level < same.severity:
        changes |= regraded(same, level)
        words += f"; {name_of(level)} from now on, because {why}"
    if back is None and same.state == "mitigated":
        again = moved(same, "reopen", at=now, now=now, actor=AUTOMATIC, person=False)
        changes |= again
        words += "; opened again, because the old version is not proven to be back"
    elif back is not None and not ending and same.state in ("open", "acknowledged"):
        changes |= moved(same, "mitigate", at=back, now=now, actor=AUTOMATIC, person=False)
        words += "; mitigated"
    return changes, [Draft("joined", words, now, {"transaction": outcome.transaction})]


def _detected(outcome: Outcome) -> float:
    """The first sign that something is wrong; the end of the deploy where none was recorded."""
    return min(
        (event.at for event in outcome.timeline if event.status == "failed"),
        default=outcome.ended_at,
    )


def _back(outcome: Outcome) -> float | None:
    """When the last host was restored, if every host that was touched is proven to be."""
    ends = [e.at for e in outcome.timeline if (e.phase, e.status) == ("restore", "done")]
    if outcome.exit_code != ExitCode.ROLLED_BACK or not touched(outcome):
        return None
    return max(ends, default=outcome.ended_at)


def _before(outcome: Outcome, detected: float) -> Iterable[Draft]:
    start = impact(outcome)
    if start is not None:
        hosts = ", ".join(touched(outcome))
        yield Draft("impact", f"services were stopped for {outcome.version} on {hosts}", start)
    sign = next((event for event in outcome.timeline if event.status == "failed"), None)
    if sign is not None:
        where = f"{sign.host}: " if sign.host else ""
        yield Draft("detected", f"{where}{sign.phase} failed: {sign.message}", detected)


def _proof(outcome: Outcome) -> str:
    restored = [host for host in outcome.hosts if host.state == "restored"]
    sick = sorted({check for host in restored for check in host.sick})
    words = f" as before, but for {', '.join(sick)}" if sick else ""
    names = ", ".join(host.host for host in restored)
    return f"the old version is back, files verified, healthy{words}: {names}"


def _forensics(outcome: Outcome) -> Iterable[tuple[str, str]]:
    if outcome.forensics:
        yield "forensics", outcome.forensics
