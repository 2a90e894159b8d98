"""A compose stack, struck at the points that are its own: half stopped, half made, half started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.controllers import Controllers
from tests.crash.matrix import Case, Grounds
from tests.crash.stackground import StackGround, make_stacks
from tests.drivers.stacks import PACKAGES
from tests.fleet.fleet import Fleet
from tests.fleet.machine import FleetUnavailable

pytestmark = [pytest.mark.fleet, pytest.mark.slow, pytest.mark.alone]

CASES = (
    Case("stack", 1, "good", "host", "after intent backend:images", "program"),
    Case("stack", 1, "good", "host", "before done backend:stop", "power"),
    Case("stack", 1, "good", "host", "before done backend:start", "power"),
    Case("stack", 1, "good", "host", "after intent backend:start", "controller"),
    Case("stack", 1, "good", "host", "after switched", "network"),
    Case("stack", 1, "good", "host", "before settled", "program"),
    Case("stack", 1, "bad", "host", "before undone backend:start", "program"),
    Case("stack", 1, "bad", "host", "before undone backend:stop", "power"),
)


@pytest.fixture
def stacks(tmp_path: Path) -> Iterator[Grounds]:
    """Two hosts of this test's own: their power is cut."""
    try:
        fleet = Fleet.up(2, f"stack-{os.getpid()}", packages=PACKAGES)
    except FleetUnavailable as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no test hosts: {error}", pytrace=False)
        pytest.skip(f"no test hosts: {error}")
    with fleet:
        fleet.enter()
        try:
            with Controllers() as controllers:
                yield Grounds(fleet, tmp_path, controllers)
        finally:
            fleet.leave()


def test_a_stack_is_wholly_old_or_wholly_new(
    stacks: Grounds, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tree, images and containers are one version's, everything runs, and nothing is left."""
    releases = make_stacks(tmp_path / "stacks")
    for _ in range(2):
        stacks.add("releases", 1, make=StackGround, releases=releases)
    stacks.set_up()
    tally = stacks.play(CASES)
    with capsys.disabled():
        print(f"\ncrashes of a stack: {tally}")
    assert not tally.violations, "\n".join(tally.violations)
    assert not tally.missed, "\n".join(tally.missed)
