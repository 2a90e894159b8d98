"""Several controllers, one journal in PostgreSQL: any of them finishes what another began."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet.fleet import Fleet
from tests.postgres import Postgres, a_server
from tests.scenarios.conftest import MakeScene
from tests.scenarios.scene import Result, Scene
from tests.scenarios.test_recover import killed


@pytest.fixture
def server(fleet: Fleet) -> Iterator[Postgres]:
    """A database in the network of the hosts, where the controllers are as well."""
    with a_server() as made:
        yield made


def elsewhere(shop: Scene) -> dict[str, str]:
    """The environment of another machine, with the same journal."""
    state = shop.directory / "elsewhere"
    return {"DEPLOYGUARD_STATE": str(state)}


@pytest.mark.parametrize(("point", "version"), [("before decide", "v1"), ("after decide", "v2")])
def test_another_controller_knows_the_decision(
    scene: MakeScene, server: Postgres, point: str, version: str
) -> None:
    """With one host out of reach it is not in doubt: the record says how it ends."""
    shop = scene(hosts=3)
    shop.environment["DEPLOYGUARD_JOURNAL"] = server.url
    first = shop.apply("v1", "--debug")
    assert first.code == 0, first.text
    killed(shop, point)
    shop.hosts[2].cut_network()
    early = shop.command("recover", "plan.yaml", "--json", environment=elsewhere(shop))
    assert early.code == 7, early
    states = {host["host"]: host["state"] for host in early.outcome["hosts"]}
    # No record, and a host that does not answer: whoever has voted waits.
    expected = "committed" if version == "v2" else "prepared"
    assert states == {"web1": expected, "web2": expected}
    shop.hosts[2].heal_network()
    late = shop.command("recover", "plan.yaml", "--json", environment=elsewhere(shop))
    assert late.code == 0, late
    for host in shop.hosts:
        assert shop.served(host)["version"] == version
        assert shop.leftovers(host) == []
    statuses = [line["status"] for line in shop.command("history", "--json").lines]
    assert statuses[0] == ("committed" if version == "v2" else "rolled_back")


@pytest.mark.slow
def test_the_database_is_gone_when_the_decision_is_made(scene: MakeScene, server: Postgres) -> None:
    """Not known is not decided: the hosts wait, exit 7; with the database back they are told."""
    shop = scene(hosts=2)
    shop.environment["DEPLOYGUARD_JOURNAL"] = server.url
    first = shop.apply("v1", "--debug")
    assert first.code == 0, first.text
    shop.checks[0]["process"].update(min_healthy_time="4s")
    shop.release("v2")
    shop.artifact("v2")
    shop.write_plan("v2")
    result = _stopped_when_switched(shop, server)
    assert result.code == 7, result
    assert "in doubt" in result.outcome["summary"] and "database" in result.outcome["summary"]
    server.start()
    again = shop.command("recover", "plan.yaml", "--json")
    assert again.code == 0, again
    assert len({shop.served(host)["version"] for host in shop.hosts}) == 1
    assert [shop.leftovers(host) for host in shop.hosts] == [[], []]


def _stopped_when_switched(shop: Scene, server: Postgres) -> Result:
    argv = [sys.executable, "-m", "deployguard", "apply", "plan.yaml", "--json"]
    said = Path(shop.directory, "said")
    with said.open("w") as stderr:
        process = subprocess.Popen(
            argv,
            cwd=shop.directory,
            env={**os.environ, **shop.environment},
            stdout=subprocess.PIPE,
            stderr=stderr,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        lines, stopped = [], False
        for line in process.stdout:
            lines.append(line)
            event = json.loads(line)
            if not stopped and (event.get("phase"), event.get("status")) == ("switch", "done"):
                server.stop()
                stopped = True
        code = process.wait(timeout=120)
    return Result(subprocess.CompletedProcess(argv, code, "".join(lines), said.read_text()))
