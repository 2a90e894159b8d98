"""The fixture ``cluster``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster with the namespaces ``default`` and ``chat``, and nothing in them."""
    made = Cluster(tmp_path)
    yield made
    made.close()
