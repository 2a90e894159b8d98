"""Which alerts are told to whom, and when. Pure: ``step(state, signals, now) -> (state, notices)``.

The rules are those of Alertmanager. Alerts of one service, environment and transaction are a group.
A receiver is told of a group

* after ``group_wait``, when something in it fires for the first time, so that what fails together
  is told together;
* when an alert joins it, or when all of it is over, no sooner than ``group_interval`` after
  somebody was told of the group last;
* once more after ``repeat_interval``, while it goes on.

A receiver that was never told that something fires is never told that it is over. A failed restore
silences the checks and hosts of its service, because they say the same in many voices: they are
neither told nor called over while it lasts.

A check fires after ``failures`` looks in a row that were not healthy, and is over after as many
that were. What was not looked at stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

__all__ = [
    "Alert",
    "GroupKey",
    "Notice",
    "Receiver",
    "Rules",
    "Signal",
    "State",
    "firing",
    "step",
]

#: Service, environment, transaction.
GroupKey = tuple[str, str, str]
#: Host, component, check.
AlertKey = tuple[str, str, str]

Kind = Literal["check", "host", "restore"]

#: What an alert of this kind silences in the same service and environment.
_SILENCES: Mapping[Kind, tuple[Kind, ...]] = {"restore": ("check", "host")}


@dataclass(frozen=True)
class Rules:
    """Seconds, but for ``failures``."""

    failures: int = 2
    group_wait: float = 10.0
    group_interval: float = 60.0
    repeat_interval: float = 4 * 3600.0


@dataclass(frozen=True)
class Receiver:
    """Somebody who is told; of what is critical alone, or of everything."""

    name: str
    critical_only: bool = False


@dataclass(frozen=True)
class Signal:
    """One look at one thing."""

    group: GroupKey
    key: AlertKey
    healthy: bool
    kind: Kind = "check"
    critical: bool = True
    message: str = ""
    layer: str = ""


@dataclass(frozen=True)
class Alert:
    """One thing that was not healthy. ``streak`` counts the looks in a row that contradict
    ``fires``; ``since`` is the first look that was not healthy."""

    group: GroupKey
    key: AlertKey
    kind: Kind
    critical: bool
    message: str
    since: float
    layer: str = ""
    fires: bool = False
    streak: int = 0
    over_at: float | None = None


@dataclass(frozen=True)
class Told:
    """What a receiver was told of a group last: when, and what fired then; nothing: it was over."""

    at: float
    fired: frozenset[AlertKey]


@dataclass(frozen=True)
class Notice:
    """Something to be told. ``fires`` is empty where all of it is over; then ``over`` is what the
    receiver had been told of. ``again`` says that nothing is new."""

    receiver: str
    group: GroupKey
    fires: tuple[Alert, ...]
    over: tuple[AlertKey, ...] = ()
    again: bool = False


@dataclass(frozen=True)
class State:
    """Everything that is remembered between looks."""

    alerts: Mapping[tuple[GroupKey, AlertKey], Alert] = field(default_factory=dict)
    #: When a group may be told of.
    due: Mapping[GroupKey, float] = field(default_factory=dict)
    told: Mapping[tuple[str, GroupKey], Told] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "alerts": [asdict(alert) for alert in self.alerts.values()],
            "due": [[list(group), at] for group, at in self.due.items()],
            "told": [
                [receiver, list(group), told.at, sorted(map(list, told.fired))]
                for (receiver, group), told in self.told.items()
            ],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> State:
        """What :meth:`as_dict` was made from."""
        alerts = [
            Alert(**{**one, "group": _triple(one["group"]), "key": _triple(one["key"])})
            for one in data["alerts"]
        ]
        return cls(
            {(alert.group, alert.key): alert for alert in alerts},
            {_triple(group): float(at) for group, at in data["due"]},
            {
                (receiver, _triple(group)): Told(at, frozenset(_triple(key) for key in fired))
                for receiver, group, at, fired in data["told"]
            },
        )


def step(
    state: State,
    signals: Iterable[Signal],
    now: float,
    rules: Rules,
    receivers: Sequence[Receiver],
    *,
    at_once: bool = False,
) -> tuple[State, tuple[Notice, ...]]:
    """Take one round of looks, and say who is to be told what. ``now`` is in UTC seconds.

    A notice counts as told when it is returned; keep the state only together with it. With
    ``at_once`` nothing waits for more to come: nobody will look again.
    """
    alerts = dict(state.alerts)
    for signal in signals:
        _take(alerts, signal, now, rules)
    due = dict(state.due)
    for alert in alerts.values():
        if alert.fires and alert.group not in due:
            due[alert.group] = now + rules.group_wait
    told = dict(state.told)
    notices: list[Notice] = []
    for group, at in sorted(due.items()):
        if now < at and not at_once:
            continue
        for receiver in receivers:
            notice = _notice(alerts, told, group, receiver, now, rules)
            if notice is None:
                continue
            notices.append(notice)
            fired = frozenset(alert.key for alert in notice.fires)
            told[receiver.name, group] = Told(now, fired)
            due[group] = now + rules.group_interval
    _forget(alerts, due, told)
    return State(alerts, due, told), tuple(notices)


def firing(state: State, critical: bool = False) -> tuple[Alert, ...]:
    """What fires and is not silenced; only what is critical, where that is asked for."""
    return tuple(
        alert
        for alert in state.alerts.values()
        if alert.fires
        and (alert.critical or not critical)
        and not _silenced(alert, state.alerts.values())
    )


def _take(
    alerts: dict[tuple[GroupKey, AlertKey], Alert], signal: Signal, now: float, rules: Rules
) -> None:
    """One look. What is seen under another transaction from now on is over under the old one."""
    for place, alert in list(alerts.items()):
        if (
            alert.key == signal.key
            and place[0][:2] == signal.group[:2]
            and place[0] != signal.group
        ):
            if alert.fires:
                alerts[place] = replace(alert, fires=False, streak=0, over_at=now)
            else:
                del alerts[place]
    place = (signal.group, signal.key)
    known = alerts.get(place)
    if known is None or (signal.healthy is False and known.over_at is not None):
        if signal.healthy:
            return
        known = Alert(signal.group, signal.key, signal.kind, signal.critical, signal.message, now)
    if not signal.healthy:
        known = replace(known, message=signal.message, critical=signal.critical, layer=signal.layer)
    if signal.healthy == known.fires:
        known = replace(known, streak=known.streak + 1)
        if known.streak >= rules.failures:
            over = now if known.fires else None
            known = replace(known, fires=not known.fires, streak=0, over_at=over)
    elif known.fires:
        known = replace(known, streak=0)
    elif known.over_at is None:
        del alerts[place]  # healthy again before it counted
        return
    alerts[place] = known


def _silenced(alert: Alert, alerts: Iterable[Alert]) -> bool:
    return any(
        other.fires
        and other.group[:2] == alert.group[:2]
        and alert.kind in _SILENCES.get(other.kind, ())
        for other in alerts
    )


def _notice(
    alerts: Mapping[tuple[GroupKey, AlertKey], Alert],
    told: Mapping[tuple[str, GroupKey], Told],
    group: GroupKey,
    receiver: Receiver,
    now: float,
    rules: Rules,
) -> Notice | None:
    """What one receiver is told of one group now, if anything."""
    going_on = [
        alert
        for alert in alerts.values()
        if alert.group == group and alert.fires and (alert.critical or not receiver.critical_only)
    ]
    loud = tuple(alert for alert in going_on if not _silenced(alert, alerts.values()))
    last = told.get((receiver.name, group))
    if last is None or not last.fired:
        return Notice(receiver.name, group, loud) if loud else None
    if not going_on:
        return Notice(receiver.name, group, (), tuple(sorted(last.fired)))
    if not loud:
        return None
    if {alert.key for alert in loud} - last.fired:
        return Notice(receiver.name, group, loud)
    if now >= last.at + rules.repeat_interval:
        return Notice(receiver.name, group, loud, again=True)
    return None


def _forget(
    alerts: dict[tuple[GroupKey, AlertKey], Alert],
    due: dict[GroupKey, float],
    told: dict[tuple[str, GroupKey], Told],
) -> None:
    """Let go of groups in which nothing fires and of which nobody waits to hear the end."""
    waiting = {group for (_, group), one in told.items() if one.fired}
    alive = {alert.group for alert in alerts.values() if alert.fires}
    for place, alert in list(alerts.items()):
        if alert.over_at is not None and alert.group not in waiting | alive:
            del alerts[place]
    for group in set(due) - alive - waiting:
        del due[group]
    for key, one in list(told.items()):
        if not one.fired and key[1] not in alive:
            del told[key]


def _triple(items: Iterable[Any]) -> tuple[str, str, str]:
    one, two, three = items
    return str(one), str(two), str(three)
