"""The good end: every host serves the new version, byte for byte the artifact."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.scenarios.conftest import MakeScene
from tests.scenarios.scene import Scene


def artifact_files(folder: Path) -> dict[bytes, str]:
    """What the release holds: file to sha256, read by the test itself."""
    return {
        str(path.relative_to(folder)).encode(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def deployed_files(scene: Scene, number: int = 0) -> dict[bytes, str]:
    """What the host has at the live path: file to sha256."""
    tree = scene.tree(scene.hosts[number])
    return {name: entry.content for name, entry in tree.items() if entry.kind == "file"}


@pytest.mark.parametrize("layout", ["releases", "in_place"])
def test_three_hosts_from_v1_to_v2(scene: MakeScene, layout: str) -> None:
    """A real release of 3,670 files: v2 is served and complete on all three, exit 0."""
    shop = scene(hosts=3, real=True, layout=layout)
    first = shop.apply("v1")
    assert first.code == 0, first
    assert len(artifact_files(shop.directory / "build" / "v1")) > 3_660
    second = shop.apply("v2")
    assert second.code == 0, second
    for number, host in enumerate(shop.hosts):
        served = shop.served(host)
        assert (served["version"], served["django"]) == ("v2", "5.2.7")
        assert deployed_files(shop, number) == artifact_files(shop.directory / "build" / "v2")
        assert shop.leftovers(host) == []
    assert {host["state"] for host in second.outcome["hosts"]} == {"committed"}


def test_the_same_again_changes_nothing(scene: MakeScene) -> None:
    """A second apply of what is live finds nothing to do and restarts nothing."""
    shop = scene(hosts=1)
    assert shop.apply("v1").code == 0
    show = ["systemctl", "show", shop.unit, "--property=MainPID,NRestarts"]
    before = shop.hosts[0].run(show).stdout
    again = shop.apply("v1")
    assert again.code == 0 and again.outcome["status"] == "unchanged"
    assert shop.hosts[0].run(show).stdout == before


def test_slow_start_that_makes_it(scene: MakeScene) -> None:
    """A start that takes two of its six seconds is waited for, and commits."""
    shop = scene(hosts=1)
    assert shop.apply("v1").code == 0
    slow = shop.apply("v2", fault="slow 2")
    assert slow.code == 0, slow
    assert shop.served(shop.hosts[0])["version"] == "v2"


def test_serial_batches_in_order(scene: MakeScene) -> None:
    """`serial: [1, 100%]`: the second batch switches after the first has passed its checks."""
    shop = scene(hosts=3, serial=[1, "100%"])
    done = shop.apply("v1")
    assert done.code == 0, done
    events = [line for line in done.lines if line.get("type") == "event"]
    steps = [(e["host"], e["phase"], e["status"]) for e in events]
    first_checked = steps.index(("web1", "check", "done"))
    for other in ("web2", "web3"):
        assert steps.index((other, "switch", "started")) > first_checked


def test_rollback_is_a_deploy_of_the_kept_version(scene: MakeScene) -> None:
    """`rollback` brings v1 back without its artifact, and can be rolled back itself."""
    shop = scene(hosts=2)
    assert shop.apply("v1").code == 0
    before = shop.tree(shop.hosts[0])
    assert shop.apply("v2").code == 0
    (shop.directory / f"{shop.name}-v1.tar.gz").unlink()
    back = shop.command("rollback", "plan.yaml", "--json")
    assert back.code == 0, back
    assert [shop.served(host)["version"] for host in shop.hosts] == ["v1", "v1"]
    after = shop.tree(shop.hosts[0])
    assert {k: v.content for k, v in after.items()} == {k: v.content for k, v in before.items()}
    forth = shop.command("rollback", "plan.yaml", "--to", "v2", "--json")
    assert forth.code == 0, forth
    assert shop.served(shop.hosts[1])["version"] == "v2"


def test_plan_shows_and_changes_nothing(scene: MakeScene) -> None:
    """`plan` names what would change, with exit 10 on request, and leaves the hosts alone."""
    shop = scene(hosts=1)
    assert shop.apply("v1").code == 0
    host = shop.hosts[0]
    before = (shop.tree(host), shop.unit_state(host), host.tree("/var/lib/deployguard/live"))
    shop.release("v2")
    shop.artifact("v2")
    shop.write_plan("v2")
    shown = shop.command("plan", "plan.yaml", "--json", "--detailed-exitcode")
    assert shown.code == 10, shown
    component = shown.outcome["hosts"][0]["components"][0]
    assert (component["version_live"], component["version_new"]) == ("v1", "v2")
    assert ["VERSION", 3] in component["changed"]
    assert component["bytes_to_send"] > 0 and component["restarts"] == [shop.unit]
    assert (
        shop.tree(host),
        shop.unit_state(host),
        host.tree("/var/lib/deployguard/live"),
    ) == before
