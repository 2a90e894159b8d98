"""A database, and a service on this machine to deploy; see tests/cli."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deployguard.store.postgres import PostgresJournal
from tests.cli.conftest import site as site
from tests.postgres import Postgres, a_server


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    """One for these tests."""
    with a_server() as made:
        yield made


@pytest.fixture
def journal(
    server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PostgresJournal]:
    """It runs."""
    monkeypatch.setenv("DEPLOYGUARD_STATE", str(tmp_path / "controller-state"))
    monkeypatch.delenv("DEPLOYGUARD_JOURNAL", raising=False)
    opened = PostgresJournal(server.url)
    yield opened
    opened.close()
