"""A compose stack, struck at the points that are its own: half stopped, half made, half started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash import matrix
from tests.crash.controllers import Controllers
from tests.crash.matrix import Case
from tests.crash.stackground import StackGround, make_stacks
from tests.drivers.stacks import PACKAGES
from tests.fleet.fleet import Fleet
from tests.fleet.machine import FleetUnavailable

pytestmark = [pytest.mark.fleet, pytest.mark.slow]

CASES = (
    Case("releases", 1, "good", "host", "after intent backend:images", "program"),
    Case("releases", 1, "good", "host", "before done backend:stop", "power"),
    Case("releases", 1, "good", "host", "before done backend:start", "power"),
    Case("releases", 1, "good", "host", "after intent backend:start", "controller"),
    Case("releases", 1, "good", "host", "after switched", "network"),
    Case("releases", 1, "good", "host", "before settled", "program"),
    Case("releases", 1, "bad", "host", "before undone backend:start", "program"),
    Case("releases", 1, "bad", "host", "before undone backend:stop", "power"),
)


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[StackGround]:
    """A host of this test's own: its power is cut."""
    try:
        fleet = Fleet.up(1, f"stack-{os.getpid()}", packages=PACKAGES)
    except FleetUnavailable as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no test hosts: {error}", pytrace=False)
        pytest.skip(f"no test hosts: {error}")
    with fleet:
        releases = make_stacks(tmp_path / "releases")
        fleet.enter()
        try:
            with Controllers() as controllers:
                yield StackGround(fleet, fleet.hosts[0], tmp_path / "ground", controllers, releases)
        finally:
            fleet.leave()


def test_a_stack_is_wholly_old_or_wholly_new(
    ground: StackGround, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tree, images and containers are one version's, everything runs, and nothing is left."""
    ground.set_up()
    ends = []
    for case in CASES:
        for _ in range(matrix.ATTEMPTS):
            end, trouble = matrix._play_safely(ground, case)
            if end or trouble:
                break
        ends.append((str(case), end or "missed", trouble))
        with capsys.disabled():
            print(f"\n{case}: {trouble or end or 'missed'}")
    assert not [trouble for _, _, trouble in ends if trouble]
    assert "missed" not in [end for _, end, _ in ends]
