"""Puts messages into the outbox: a hook of the book of incidents, and the ends of deploys.

Nothing is sent here. Texts are rendered and redacted here, so that what waits holds no secret and
says what was so when it happened.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from deployguard.evidence.redact import Redactor
from deployguard.evidence.timeline import iso
from deployguard.incidents.entries import Transition
from deployguard.incidents.record import Incident, Link
from deployguard.incidents.severity import name_of
from deployguard.notify.message import Message
from deployguard.notify.routing import kind_of, wants
from deployguard.notify.settings import ChannelSettings, Settings, known
from deployguard.notify.words import facts_of, words_for
from deployguard.plan.message import SAMPLE
from deployguard.store.outbox import put
from deployguard.store.work import Store, Work, storable

__all__ = ["KIND", "Announcer", "cleaner", "deployed", "deploys_told", "envelope", "silence"]

#: What messages of channels are in the outbox.
KIND = "notify"

Clean = Callable[[Any], Any]


class Announcer:
    """A hook of :class:`~deployguard.incidents.book.Book`: what happens to an incident is put into
    the outbox of each channel that is told of it, in the transaction that writes it down."""

    def __init__(self, clean: Clean, clock: Callable[[], float]) -> None:
        self._clean = clean
        self._clock = clock

    def __call__(self, work: Work, transition: Transition) -> None:
        kind = kind_of(transition)
        if kind is None:
            return
        incident = transition.after
        settings = known(work, incident.service, incident.environment)
        if settings is None or not settings.channels:
            return
        entry = next((e for e in transition.entries if e.kind == kind), transition.entries[0])
        rows = work.rows(
            "SELECT kind, value, linked_at FROM @incident_links WHERE incident = :id "
            "ORDER BY linked_at, kind, value",
            {"id": incident.id},
        )
        links = tuple(Link(**row) for row in rows)
        facts = facts_of(settings, kind, incident, entry, links)
        clean = cleaner(settings, self._clean)
        for channel in settings.channels:
            for recipient in channel.recipients:
                lane = "/".join(filter(None, (incident.id, channel.name, recipient)))
                if not wants(channel, kind, transition, self._told(work, lane)):
                    continue
                title, text = words_for(settings, channel.audience, facts)
                message = Message(
                    key=f"{lane}/{entry.number}",
                    kind=kind,
                    subject=incident.id,
                    title=title,
                    text=text,
                    at=entry.at,
                    level=incident.severity,
                    state=incident.state,
                    service=incident.service,
                    environment=incident.environment,
                    recipient=recipient,
                    facts=_texts(facts, channel),
                )
                payload = envelope(channel, message, clean)
                put(work, KIND, f"notify/{message.key}", payload, self._clock(), lane)

    @staticmethod
    def _told(work: Work, lane: str) -> bool:
        """Whether something was sent on a lane, or will be."""
        rows = work.rows(
            "SELECT id FROM @outbox WHERE lane = :lane AND rejected_at IS NULL LIMIT 1",
            {"lane": lane},
        )
        return bool(rows)


def silence(store: Store, incident: Incident) -> str:
    """Why nobody is told of an incident, where channels are known at all; empty where somebody is,
    or where no plan has any."""
    rows = store.read(
        "SELECT id FROM @outbox WHERE substr(key, 1, :length) = :prefix LIMIT 1",
        {"prefix": f"{KIND}/{incident.id}/", "length": len(f"{KIND}/{incident.id}/")},
    )
    if rows:
        return ""
    settings = known(store, incident.service, incident.environment)
    if settings is not None and settings.channels:
        return f"no channel of {incident.service} is told of what is {name_of(incident.severity)}"
    plans = store.read("SELECT settings FROM @notify_plans ORDER BY saved_at DESC")
    others = [Settings.from_dict(json.loads(row["settings"])) for row in plans]
    names = [f"{one.service} in {one.environment}" for one in others if one.channels]
    if not names:
        return ""
    return f"channels are known of {', '.join(names[:5])}; --plan, or --service and --environment"


def cleaner(settings: Settings, clean: Clean) -> Clean:
    """What takes the secrets out that the caller knows of, and those that the settings name."""
    redactor = Redactor(settings.secrets())

    def both(value: Any) -> Any:
        value = clean(value)
        return redactor.text(value) if isinstance(value, str) else redactor.data(value)

    return both


def envelope(channel: ChannelSettings, message: Message, clean: Clean) -> dict[str, Any]:
    """What the outbox keeps: the message without secrets, and the channel as it is known now."""
    data = message.as_dict()
    for name in ("title", "text", "facts"):
        data[name] = storable(clean(data[name]))
    return {"channel": dict(channel.__dict__), "message": data}


def _texts(facts: Mapping[str, Any], channel: ChannelSettings) -> dict[str, str]:
    """The facts for channels that have fields for them; outsiders get none of the inside."""
    if channel.audience not in ("team", "management"):
        return {}
    wanted = ("severity", "state", "since", "impact", "commander", "acknowledged_by", "version")
    found = {name: str(facts[name]) for name in wanted if facts[name]}
    return {**found, **facts["links"]}


def deploys_told(settings: Settings, *, incident: bool) -> list[ChannelSettings]:
    """The channels that are told how deploys end. Those that hear of the ``incident`` of one anyway
    need not be told twice; for PagerDuty the two are different things."""
    return [
        channel
        for channel in settings.channels
        if channel.deploys and (channel.kind == "pagerduty" or not incident)
    ]


def deployed(
    store: Store,
    settings: Settings,
    end: Mapping[str, Any],
    *,
    clean: Clean,
    clock: Callable[[], float],
) -> int:
    """Put the end of a deploy into the outbox; how many messages that makes.

    ``end`` has ``transaction``, ``version``, ``summary``, ``ended_at``, ``committed`` and
    ``incident``, which is empty where there is none.
    """
    kind = "deployed" if end["committed"] else "deploy_failed"
    channels = deploys_told(settings, incident=bool(end["incident"]))
    if not channels:
        return 0
    thorough = cleaner(settings, clean)

    def within(work: Work) -> int:
        return sum(
            _put_end(work, settings, channel, kind, end, thorough, clock) for channel in channels
        )

    return store.transact(within)


def _put_end(
    work: Work,
    settings: Settings,
    channel: ChannelSettings,
    kind: str,
    end: Mapping[str, Any],
    clean: Clean,
    clock: Callable[[], float],
) -> int:
    facts = {
        **{name: type(value)() for name, value in SAMPLE.items()},
        "kind": kind,
        "product": settings.product,
        "service": settings.service,
        "environment": settings.environment,
        "text": end["summary"],
        "at": iso(end["ended_at"]),
        "version": end["version"],
        "transaction": end["transaction"],
        "incident": end["incident"] or "",
        "links": {"transaction": end["transaction"]},
    }
    title, text = words_for(settings, channel.audience, facts)
    made = 0
    for recipient in channel.recipients:
        lane = "/".join(filter(None, ("deploy", end["transaction"], channel.name, recipient)))
        message = Message(
            key=lane,
            kind=kind,
            subject=str(end["transaction"]),
            title=title,
            text=text,
            at=float(end["ended_at"]),
            level=4,
            state="committed" if end["committed"] else "failed",
            service=settings.service,
            environment=settings.environment,
            recipient=recipient,
            facts=_texts(facts, channel),
        )
        made += put(work, KIND, f"notify/{lane}", envelope(channel, message, clean), clock(), lane)
    return made
