"""Who is told of what: pure.

A channel is told of an incident when it is bad enough, or was escalated often enough, and of
everything that happens to it from then on. Good news goes to those only who heard of the trouble:
"resolved" tells somebody nothing who knows of no incident.
"""

from __future__ import annotations

from deployguard.incidents.entries import Transition
from deployguard.notify.message import GOOD_NEWS
from deployguard.notify.settings import ChannelSettings

__all__ = ["kind_of", "wants"]

_KINDS = (
    "joined",
    "escalated",
    "severity",
    "acknowledged",
    "mitigated",
    "resolved",
    "closed",
    "cancelled",
    "reopened",
    "update",
)

#: Channels that have words for some kinds only, once they know of an incident.
_SAYS: dict[str, tuple[str, ...]] = {
    "pagerduty": (
        *("joined", "escalated", "severity", "reopened"),
        *("acknowledged", "resolved", "cancelled"),
    ),
    "sms": ("escalated", "mitigated", "resolved", "cancelled", "reopened", "update"),
    "statuspage": ("acknowledged", "mitigated", "resolved", "cancelled", "reopened", "update"),
}

#: What concerns nobody outside of the team.
_INSIDE = ("closed", "severity", "escalated", "joined")


def kind_of(transition: Transition) -> str | None:
    """The kind of the message that a transition makes, ``None`` for what nobody is told of."""
    if transition.before is None:
        return "opened"
    return next((entry.kind for entry in transition.entries if entry.kind in _KINDS), None)


def wants(channel: ChannelSettings, kind: str, transition: Transition, told: bool) -> bool:
    """Whether a channel is told; ``told`` says whether it knows of the incident already."""
    incident = transition.after
    if not told:
        bad_enough = incident.severity <= channel.at_least
        late_enough = incident.escalations >= channel.escalations
        return kind not in GOOD_NEWS and incident.ongoing and bad_enough and late_enough
    if kind not in _SAYS.get(channel.kind, _KINDS):
        return False
    return channel.audience in ("team", "management") or kind not in _INSIDE
