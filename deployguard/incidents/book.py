"""Incidents as they are written down: opened, joined, moved from state to state, escalated.

Whatever happens to an incident is one transaction of the store: its new state, the entry in its
timeline, and what the hooks put beside it. A hook is called with every :class:`Transition` while
that transaction is open, so that a message to be sent becomes durable together with what it tells,
or not at all. It may be called twice for one transition when the database went away in between;
what it wrote the first time is then gone, and nothing but what it writes through its ``work`` may
count.

No text gets into the store before ``clean`` has taken the secrets out of it.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from deployguard.errors import UsageError
from deployguard.incidents import change
from deployguard.incidents.change import Changes
from deployguard.incidents.entries import AUTOMATIC, Draft, Opening, Overdue, Transition
from deployguard.incidents.fingerprint import fingerprint
from deployguard.incidents.lookup import Lookup, incident_in
from deployguard.incidents.machine import PAST, Event
from deployguard.incidents.record import COLUMNS, Entry, Incident
from deployguard.incidents.severity import Level, name_of
from deployguard.store.work import Store, Work, storable

__all__ = ["Book", "Hook"]

Hook = Callable[[Work, Transition], None]

_Decide = Callable[[Work, Incident], tuple[Changes, Sequence[Draft]]]


class Book:
    """The incidents of a store, for one who writes: ``actor`` is their name."""

    def __init__(
        self,
        store: Store,
        *,
        actor: str = AUTOMATIC,
        clean: Callable[[Any], Any] = lambda value: value,
        clock: Callable[[], float] = time.time,
        hooks: Iterable[Hook] = (),
    ) -> None:
        self.lookup = Lookup(store)
        self._store = store
        self._actor = actor
        self._redact = clean
        self._clock = clock
        self._hooks = tuple(hooks)

    # --- opening --------------------------------------------------------------------------------

    def open(self, opening: Opening, *, key: str = "") -> Incident:
        """Open an incident. With a ``key``, the second time with the same key answers with what the
        first one opened."""
        key = key or secrets.token_hex(8)

        def within(work: Work) -> Incident:
            known = self._done(work, key)
            return known if known is not None else self._opened(work, opening, key)

        return self._store.transact(within)

    def open_or_join(
        self,
        opening: Opening,
        *,
        join: Callable[[Incident], tuple[Changes, Sequence[Draft]]],
        key: str = "",
        within: str = "",
    ) -> tuple[Incident, bool]:
        """Join the ongoing incident of the same failure, or open one; whether it was opened.

        ``join`` says what becomes of the incident that is joined; ``within`` names one that it
        belongs to, however it failed, as long as that is ongoing.
        """
        key = key or secrets.token_hex(8)

        def joined(work: Work) -> tuple[Incident, bool]:
            known = self._done(work, key)
            if known is not None:
                return known, False
            same = incident_in(work, within) if within else None
            if same is None or not same.ongoing:
                same = Lookup.same_failure(
                    work, opening.service, opening.environment, self._signature(opening)
                )
            if same is None:
                return self._opened(work, opening, key), True
            changes, drafts = join(same)
            return self._changed(work, same, changes, drafts, opening.links, key), False

        return self._store.transact(joined)

    # --- what people do -------------------------------------------------------------------------

    def move(
        self,
        incident: str,
        event: Event,
        text: str = "",
        *,
        at: float | None = None,
        cause: str = "",
        fix: str = "",
        person: bool = True,
        links: Iterable[tuple[str, str]] = (),
    ) -> Incident:
        """Acknowledge, mitigate, resolve, close, reopen or cancel.

        Raises :class:`UsageError` where the state does not allow it, and nothing is changed.
        """
        said = {name: value for name, value in (("cause", cause), ("fix", fix)) if value}

        def decide(_: Work, found: Incident) -> tuple[Changes, Sequence[Draft]]:
            changes = change.moved(
                found, event, at=at, now=self._clock(), actor=self._actor, person=person
            )
            words = text or "; ".join(f"{name}: {value}" for name, value in said.items())
            return {**changes, **said}, [Draft(PAST[event], words, at)]

        return self._write(incident, decide, links)

    def note(
        self,
        incident: str,
        text: str = "",
        *,
        at: float | None = None,
        links: Iterable[tuple[str, str]] = (),
        kind: str = "noted",
        key: str = "",
        detail: Mapping[str, Any] | None = None,
        cause: str = "",
        fix: str = "",
    ) -> Incident:
        """Write something down, whatever the state; ``detail`` is for programs. ``cause`` and
        ``fix`` replace what was said of them before."""
        links = list(links)
        said = {name: value for name, value in (("cause", cause), ("fix", fix)) if value}
        words = text or "; ".join(f"{name}: {value}" for name, value in said.items())
        words = words or ", ".join(f"{kind} {value}" for kind, value in links)
        draft = Draft(kind, words, at, detail or {})
        return self._write(incident, lambda *_: (dict(said), [draft]), links, key)

    def assign(self, incident: str, *, commander: str = "", owner: str = "") -> Incident:
        """Say who is in command, and who owns what has to be done."""
        roles = {"commander": commander, "owner": owner}
        given = {role: name for role, name in roles.items() if name}
        words = ", ".join(f"{role}: {name}" for role, name in given.items())
        return self._write(incident, lambda *_: (dict(given), [Draft("assigned", words)]))

    def regrade(self, incident: str, level: Level, text: str = "") -> Incident:
        """Give it another severity."""

        def decide(_: Work, found: Incident) -> tuple[Changes, Sequence[Draft]]:
            if found.severity == level:
                raise UsageError(f"{found.id} is {name_of(level)} already")
            words = f"{name_of(found.severity)} → {name_of(level)}" + (f": {text}" if text else "")
            return change.regraded(found, level), [Draft("severity", words)]

        return self._write(incident, decide)

    # --- the clocks -----------------------------------------------------------------------------

    def check(self) -> list[Overdue]:
        """Everything that is overdue, the worst first; what was not escalated lately is now."""
        found: list[Overdue] = []
        for incident in self.lookup.ongoing():
            if incident.overdue(self._clock()):
                found += self._escalate(incident.id)
        return sorted(found, key=lambda one: (one.incident.severity, one.incident.clock_at))

    def _escalate(self, incident: str) -> list[Overdue]:
        missed: list[str] = []
        escalated = False

        def decide(_: Work, found: Incident) -> tuple[Changes, Sequence[Draft]]:
            nonlocal missed, escalated
            # Somebody may have acknowledged it just now.
            missed, changes = change.escalation(found, self._clock())
            escalated = bool(changes)
            if not changes:
                return {}, []
            words = f"level {changes['escalations']}: not {_and(missed)} in time"
            return changes, [Draft("escalated", words, detail={"missed": missed})]

        after = self._write(incident, decide)
        return [Overdue(after, tuple(missed), escalated)] if missed else []

    # --- how it is written ----------------------------------------------------------------------

    def _clean(self, value: Any) -> Any:
        return storable(self._redact(value))

    def _write(
        self,
        incident: str,
        decide: _Decide,
        links: Iterable[tuple[str, str]] = (),
        key: str = "",
    ) -> Incident:
        key = key or secrets.token_hex(8)
        links = list(links)

        def within(work: Work) -> Incident:
            known = self._done(work, key)
            if known is not None:
                return known
            found = incident_in(work, incident)
            changes, drafts = decide(work, found)
            if not drafts and not links:
                return found
            return self._changed(work, found, changes, drafts, links, key)

        return self._store.transact(within)

    def _done(self, work: Work, key: str) -> Incident | None:
        """The incident that an entry of this key is about, if there is one."""
        rows = work.rows(
            "SELECT incident FROM @incident_entries WHERE key = :key", {"key": f"{key}/0"}
        )
        return incident_in(work, rows[0]["incident"]) if rows else None

    def _signature(self, opening: Opening) -> tuple[str, ...]:
        signature: tuple[str, ...] = self._clean(opening.signature)
        return tuple(signature)

    def _opened(self, work: Work, opening: Opening, key: str) -> Incident:
        now = self._clock()
        detected = now if opening.detected_at is None else opening.detected_at
        signature = self._signature(opening)
        service, environment = self._clean(opening.service), self._clean(opening.environment)
        incident = Incident(
            id=_next_id(work, now),
            state="open",
            severity=opening.severity,
            title=self._clean(" ".join(opening.title.split())),
            service=service,
            environment=environment,
            origin=opening.origin,
            opened_at=now,
            detected_at=detected,
            clock_at=detected,
            fingerprint=fingerprint(service, environment, signature),
            signature=signature,
            targets=opening.targets,
            impact_at=opening.impact_at,
            commander=self._clean(opening.commander),
            owner=self._clean(opening.owner),
            postmortem_by=None if opening.postmortem is None else detected + opening.postmortem,
            **change.clocks(opening.severity, opening.targets, detected),
        )
        whole = {**incident.as_dict(), "severity": incident.severity}
        text = opening.text or f"{name_of(incident.severity)}: {incident.title}"
        drafts = [Draft("opened", text, detail={"changes": whole}), *opening.before]
        if opening.mitigated is not None:
            at = opening.mitigated.at
            changes = change.moved(
                incident, "mitigate", at=at, now=now, actor=self._actor, person=False
            )
            incident = change.changed(incident, changes)
            drafts.append(replace(opening.mitigated, detail={"changes": changes}))
        self._insert(work, incident)
        return self._entered(work, None, incident, drafts, opening.links, key)

    @staticmethod
    def _insert(work: Work, incident: Incident) -> None:
        columns = ", ".join(COLUMNS)
        values = ", ".join(f":{name}" for name in COLUMNS)
        work.do(
            f"INSERT INTO @incidents ({columns}, day, number) "  # noqa: S608 - our own columns
            f"VALUES ({values}, :day, :number)",
            {**incident.row(), "day": incident.id.split("-")[1], "number": _number(incident.id)},
        )

    def _changed(
        self,
        work: Work,
        before: Incident,
        changes: Changes,
        drafts: Sequence[Draft],
        links: Iterable[tuple[str, str]],
        key: str,
    ) -> Incident:
        changes = self._clean(changes)
        after = change.changed(before, changes)
        if changes:
            assignments = ", ".join(f"{name} = :{name}" for name in changes)
            work.do(
                f"UPDATE @incidents SET {assignments} WHERE id = :id",  # noqa: S608 - our own columns
                {**after.row(), "id": before.id},
            )
            first, *rest = drafts
            drafts = [replace(first, detail={**first.detail, "changes": changes}), *rest]
        return self._entered(work, before, after, drafts, links, key)

    def _entered(
        self,
        work: Work,
        before: Incident | None,
        after: Incident,
        drafts: Iterable[Draft],
        links: Iterable[tuple[str, str]],
        key: str,
    ) -> Incident:
        now = self._clock()
        count = "SELECT count(*) AS count FROM @incident_entries WHERE incident = :id"
        (row,) = work.rows(count, {"id": after.id})
        entries = []
        for position, draft in enumerate(drafts):
            entry = Entry(
                number=row["count"] + 1 + position,
                at=now if draft.at is None else draft.at,
                recorded_at=now,
                kind=draft.kind,
                actor=self._clean(self._actor),
                text=self._clean(draft.text),
                detail=self._clean(dict(draft.detail)),
            )
            work.do(
                "INSERT INTO @incident_entries VALUES (:incident, :number, :at, :recorded_at, "
                ":kind, :actor, :text, :detail, :key)",
                {
                    **entry.as_dict(),
                    "incident": after.id,
                    "detail": json.dumps(entry.detail),
                    "key": f"{key}/{position}",
                },
            )
            entries.append(entry)
        for kind, value in links:
            work.do(
                "INSERT INTO @incident_links VALUES (:incident, :kind, :value, :at) "
                "ON CONFLICT DO NOTHING",
                {"incident": after.id, "kind": kind, "value": self._clean(value), "at": now},
            )
        for hook in self._hooks:
            hook(work, Transition(before, after, tuple(entries)))
        return after


def _next_id(work: Work, now: float) -> str:
    """``INC-20261121-003``: the day in UTC, and the number of that day."""
    day = time.strftime("%Y%m%d", time.gmtime(now))
    (row,) = work.rows("SELECT max(number) AS last FROM @incidents WHERE day = :day", {"day": day})
    return f"INC-{day}-{(row['last'] or 0) + 1:03d}"


def _number(incident: str) -> int:
    return int(incident.rpartition("-")[2])


def _and(words: Iterable[str]) -> str:
    past = {"acknowledge": "acknowledged", "resolve": "resolved"}
    return " or ".join(past[word] for word in words)
