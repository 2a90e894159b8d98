"""Scenes on the shared hosts, and a GitHub that every request is checked against."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fleet.fleet import Fleet
from tests.github.server import GitHubServer, checked
from tests.scenarios.scene import Scene

MakeScene = Callable[..., Scene]


@pytest.fixture
def github(fleet: Fleet) -> Iterator[GitHubServer]:
    """A GitHub with nothing in it yet. Started inside the hosts' network, where the tests are."""
    with checked() as server:
        yield server


@pytest.fixture
def scene(fleet: Fleet, github: GitHubServer, tmp_path: Path) -> Iterator[MakeScene]:
    """Make a scene: ``scene(hosts=3, real=True)``. Its hosts are in order again afterwards."""
    made: list[Scene] = []

    def make(**options: Any) -> Scene:
        directory = tmp_path / f"scene{len(made)}"
        directory.mkdir()
        rescue = {
            "evidence": {"directory": "forensics"},
            "incident": {"github": {"repo": "acme/shop", "base_url": github.url}},
        }
        options.setdefault("rescue", rescue)
        new = Scene(fleet, directory, **options)
        new.environment["GITHUB_TOKEN"] = github.token
        made.append(new)
        return new

    yield make
    for one in made:
        for host in one.hosts:
            if not host.running:
                host.boot()
            host.heal_network()
            host.run(["systemctl", "stop", one.unit], check=False)
