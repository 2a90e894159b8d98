"""The fixture ``scene``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.kubernetes.scene import Scene


@pytest.fixture
def scene(cluster: Cluster, tmp_path: Path) -> Scene:
    """A deployment to an empty cluster."""
    return Scene(cluster, tmp_path)
