"""Hosts of these tests' own, since they are left in many states; the process visits them."""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.controllers import Controllers
from tests.crash.matrix import Grounds
from tests.fleet.fleet import Fleet
from tests.fleet.machine import FleetUnavailable


@pytest.fixture(scope="session")
def crash_fleet() -> Iterator[Fleet]:
    """Hosts as they are asked for; without root or a package they are skipped, but not in CI."""
    try:
        fleet = Fleet.up(1, f"crash-{os.getpid()}")
    except FleetUnavailable as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no test hosts: {error}", pytrace=False)
        pytest.skip(f"no test hosts: {error}")
    with fleet:
        yield fleet


@pytest.fixture
def grounds(crash_fleet: Fleet, tmp_path: Path) -> Iterator[Grounds]:
    """Grounds to be added to; their controllers run inside the hosts' network, as this does."""
    faulthandler.cancel_dump_traceback_later()  # the full matrix takes longer, and says so
    crash_fleet.enter()
    try:
        with Controllers() as controllers:
            yield Grounds(crash_fleet, tmp_path, controllers)
    finally:
        crash_fleet.leave()
