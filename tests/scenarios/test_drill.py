"""Drills on real hosts, over SSH and with systemd: what is reported is what the hosts are like."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from deployguard.drills.scenarios import SCENARIOS
from tests.scenarios.conftest import MakeScene
from tests.scenarios.scene import Result, Scene


def ready(scene: MakeScene, **options: Any) -> Scene:
    """Two hosts on which v1 is live; they may be drilled."""
    shop = scene(hosts=2, lease="5s", serial=1, **options)
    assert shop.apply("v1").code == 0
    return shop


def drill(shop: Scene, version: str, *options: str, fault: str = "none") -> Result:
    """Drill with a version."""
    shop.release(version, fault=fault)
    shop.artifact(version)
    path = shop.write_plan(version)
    plan = yaml.safe_load(path.read_text())
    for host in plan["hosts"].values():
        host["drill"] = True
    path.write_text(yaml.safe_dump(plan, sort_keys=False))
    return shop.command("drill", "plan.yaml", "--json", *options)


def only(*names: str) -> list[str]:
    """The options that choose scenarios."""
    return [word for name in names for word in ("--only", name)]


def units(shop: Scene) -> list[bytes]:
    """Every unit of deployguard that systemd knows on a host."""
    listing = ["systemctl", "list-units", "--all", "--plain", "--no-legend", "deployguard-*"]
    return [host.run(listing).stdout for host in shop.hosts]


def assert_as_before(shop: Scene, before: list[Any]) -> None:
    """Every host has its old tree and unit, serves it, and nothing is left of the drill."""
    for host, (tree, unit) in zip(shop.hosts, before, strict=True):
        assert shop.served(host)["version"] == "v1"
        assert shop.tree(host) == tree
        assert shop.unit_state(host) == unit
        assert shop.leftovers(host) == []
    assert units(shop) == [b"", b""]


def test_a_good_release(scene: MakeScene) -> None:
    """Killed, cut off and interrupted: each host is wholly old or new, and ends with v1."""
    shop = ready(scene)
    before = [(shop.tree(host), shop.unit_state(host)) for host in shop.hosts]
    names = (
        "controller-killed-after-switch",
        "controller-killed-after-decision",
        "program-killed-in-switch",
        "program-killed-with-controller",
        "connection-cut-after-vote",
        "interrupted-after-switch",
    )
    ran = drill(shop, "v2", *only(*names))
    assert ran.code == 0, ran
    ended = {(line["scenario"], line["host"]): line for line in ran.lines[:-1]}
    assert all(line["kept"] and line["happened"] for line in ended.values()), ran
    for name in names:
        both = {ended[name, host.name]["ended"] for host in shop.hosts}
        assert both == ({"new"} if name.endswith("decision") else {"old"})
    # The first host had voted and waited to be told; the second went back by itself.
    assert ended["controller-killed-after-switch", shop.hosts[0].name]["by"] == "recover"
    assert ended["controller-killed-after-switch", shop.hosts[1].name]["by"] == "host"
    assert ended["program-killed-with-controller", shop.hosts[1].name]["by"] == "host"
    assert_as_before(shop, before)


def test_a_broken_release(scene: MakeScene) -> None:
    """The hosts go back each time; what comes after the vote is not shown, and that is said."""
    shop = ready(scene)
    before = [(shop.tree(host), shop.unit_state(host)) for host in shop.hosts]
    names = ("bad-health", "program-killed-after-staging", "disk-full-at-vote")
    ran = drill(shop, "v2", *only(*names), fault="exit")
    assert ran.code == 0, ran
    assert all(line["kept"] and line["ended"] == "old" for line in ran.lines[:-1])
    happened = {line["scenario"]: line["happened"] for line in ran.lines[:-1]}
    # The first host fails alone; the second, which the faults befall, is not reached any more.
    assert happened == dict(zip(names, (False, True, False), strict=True))
    assert "not shown: the deploy ended before" in ran.text
    assert_as_before(shop, before)


def test_hosts_that_are_not_marked(scene: MakeScene) -> None:
    """One of two is not: exit code 5, it is named, and nothing was touched on either."""
    shop = ready(scene)
    path = shop.write_plan("v1")
    plan = yaml.safe_load(path.read_text())
    plan["hosts"][shop.hosts[0].name]["drill"] = True
    path.write_text(yaml.safe_dump(plan, sort_keys=False))
    listing = ["ls", "/var/lib/deployguard/transactions"]
    before = [host.run(listing).stdout for host in shop.hosts]
    ran = shop.command("drill", "plan.yaml")
    assert ran.code == 5
    assert f"not marked `drill: true`: {shop.hosts[1].name}; nothing was touched" in ran.text
    assert [host.run(listing).stdout for host in shop.hosts] == before


@pytest.mark.slow
def test_every_scenario(scene: MakeScene) -> None:
    """All of them, with files that the host keeps in the tree."""
    shop = ready(scene, layout="in_place")
    ran = drill(shop, "v2")
    assert ran.code == 0, ran
    lines = ran.lines[:-1]
    assert [line["scenario"] for line in lines[::2]] == [s.name for s in SCENARIOS]
    assert all(line["kept"] and line["happened"] for line in lines), ran
    assert units(shop) == [b"", b""]
