"""What is particular to compose stacks: images, order, health, and three tools that differ."""

from __future__ import annotations

from typing import Any

import pytest

from deployguard.drivers.base import Operation, Site, Steps
from deployguard.drivers.compose import ComposeDriver
from deployguard.drivers.registry import driver_of
from deployguard.onhost.compose import stack as compose
from deployguard.plan.model import Component

SITE = Site("shop", "in_place", "/srv/shop", "/srv/.shop.deployguard/t", "/srv/.b", state="/state")


def _component(layout: str = "in_place", **service: Any) -> Component:
    return Component.model_validate(
        {"artifact": "x", "path": "/srv/shop", "layout": layout, "service": {"compose": service}}
    )


def _one(running: int = 1, containers: int = 1, healthy: bool = False) -> dict[str, Any]:
    return {"containers": containers, "running": running, "healthy": healthy}


def _seen(**more: Any) -> dict[str, Any]:
    stack = {
        "tool": ["docker-compose"],
        "engine": "docker",
        "version": "1.29.2",
        "services": {"db": _one(healthy=True), "api": _one(), "worker": _one(2, 2), "off": _one(0)},
        "levels": [["db"], ["api", "worker"], ["off"]],
        "images": {"db": "d1", "api": "a1", "worker": "a1", "off": "o1"},
        "refs": {"db": "postgres", "api": "shop/app", "worker": "shop/app", "off": "off"},
        "tags": {"postgres": "d1", "shop/app": "a2", "off": "o1"},
        "ids": ["1", "2", "3", "4", "5"],
        "networks": ["shop_default"],
        "recorded": None,
        **more,
    }
    return {"stack": stack}


def _steps(seen: dict[str, Any], component: Component | None = None, site: Site = SITE) -> Steps:
    return ComposeDriver().steps("shop", component or _component(), site, seen)


def _said(operation: Operation, side: str) -> list[str]:
    """Each action in a word or two: the verb, or what the tool is asked."""
    return [
        action["verb"] if action["act"] == "containers" else " ".join(action["argv"][3:])
        for action in operation[side]
    ]


def test_images_are_made_while_the_old_stack_runs() -> None:
    """In the new tree beside the live one, after the file was read by the host's own tool."""
    steps = _steps(_seen())
    hold, make = steps.prepare
    assert hold["do"][0]["images"] == _seen()["stack"]["images"]
    assert _said(make, "do") == ["config -q", "build"]
    assert {action["cwd"] for action in make["do"]} == {SITE.tree}
    steps = _steps(_seen(), _component(build=False, pull=True))
    assert _said(steps.prepare[1], "do") == ["config -q", "pull"]


def test_what_is_kept_is_waited_for() -> None:
    """A tree that lacks its `.env` until the swap cannot be read before it."""
    kept = Component.model_validate({**_component().model_dump(by_alias=True), "keep": [".env"]})
    steps = _steps(_seen(), kept)
    assert [operation["id"] for operation in steps.prepare] == ["shop:hold"]
    assert [operation["id"] for operation in steps.refresh_after] == ["shop:images"]
    assert steps.refresh_after[0]["do"][0]["cwd"] == "/srv/shop"


def test_a_restore_creates_and_then_starts_in_order() -> None:
    """No build, no pull, and no tool that waits for the health of what was never healthy."""
    undo = _steps(_seen()).stop[0]["undo"]
    assert _said({"undo": undo}, "undo") == [
        *("retag", "up --no-start --no-build --no-deps db"),
        *("retag", "up --no-start --no-build --scale=worker=2 --no-deps api worker"),
        *("retag", "up --no-start --no-build --no-deps off"),
        *("retag", "start"),
    ]
    assert undo[2]["tags"] == {"shop/app": "a1"}, "the image that ran, wherever its name leads now"
    assert undo[-2]["tags"] == _seen()["stack"]["tags"]
    start = undo[-1]
    assert start["levels"] == [["db"], ["api", "worker"], ["off"]]
    assert start["running"] == {"db": 1, "api": 1, "worker": 2, "off": 0}
    assert start["healthy"] == ["db"]


def test_the_new_tool_creates_all_at_once() -> None:
    """And can be told never to pull."""
    undo = _steps(_seen(tool=["docker", "compose"], version="2.26.1")).stop[0]["undo"]
    created = [action["argv"] for action in undo if action["act"] == "run"]
    assert len(created) == 1
    assert created[0][:4] == ["docker", "compose", "-p", "shop"]
    assert created[0][4:8] == ["up", "--no-start", "--no-build", "--pull=never"]


def test_the_new_tool_starts_what_it_puts_something_into() -> None:
    """Secrets and configs that are no files, and hooks, are its own; the older one has none."""
    seen = _seen(tool=["docker", "compose"], version="2.26.1", tended=["db"])
    start = _steps(seen).stop[0]["undo"][-1]
    assert (start["tended"], start["tool"]) == (["db"], ["docker", "compose"])
    assert start["started"]["project"] == "shop"
    assert "tended" not in _steps(_seen(tended=["db"])).stop[0]["undo"][-1]


def test_another_tool_for_the_new_stack() -> None:
    """What runs comes back with the tool that started it."""
    steps = _steps(_seen(next={"tool": ["docker", "compose"], "version": "2.26.1"}))
    up = steps.start[0]["do"][0]
    assert (up["tool"], up["by_level"]) == (["docker", "compose"], False)
    assert steps.prepare[1]["do"][0]["argv"][:2] == ["docker", "compose"]
    created = [action["argv"] for action in steps.stop[0]["undo"] if action["act"] == "run"]
    assert {argv[0] for argv in created} == {"docker-compose"} and len(created) == 3


def test_two_images_of_one_name() -> None:
    """One service was made anew after a build and the other was not: each gets its own again."""
    images = {"db": "d1", "api": "a2", "worker": "a1", "off": "o1"}
    undo = _steps(_seen(images=images, version="2.26.1")).stop[0]["undo"]
    created = [action["argv"][-3:] for action in undo if action["act"] == "run"]
    assert created == [["db", "api", "off"], ["--scale=worker=2", "--no-deps", "worker"]]
    led = [action["tags"].get("shop/app") for action in undo if action.get("verb") == "retag"]
    assert led == ["a2", "a1", "a2"]


def test_the_old_stack_is_started_as_it_was() -> None:
    """With the file, the project and the environment of then, not those of the plan."""
    started = {
        "tool": "auto",
        "project": "old",
        "directory": "/srv/shop",
        "files": ["stack.yml"],
        "env_file": None,
        "profiles": [],
        "env": {"RELEASE": "v1"},
        "record": "/state/services/shop.stack",
    }
    steps = _steps(_seen(started=started), _component(env={"RELEASE": "v2"}, file="compose.yaml"))
    create = steps.stop[0]["undo"][1]
    assert create["argv"][:5] == ["docker-compose", "-p", "old", "-f", "/srv/shop/stack.yml"]
    assert create["env"] == {"RELEASE": "v1"}
    up = steps.start[0]["do"][0]
    assert up["env"] == up["started"]["env"] == {"RELEASE": "v2"}
    assert up["by_level"], "docker-compose 1 asks for states where nothing is started"
    clear = steps.start[0]["undo"][0]
    assert (clear["project"], clear["keep"], clear["networks"]) == ("shop", [], [])


def test_podman_compose_makes_containers_anew() -> None:
    """It does not see what changed, and ends with 0 whatever happened."""
    steps = _steps(_seen(tool=["podman-compose"], engine="podman", version=""))
    assert _said(steps.start[0], "do") == ["drop", "up"]
    assert steps.stop[0]["undo"][0]["verb"] == "drop"
    assert steps.stop[0]["undo"][0]["ids"] == ["1", "2", "3", "4", "5"]
    assert _said(steps.prepare[1], "do") == ["build"]


def test_a_stack_that_is_stopped_stays_stopped() -> None:
    """Its containers come back all the same: they hold its volumes."""
    seen = _seen(services={"db": _one(0)}, levels=[["db"]])
    assert not ComposeDriver().running(seen)
    start = _steps(seen).stop[0]["undo"][-1]
    assert start["running"] == {"db": 0}


def test_the_first_deploy() -> None:
    """Nothing to stop, and everything goes that came."""
    seen = _seen(services={}, levels=[], images={}, networks=[])
    steps = _steps(seen)
    assert not steps.stop
    assert [operation["id"] for operation in steps.prepare] == ["shop:images"]
    clear = steps.start[0]["undo"][0]
    assert (clear["verb"], clear["keep"], clear["networks"]) == ("clear", [], [])


def test_two_plans_with_a_component_of_one_name() -> None:
    """What the host keeps of one stack is not taken for the other's."""
    found = {
        ComposeDriver().observe(_component().model_copy(update={"path": path}), SITE)[0]["record"]
        for path in ("/srv/shop", "/srv/wiki")
    }
    assert len(found) == 2
    assert {record.rpartition("/")[0] for record in found} == {"/state/services"}


@pytest.mark.parametrize(
    ("path", "layout", "service", "argv"),
    [
        ("/srv/shop", "in_place", {}, "-p shop"),
        ("/srv/My.Shop", "releases", {}, "-p myshop"),
        ("/srv/shop", "in_place", {"project": "live"}, "-p live"),
        ("/srv/shop", "in_place", {"file": ["a.yml", "b.yml"]},
         "-p shop -f /srv/shop/a.yml -f /srv/shop/b.yml"),
        ("/srv/shop", "releases", {"file": "deploy/a.yml", "env_file": "/etc/shop.env"},
         "-p shop -f /srv/shop/current/deploy/a.yml --env-file /etc/shop.env"),
        ("/srv/shop", "in_place", {"profiles": ["web"]}, "-p shop --profile web"),
    ],
)  # fmt: skip
def test_how_the_tool_is_asked(path: str, layout: str, service: dict[str, Any], argv: str) -> None:
    """The project is always named: `current` would be the name of every stack in releases."""
    component = Component.model_validate(
        {"artifact": "x", "path": path, "layout": layout, "service": {"compose": service}}
    )
    site = Site("shop", layout, "", "/t", "/b", state="/state")
    assert driver_of(component).name == "compose"
    up = ComposeDriver().steps("shop", component, site, {}).start[0]["do"][0]
    assert " ".join(compose.command(up["started"], up["tool"])) == f"docker compose {argv}"
    assert up["started"]["directory"] == (f"{path}/current" if layout == "releases" else path)
