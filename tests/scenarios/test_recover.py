"""What becomes of a deploy whose controller died, and who may say so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml

from tests.fleet.container import until
from tests.scenarios.conftest import MakeScene
from tests.scenarios.scene import Scene


def killed(shop: Scene, point: str) -> None:
    """Deploy v2 with a controller that dies at a point."""
    shop.release("v2")
    shop.artifact("v2")
    shop.write_plan("v2")
    faults = json.dumps({"controller": [{"point": point, "action": "kill"}]})
    result = shop.command("apply", "plan.yaml", environment={"DEPLOYGUARD_FAULTS": faults})
    assert result.code == -9, result


def history(shop: Scene) -> dict[str, Any]:
    """The newest transaction, as this controller remembers it."""
    return shop.command("history", "--json").lines[0]


def units(shop: Scene) -> list[str]:
    """What of deployguard's systemd knows on the hosts, and what stands in its directory."""
    found = []
    for host in shop.hosts:
        show = ["systemctl", "list-units", "--all", "--plain", "--no-legend", "deployguard*"]
        found += host.run(show).stdout.decode().split()
        find = ["find", "/etc/systemd/system", "-name", "deployguard*"]
        found += host.run(find).stdout.decode().split()
    return found


@pytest.mark.parametrize(
    ("point", "version", "status"),
    [
        ("after stage web1", "v1", "rolled_back"),
        ("after switch web1", "v1", "rolled_back"),
        ("after prepare web1", "v1", "rolled_back"),
        ("after decide", "v2", "committed"),
        ("after commit web1", "v2", "committed"),
    ],
)
def test_recover_at_once(scene: MakeScene, point: str, version: str, status: str) -> None:
    """It need not wait for the lease; the record of the decision stands; the history has it."""
    shop = scene(hosts=2)
    assert shop.apply("v1").code == 0
    before = [shop.tree(host) for host in shop.hosts]
    killed(shop, point)
    result = shop.command("recover", "plan.yaml", "--json")
    assert result.code == 0, result
    for host, tree in zip(shop.hosts, before, strict=True):
        assert shop.served(host)["version"] == version
        assert (shop.tree(host) == tree) == (version == "v1")
        assert shop.leftovers(host) == []
    assert until(lambda: not units(shop), time.monotonic() + 10), "\n".join(units(shop))
    assert history(shop)["status"] == status
    again = shop.command("recover", "plan.yaml", "--json")
    assert again.code == 0 and again.outcome["summary"] == "nothing is unfinished"


def test_nobody_comes(scene: MakeScene) -> None:
    """At the end of the lease both hosts are back by themselves; `recover` then tells of it."""
    shop = scene(hosts=2, lease="5s")
    assert shop.apply("v1").code == 0
    before = [shop.tree(host) for host in shop.hosts]
    killed(shop, "after switch web2")
    assert until(
        lambda: not any(shop.leftovers(host) for host in shop.hosts), time.monotonic() + 30
    ), [shop.leftovers(host) for host in shop.hosts]
    for host, tree in zip(shop.hosts, before, strict=True):
        assert shop.tree(host) == tree and shop.served(host)["version"] == "v1"
    assert until(lambda: not units(shop), time.monotonic() + 10), "\n".join(units(shop))
    assert history(shop)["status"] == "running"
    result = shop.command("recover", "plan.yaml", "--json")
    assert result.code == 0, result
    assert {host["state"] for host in result.outcome["hosts"]} == {"restored"}
    assert history(shop)["status"] == "rolled_back"


@contextmanager
def at_work(shop: Scene) -> Iterator[subprocess.Popen[str]]:
    """A deploy of a v2 that does not become healthy, and has a minute to do so."""
    shop.checks[2]["http"].update(deadline="60s")
    shop.release("v2", fault="unhealthy")
    shop.artifact("v2")
    shop.write_plan("v2")
    process = subprocess.Popen(
        [sys.executable, "-m", "deployguard", "apply", "plan.yaml", "--json"],
        cwd=shop.directory,
        env={**os.environ, **shop.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            event = json.loads(line)
            if (event.get("phase"), event.get("status")) == ("check", "started"):
                break
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_run_that_is_at_work_is_left_alone(scene: MakeScene) -> None:
    """Exit 6, with its owner's name; whoever insists takes it over, and the run ends with 7."""
    shop = scene(hosts=1)
    assert shop.apply("v1").code == 0
    before = shop.tree(shop.hosts[0])
    with at_work(shop) as process:
        refused = shop.command("recover", "plan.yaml", "--json")
        assert refused.code == 6, refused
        assert "is being run by" in refused.outcome["summary"]
        assert shop.tree(shop.hosts[0]) != before
        forced = shop.command("recover", "plan.yaml", "--json", "--force")
        assert forced.code == 0, forced
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 7, out
    assert shop.tree(shop.hosts[0]) == before and shop.served(shop.hosts[0])["version"] == "v1"
    assert shop.leftovers(shop.hosts[0]) == []


def test_a_debt_is_settled_first(scene: MakeScene) -> None:
    """A host that was cut off when the decision came hears of it from the next deploy."""
    shop = scene(hosts=2)
    assert shop.apply("v1").code == 0
    killed(shop, "before commit web2")
    third = shop.apply("v3")
    assert third.code == 0, third.text
    notes = [line["message"] for line in third.lines if line.get("status") == "note"]
    assert any("finished transaction" in note and "committed" in note for note in notes)
    for host in shop.hosts:
        assert shop.served(host)["version"] == "v3"
        assert shop.leftovers(host) == []


def test_from_another_machine_with_the_hosts_alone(scene: MakeScene) -> None:
    """No plan, no journal: every host answers and none has committed, so all of them go back."""
    shop = scene(hosts=2)
    assert shop.apply("v1").code == 0
    before = [shop.tree(host) for host in shop.hosts]
    killed(shop, "after prepare web1")
    hosts = {
        host.name: {
            "ansible_host": host.address,
            "ansible_user": host.user,
            "ansible_ssh_private_key_file": str(host.client_key),
            "ansible_become": True,
        }
        for host in shop.hosts
    }
    inventory = shop.directory / "inventory.yaml"
    inventory.write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    known = shop.directory / "elsewhere" / ".ssh"
    known.mkdir(parents=True)
    (known / "known_hosts").write_text(shop.hosts[0].known_hosts.read_text())
    elsewhere = {"HOME": str(known.parent), "DEPLOYGUARD_STATE": str(known.parent / "state")}
    result = shop.command("recover", "--hosts", str(inventory), "--json", environment=elsewhere)
    assert result.code == 0, result
    assert {host["state"] for host in result.outcome["hosts"]} == {"restored"}
    for host, tree in zip(shop.hosts, before, strict=True):
        assert shop.tree(host) == tree and shop.served(host)["version"] == "v1"
