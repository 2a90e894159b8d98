"""Where a migration runs, and in which order hosts are taken because of it."""

from __future__ import annotations

from typing import Any

import pytest

from deployguard.plan.model import Plan
from deployguard.plan.order import runner_of
from deployguard.rollout.held import choices, reason
from deployguard.rollout.migrations import Migration, batches_of, points

HELD: dict[str, Any] = {
    "task": "migrate",
    "here": True,
    "live": "new",
    "switched": True,
    "dumps": ["/d/1.dump"],
}


def plan(**changes: Any) -> Plan:
    """Four hosts, of which two are in a group, and a task of the component that runs there."""
    component = {"artifact": "x", "path": "/srv/x", "checks": [{"port": 1}]}
    hosts: dict[str, Any] = {name: {} for name in "abcd"}
    hosts["b"] = hosts["c"] = {"groups": ["db"]}
    base = {
        "name": "p",
        "version": "1",
        "hosts": hosts,
        "components": {
            "all": component,
            "some": {**component, "path": "/srv/y", "hosts": ["db"]},
        },
        "tasks": [{"name": "t", "run": ["x"], "component": "some", "migration": "expand_only"}],
    }
    return Plan.model_validate({**base, **changes})


def test_the_first_able_host_that_it_applies_to() -> None:
    """Not the first of all, and not one that did not answer."""
    found = plan()
    (task,) = found.tasks
    assert runner_of(found, task, ["a", "b", "c", "d"]) == "b"
    assert runner_of(found, task, ["a", "c"]) == "c"
    assert runner_of(found, task, ["a", "d"]) is None


@pytest.mark.parametrize(
    ("serial", "runners", "expected"),
    [
        ("100%", "b", ["b", "acd"]),
        ([1, "50%", "100%"], "a", ["a", "bc", "d"]),
        ([2], "c", ["c", "a", "bd"]),
        ([1], "cb", ["c", "b", "a", "d"]),
        ("100%", "", ["abcd"]),
    ],
)
def test_its_host_goes_first_and_alone(serial: Any, runners: str, expected: list[str]) -> None:
    """The batches stay those of `serial` otherwise."""
    migrations = [Migration(f"m{name}", "reversible", name) for name in runners]
    found = batches_of(plan(serial=serial), list("abcd"), migrations)
    assert ["".join(batch) for batch in found] == expected


def test_points_of_no_return() -> None:
    """Only what cannot be taken back, and only where it has run."""
    migrations = [
        Migration("a", "reversible", "a"),
        Migration("b", "irreversible", "b"),
        Migration("c", "irreversible", "c"),
    ]
    assert points(migrations, ["a", "b"]) == ["b"]


def test_what_there_is_to_choose() -> None:
    """Every choice that is there, and none that is not."""
    assert "the new version is live" in reason(HELD)
    said = choices(HELD)
    assert "--held new" in said and "--held old" in said and "/d/1.dump" in said
    partly = choices({**HELD, "switched": False, "dumps": []})
    assert "--held new" not in partly and "cannot be kept" in partly
    assert "there is no dump of this migration" in partly
    elsewhere = choices({**HELD, "here": False, "dumps": []})
    assert "dump" not in elsewhere
