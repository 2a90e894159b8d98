"""The `fleet` fixture: one set of hosts for a test session, booted when a test first asks.

A machine that cannot hold hosts skips the tests that need them, with the reason. In CI it fails
instead, because a suite that skips its hardest tests in silence proves nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.fleet.fleet import Fleet
from tests.fleet.machine import FleetUnavailable
from tests.releases import fetch

HOSTS = 4


@pytest.fixture(scope="session")
def fleet() -> Iterator[Fleet]:
    """Four hosts, more with `fleet.need(n)`, with this process inside their network."""
    # Inside the hosts' network there is no package index any more.
    fetch()
    try:
        booted = Fleet.up(HOSTS)
    except FleetUnavailable as error:
        reason = f"no test hosts: {error}"
    else:
        reason = ""
    if reason and os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    if reason:
        pytest.skip(reason)
    with booted:
        booted.enter()
        yield booted
