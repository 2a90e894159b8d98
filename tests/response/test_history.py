"""What hand-made transactions say about the next one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deployguard.response.history import estimate, history_of

NOON = 1795262400.0


def row(
    number: int, version: str, before: str | None, status: str = "committed", **changes: Any
) -> dict[str, Any]:
    """A transaction of two hosts; each is a minute long and one after the other."""
    seconds = changes.pop("seconds", {"connect": 0.1, "switch": 1.0, "check": 2.0})
    slow = {phase: value * 2 for phase, value in seconds.items()}
    hosts = [
        {"host": name, "versions_before": {"web": before}, "seconds": took}
        for name, took in (("web1", seconds), ("web2", slow))
    ]
    started = NOON + 100 * number
    return {
        "id": f"txn-{number:03d}",
        "version": version,
        "status": status,
        "exit_code": 0,
        "started_at": started,
        "ended_at": started + 60,
        "outcome": json.dumps({"hosts": hosts}),
        **changes,
    }


def test_what_goes_back_is_told_from_what_is_new() -> None:
    """To a version that was live here before the one it replaces is a way back, whatever command it
    was; from there to the newer one again is none."""
    rows = [
        row(1, "v1", None),
        row(2, "v2", "v1"),
        row(3, "v1", "v2"),
        row(4, "v1", "v1", "unchanged"),
        row(5, "v3", "v1", "rolled_back", seconds={"switch": 1.0, "check": 5.0, "restore": 4.0}),
        row(6, "v2", "v1"),
    ]
    history = history_of(list(reversed(rows)))
    assert [one.transaction for one in history.rollbacks] == ["txn-003"]
    # Unchanged touched nothing, so it is no deploy.
    assert [one.transaction for one in history.deploys] == [
        "txn-001",
        "txn-002",
        "txn-005",
        "txn-006",
    ]
    back = history.rollbacks[0]
    # The slowest host, from the stop until its checks had passed; the connecting is no downtime.
    assert (back.downtime, back.restored, back.took) == (6.0, None, 60.0)
    failed = history.of_version("v3")[0]
    assert (failed.downtime, failed.restored) == (None, 8.0)


def test_a_row_may_come_from_either_store() -> None:
    """SQLite gives text, PostgreSQL a mapping; one that is not ended yet is left out. The first of
    all had nothing to be down."""
    mapping = row(2, "v2", "v1")
    mapping["outcome"] = json.loads(mapping["outcome"])
    running = row(3, "v3", "v2", status=None)
    running["ended_at"] = None
    history = history_of([row(1, "v1", None), mapping, running])
    assert [(one.version, one.downtime) for one in history.past] == [("v1", None), ("v2", 6.0)]
    crashed = row(4, "v4", "v2", "failed")
    crashed["outcome"] = None
    assert history_of([crashed]).past[0].downtime is None


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([], (0, None, None, "")),
        ([None, None], (0, None, None, "")),
        ([4.0], (1, 4.0, 4.0, "longest")),
        ([9.0, None, 1.0, 2.0], (3, 2.0, 9.0, "longest")),
        ([float(n) for n in range(1, 12)], (11, 6.0, 10.0, "p90")),
    ],
)
def test_estimates(seconds: list[float | None], expected: tuple[Any, ...]) -> None:
    """Of few the longest; of many the ninetieth percentile; of none nothing."""
    found = estimate(seconds, "rollback")
    assert (found.n, found.median, found.high, found.high_is) == expected
    assert found.known is (expected[0] > 0)
