"""The states of an incident and what leads from one to the next. Pure.

::

    open ──acknowledge──► acknowledged ──mitigate──► mitigated ──resolve──► resolved ──close──► closed
      └──────────────────────mitigate───────────────────▲

* ``open``: users may be hit, and nobody has said that they are at it.
* ``acknowledged``: a person is at it.
* ``mitigated``: users are served again. A restore that was verified brings an incident here by
  itself, and no further: that the old version is back does not mean that anybody has understood.
  It may still be acknowledged, which changes no state and stops that clock.
* ``resolved``: what caused it is gone.
* ``closed``: what there was to learn is written down.
* ``cancelled``: it was none.

``resolve`` may come from any state that is not over, ``cancel`` too; ``reopen`` leads from
``mitigated`` and from every end back to ``open``. Anything else is an error and changes nothing.
"""  # noqa: E501 - a drawing

from __future__ import annotations

from typing import Literal, get_args

from deployguard.errors import UsageError

__all__ = ["EVENTS", "ONGOING", "PAST", "STATES", "TRANSITIONS", "Event", "State", "step"]

State = Literal["open", "acknowledged", "mitigated", "resolved", "closed", "cancelled"]
Event = Literal["acknowledge", "mitigate", "resolve", "close", "reopen", "cancel"]

STATES: tuple[State, ...] = get_args(State)
EVENTS: tuple[Event, ...] = get_args(Event)

#: Those whose clocks run. The schema of the store has them too, for its index.
ONGOING: tuple[State, ...] = ("open", "acknowledged", "mitigated")

TRANSITIONS: dict[tuple[State, Event], State] = {
    ("open", "acknowledge"): "acknowledged",
    ("open", "mitigate"): "mitigated",
    ("open", "resolve"): "resolved",
    ("open", "cancel"): "cancelled",
    ("acknowledged", "mitigate"): "mitigated",
    ("acknowledged", "resolve"): "resolved",
    ("acknowledged", "cancel"): "cancelled",
    ("mitigated", "acknowledge"): "mitigated",
    ("mitigated", "resolve"): "resolved",
    ("mitigated", "cancel"): "cancelled",
    ("mitigated", "reopen"): "open",
    ("resolved", "close"): "closed",
    ("resolved", "reopen"): "open",
    ("closed", "reopen"): "open",
    ("cancelled", "reopen"): "open",
}

#: What is said of an incident to which an event has happened; the kind of its entry.
PAST: dict[Event, str] = {
    "acknowledge": "acknowledged",
    "mitigate": "mitigated",
    "resolve": "resolved",
    "close": "closed",
    "reopen": "reopened",
    "cancel": "cancelled",
}

_WORDS: dict[Event, str] = {
    "acknowledge": "ack",
    "mitigate": "mitigate",
    "resolve": "resolve",
    "close": "close",
    "reopen": "reopen",
    "cancel": "cancel",
}


def step(incident: str, state: State, event: Event) -> State:
    """The state after an event. Raises :class:`UsageError` where the table has none."""
    following = TRANSITIONS.get((state, event))
    if following is not None:
        return following
    raise UsageError(
        f"{incident} is {state}; it cannot be {PAST[event]}", hint=_mend(incident, state, event)
    )


def _mend(incident: str, state: State, event: Event) -> str:
    """The event that has to come first, if one does."""
    for between in EVENTS:
        following = TRANSITIONS.get((state, between))
        if following not in (None, state) and (following, event) in TRANSITIONS:
            return f"`deployguard incident {_WORDS[between]} {incident}` comes first"
    return f"`deployguard incident show {incident}` tells what has happened to it"
