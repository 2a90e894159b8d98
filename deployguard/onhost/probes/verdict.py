"""Samples in, verdict out: when is a check healthy, and when is there no hope left.

Pure: no clock, no probe. ``step(state, sample, now) -> (state, verdict)`` takes the samples of one
check in the order of time; ``now`` is a monotonic instant, the one at which the sample came in.

- A sample belongs to the moment at which it was begun, ``now - seconds``. One that was begun by
  the ``deadline`` and is healthy made it, however slowly it was answered.
- The soak, ``min_healthy_time``, counts from the answer of the first healthy sample and ends with
  a healthy one begun when it is over. Any other sample in between breaks it: it starts anew while
  the deadline lasts, and after that the check has failed.
- A check that was settled and breaks while others are not there yet gets one more chance, short,
  since one lost answer in a long soak of somebody else is no reason to roll back.
- ``unknown`` never counts as healthy; still unknown at the deadline has failed.
- A process that was restarted, or is another one than at the first look, died under us. That is
  failure at once, however healthy it looks again.
- What cannot heal by itself (``final``) has failed at once.

A verdict is not the end: a check that became healthy early goes on being stepped while others are
not there yet, and may lose its verdict again or turn it into failure.
"""

from __future__ import annotations

from typing import Any, Dict, NamedTuple, Optional, Tuple

from deployguard.onhost.probes.base import HEALTHY, UNHEALTHY, UNKNOWN, CheckData, Sample

# Instants are sums of floats; a sample begun at the deadline must not miss it by rounding.
_GRAIN = 0.001


class Verdict(NamedTuple):
    """``final`` says that further samples cannot change it."""

    healthy: bool
    state: str
    message: str
    final: bool


class State(NamedTuple):
    """Everything remembered of one check between samples. Instants are monotonic."""

    started: float
    deadline: float
    min_healthy_time: float
    before: Optional[Dict[str, Any]] = None
    until: float = 0.0
    chance: float = 0.0
    settled: bool = False
    samples: int = 0
    first_healthy: Optional[float] = None
    healthy_since: Optional[float] = None
    first_restarts: Optional[int] = None
    first_instance: Optional[str] = None
    restarted: int = 0
    failed: Optional[Verdict] = None


def begin(check: CheckData, started: float, before: Optional[Dict[str, Any]] = None) -> State:
    """The state before the first sample.

    ``before`` is what a process sample observed before the service was started. With it, restarts
    between the start and the first look count too; without it, only those that follow the first.
    """
    until = started + check["deadline"]
    chance = check["timeout"] + check["interval"]
    return State(started, check["deadline"], check["min_healthy_time"], before, until, chance)


def soak_ends(state: State) -> Optional[float]:
    """When the soak that is running will be over, or ``None``."""
    if state.healthy_since is None:
        return None
    return state.healthy_since + state.min_healthy_time


def step(state: State, sample: Sample, now: float) -> Tuple[State, Optional[Verdict]]:
    """Take one sample into account. ``None`` means that it is too early to tell."""
    if state.failed is not None:
        return state, state.failed
    begun = now - sample["seconds"]
    state = _count(state._replace(samples=state.samples + 1), sample["observed"])
    if state.restarted:
        return _fail(state, UNHEALTHY, "%s; %s" % (restart_words(state), sample["message"]))
    if sample["state"] == HEALTHY:
        return _healthy(state, sample, begun, now)
    state = state._replace(healthy_since=None)
    if sample["final"]:
        return _fail(state, sample["state"], sample["message"])
    if state.settled:
        until = max(state.until, now + state.chance)
        return state._replace(settled=False, chance=0.0, until=until), None
    if begun >= state.until - _GRAIN:
        return _fail(state, sample["state"], _too_late(state, sample))
    return state, None


def restart_words(state: State) -> str:
    """How often the process was restarted, in words."""
    if state.restarted == 1:
        return "restarted since the start"
    return "restarted %d times since the start" % state.restarted


def _healthy(
    state: State, sample: Sample, begun: float, now: float
) -> Tuple[State, Optional[Verdict]]:
    if state.healthy_since is None:
        if begun > state.until + _GRAIN:
            return _fail(state, UNHEALTHY, _too_late(state, sample))
        first = state.first_healthy if state.first_healthy is not None else now
        state = state._replace(healthy_since=now, first_healthy=first)
        if state.min_healthy_time > 0:
            return state, None
    ends = soak_ends(state)
    if ends is not None and state.min_healthy_time > 0 and begun < ends - _GRAIN:
        return state, None
    return state._replace(settled=True), Verdict(True, HEALTHY, sample["message"], False)


def _fail(state: State, word: str, message: str) -> Tuple[State, Verdict]:
    verdict = Verdict(False, word, message, True)
    return state._replace(failed=verdict, healthy_since=None), verdict


def _too_late(state: State, sample: Sample) -> str:
    if sample["state"] == HEALTHY:
        return "healthy only after its deadline of %g s" % state.deadline
    if state.first_healthy is not None:
        return "it did not stay healthy: %s" % sample["message"]
    if sample["state"] == UNKNOWN:
        return "still unknown after %g s: %s" % (state.deadline, sample["message"])
    return "not healthy within %g s: %s" % (state.deadline, sample["message"])


def _count(state: State, observed: Dict[str, Any]) -> State:
    restarts, instance = observed.get("restarts"), observed.get("instance")
    if state.first_restarts is None and restarts is not None:
        state = state._replace(first_restarts=_reference(state, observed))
    if state.first_instance is None and instance is not None:
        state = state._replace(first_instance=str(instance))
    restarted = state.restarted
    if restarts is not None and state.first_restarts is not None:
        restarted = max(restarted, int(restarts) - state.first_restarts)
    if instance is not None and instance != state.first_instance:
        # Somebody started it by hand, which sets the count back to nothing.
        restarted = max(restarted, 1)
    return state._replace(restarted=restarted)


def _reference(state: State, observed: Dict[str, Any]) -> int:
    """The count to start from, at the first look."""
    restarts = int(observed["restarts"])
    if state.before is not None and "instance" in observed:
        if observed["instance"] != state.before.get("instance"):
            return 0  # it was started since, and that set the count back
        return int(state.before.get("restarts", restarts))
    return restarts - 1 if observed.get("restart_due") else restarts
