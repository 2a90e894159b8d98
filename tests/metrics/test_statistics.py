"""The tests behind a trend, held to values that were worked out elsewhere."""

from __future__ import annotations

import pytest

from deployguard.incidents.statistics import (
    counts_differ,
    durations_differ,
    shares_differ,
    summary,
)


def test_a_summary() -> None:
    """The 90th percentile is a value that occurred; of fewer than ten there is none."""
    ten = summary([10, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    assert (ten.n, ten.mean, ten.median, ten.p90) == (10, 5.5, 5.5, 9)
    assert summary([*range(1, 11), 1000]).p90 == 10
    nine = summary(range(9))
    assert (nine.n, nine.median, nine.p90) == (9, 4, None)
    assert summary([]).mean is None


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        (range(9), range(100, 120), None),  # nine are too few
        (range(10), range(10, 20), True),
        (range(10), range(10), False),
        ([5.0] * 10, [5.0] * 12, False),  # all the same: nothing varies
        # U = 23 is the last that the tables call rare for ten and ten; U = 24 is not.
        (range(10), [0.5, 1.5, 3.5, *range(100, 107)], True),
        (range(10), [0.5, 1.5, 2.5, *range(100, 107)], False),
        # One outlier moves a mean, and not this.
        (range(10), [*range(9), 100_000], False),
    ],
)
def test_durations(one: list[float], other: list[float], differ: bool | None) -> None:
    """The rank-sum test."""
    assert durations_differ(list(one), list(other)) is differ
    assert durations_differ(list(other), list(one)) is differ


@pytest.mark.parametrize(
    ("table", "differ"),
    [
        ((0, 9, 9, 9), None),
        ((1, 10, 1, 10), False),
        ((0, 10, 5, 10), True),  # p = 0.0325
        ((0, 10, 4, 10), False),  # p = 0.0867
        ((0, 5000, 0, 5000), False),
        ((50, 5000, 100, 5000), True),
    ],
)
def test_shares(table: tuple[int, int, int, int], differ: bool | None) -> None:
    """Fisher's exact test."""
    hits, of, other_hits, other_of = table
    assert shares_differ(hits, of, other_hits, other_of) is differ
    assert shares_differ(other_hits, other_of, hits, of) is differ


@pytest.mark.parametrize(
    ("counts", "differ"),
    [
        ((4, 30, 5, 31), None),
        ((1, 30, 9, 30), True),  # p = 0.0215
        ((2, 30, 8, 30), False),  # p = 0.1094
        ((10, 10, 30, 30), False),  # the same frequency
        ((5000, 31, 5200, 31), True),
    ],
)
def test_counts(counts: tuple[int, float, int, float], differ: bool | None) -> None:
    """The binomial test."""
    one, span, other, other_span = counts
    assert counts_differ(one, span, other, other_span) is differ
    assert counts_differ(other, other_span, one, span) is differ
