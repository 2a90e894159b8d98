"""One real PostgreSQL for all tests of the store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.postgres import Postgres, a_server


@pytest.fixture(scope="package")
def cluster() -> Iterator[Postgres]:
    """One server for this package."""
    with a_server() as server:
        yield server


@pytest.fixture
def server(cluster: Postgres) -> Postgres:
    """It runs."""
    if not cluster.running():
        cluster.start()
    return cluster
