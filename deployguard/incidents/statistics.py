"""What some durations, or two counts, say; and when they are too few to say anything. Pure.

A mean of incidents is drawn by its longest one, so the median and the 90th percentile stand beside
it, each with how many there were. Two periods are only called different when chance alone would
rarely make them so: durations by the rank-sum test, shares by Fisher's exact test, counts by the
binomial test, each two-sided at 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = [
    "ENOUGH",
    "RARE",
    "Summary",
    "counts_differ",
    "durations_differ",
    "shares_differ",
    "summary",
]

#: Below so many there is no 90th percentile and no trend.
ENOUGH = 10
#: How often chance alone may make a difference.
RARE = 0.05


@dataclass(frozen=True)
class Summary:
    """``n`` durations in seconds; what is ``None`` cannot be said of so few."""

    n: int = 0
    mean: float | None = None
    median: float | None = None
    p90: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def summary(values: Iterable[float]) -> Summary:
    """Mean, median, and the 90th percentile by nearest rank: a value that really occurred."""
    ordered = sorted(values)
    n = len(ordered)
    if not n:
        return Summary()
    middle = n // 2
    median = ordered[middle] if n % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    p90 = ordered[math.ceil(0.9 * n) - 1] if n >= ENOUGH else None
    return Summary(n, math.fsum(ordered) / n, median, p90)


def durations_differ(one: Sequence[float], other: Sequence[float]) -> bool | None:
    """Whether two sets of durations differ; ``None`` where they are too few to say."""
    if min(len(one), len(other)) < ENOUGH:
        return None
    both = sorted([(value, 0) for value in one] + [(value, 1) for value in other])
    n, m, total = len(one), len(other), len(both)
    ranks, ties, start = 0.0, 0.0, 0
    while start < total:
        end = start
        while end < total and both[end][0] == both[start][0]:
            end += 1
        # Equal values share the mean of their ranks, which count from 1.
        mine = sum(1 for _, side in both[start:end] if side == 0)
        ranks += mine * (start + 1 + end) / 2
        ties += (end - start) ** 3 - (end - start)
        start = end
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    if variance <= 0:
        return False
    away = abs(ranks - n * (total + 1) / 2)
    return math.erfc(max(away - 0.5, 0.0) / math.sqrt(2 * variance)) < RARE


def shares_differ(hits: int, of: int, other_hits: int, other_of: int) -> bool | None:
    """Whether two shares differ; ``None`` where one is of too few to say."""
    if min(of, other_of) < ENOUGH:
        return None
    drawn, total = hits + other_hits, of + other_of
    first, last = max(0, drawn - other_of), min(drawn, of)
    whole = _choose(total, drawn)
    chances = {
        k: math.exp(_choose(of, k) + _choose(other_of, drawn - k) - whole)
        for k in range(first, last + 1)
    }
    return _as_rare(chances, hits) < RARE


def counts_differ(one: int, span: float, other: int, other_span: float) -> bool | None:
    """Whether two counts, each over its span of time, differ in how often it happened."""
    total = one + other
    if total < ENOUGH or span <= 0 or other_span <= 0:
        return None
    share = span / (span + other_span)
    chances = {
        k: math.exp(_choose(total, k) + k * math.log(share) + (total - k) * math.log(1 - share))
        for k in range(total + 1)
    }
    return _as_rare(chances, one) < RARE


def _as_rare(chances: dict[int, float], seen: int) -> float:
    """How likely something is that is no more likely than what was seen."""
    limit = chances[seen] * (1 + 1e-9)
    return math.fsum(chance for chance in chances.values() if chance <= limit)


def _choose(n: int, k: int) -> float:
    """The logarithm of the binomial coefficient."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
