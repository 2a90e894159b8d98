"""What every test shares: hypothesis profiles, the real hosts, the ``fleet`` marker.

This file is also loaded when ``tests/onhost`` runs on Python 3.8, so it is written for that.
"""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import HealthCheck, settings

# No deadline a single example: these machines have two cores and other work to do.
_QUIET = [HealthCheck.too_slow]
settings.register_profile("dev", deadline=None, max_examples=50, suppress_health_check=_QUIET)
settings.register_profile(
    "ci", deadline=None, max_examples=200, derandomize=True, suppress_health_check=_QUIET
)
settings.register_profile("proofs", deadline=None, max_examples=2000, suppress_health_check=_QUIET)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") == "true" else "dev")
)

if sys.version_info >= (3, 10):
    # The re-export is what makes a fixture known to every test below this directory.
    from tests.cluster.fixtures import cluster as cluster
    from tests.fleet.engines import engine_fleet as engine_fleet
    from tests.fleet.engines import engines as engines
    from tests.fleet.fixtures import fleet as fleet


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what boots real hosts, before ``-m`` picks, so that no test has to remember it.

    They come last: the process moves into the hosts' network for them, and does not come back.
    """
    for item in items:
        if {"fleet", "engines"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("fleet")
    items.sort(key=lambda item: item.get_closest_marker("fleet") is not None)
