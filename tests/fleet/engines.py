"""The `engines` fixture: one host with docker and podman, for all tests of a session."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.fleet.fleet import Fleet
from tests.fleet.machine import FleetUnavailable


@pytest.fixture(scope="session")
def engine_fleet() -> Iterator[Fleet]:
    """A fleet whose hosts have container engines; the process is not in its network yet."""
    from tests.drivers import stacks

    try:
        fleet = Fleet.up(1, f"engines-{os.getpid()}", packages=stacks.PACKAGES)
    except FleetUnavailable as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no test hosts: {error}", pytrace=False)
        pytest.skip(f"no test hosts: {error}")
    with fleet:
        stacks.engines_on(fleet.hosts[0])
        yield fleet


@pytest.fixture
def engines(engine_fleet: Fleet) -> Iterator[Fleet]:
    """The same, with this process inside its network for one test."""
    engine_fleet.enter()
    try:
        yield engine_fleet
    finally:
        engine_fleet.leave()
