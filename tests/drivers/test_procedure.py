"""The order of a procedure, and of its undo: one list, read forwards and backwards."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deployguard.drivers.base import Operation, Site
from deployguard.drivers.procedure import build
from deployguard.plan.model import Component, Task

ORDER = ["db", "api", "web"]


def _component(name: str, **changes: Any) -> Component:
    unit = {"unit": f"{name}.service", "unit_file": f"{name}.service", "enable": True}
    fields = {"artifact": "x", "path": f"/srv/{name}", "service": {"systemd": unit}}
    return Component.model_validate({**fields, **changes})


def _site(name: str, component: Component, **changes: Any) -> Site:
    live = f"/srv/{name}" if component.layout == "in_place" else f"/srv/{name}/current"
    tree = f"/srv/.{name}.deployguard/t1"
    fields: dict[str, Any] = {
        "tree": tree,
        "beside": tree if component.layout == "in_place" else f"/srv/{name}/.current.t1",
        "files": {f"/etc/systemd/system/{name}.service": f"/etc/systemd/system/.{name}.new"},
    }
    return Site(name, component.layout, live, **{**fields, **changes})


def _observed(state: str = "active", enabled: str = "") -> dict[str, Any]:
    return {"unit": {"ActiveState": state, "UnitFileState": enabled, "LoadState": "loaded"}}


def _build(tasks: tuple[Task, ...] = (), **changes: Any) -> list[Operation]:
    components = {name: _component(name, **changes) for name in ORDER}
    sites = {name: _site(name, components[name]) for name in ORDER}
    return build(components, ORDER, sites, {name: _observed() for name in ORDER}, tasks)


def _task(name: str, at: str, **changes: Any) -> Task:
    return Task.model_validate(
        {"name": name, "run": [name], "undo": ["un" + name], "at": at, **changes}
    )


def _words(actions: list[dict[str, Any]]) -> list[str]:
    return [" ".join(action.get("argv", [action["act"]])) for action in actions]


def test_the_order_of_a_deploy() -> None:
    """Tasks, stops against the dependencies, snapshots, swaps, reloads, starts along them."""
    tasks = tuple(_task(f"task-{at}", at) for at in ("after_start", "before_start", "before_stop"))
    identifiers = [operation["id"] for operation in _build(tasks)]
    each = {
        "stop": [f"{name}:stop" for name in reversed(ORDER)],
        "snapshot": [f"{name}:snapshot" for name in ORDER],
        "before": [f"{name}:reload-undo" for name in ORDER],
        "swap": [
            f"{name}:{what}"
            for name in ORDER
            for what in (f"file:/etc/systemd/system/{name}.service", "tree")
        ],
        "after": [f"{name}:{what}" for name in ORDER for what in ("reload", "enable")],
        "start": [f"{name}:start" for name in ORDER],
    }
    assert identifiers == [
        "task:task-before_stop",
        *each["stop"],
        *each["snapshot"],
        *each["before"],
        *each["swap"],
        *each["after"],
        "task:task-before_start",
        *each["start"],
        "task:task-after_start",
    ]


def test_the_order_of_the_way_back() -> None:
    """Backwards: stop what is new, against the dependencies, swap, reload, start what was."""
    undone = [
        word
        for operation in reversed(_build())
        for word in _words(operation["undo"])
        if "reset-failed" not in word
    ]
    assert undone == [
        *(f"systemctl stop {name}.service" for name in ("web", "api", "db")),
        *("systemctl disable web.service", "systemctl disable api.service"),
        "systemctl disable db.service",
        *["swap_back", "swap_back"] * 3,
        *["systemctl daemon-reload"] * 3,
        *(f"systemctl start {name}.service" for name in ORDER),
    ]


def test_kept_paths_cross_over_just_before_the_tree() -> None:
    """And come back just after it; a tree that was not there before has nothing to keep."""
    component = _component("web", layout="in_place", keep=["uploads/", "*.db"])
    for exists in (True, False):
        site = _site("web", component, exists=exists)
        procedure = build({"web": component}, ["web"], {"web": site}, {"web": _observed()})
        identifiers = [operation["id"] for operation in procedure]
        assert ("web:keep" in identifiers) == exists
        if exists:
            keep = procedure[identifiers.index("web:tree") - 1]
            (there,), (back,) = keep["do"], keep["undo"]
            assert keep["id"] == "web:keep" and there["patterns"] == ["uploads/", "*.db"]
            assert (there["source"], there["target"]) == (site.live, site.beside)
            assert (back["source"], back["target"]) == (site.beside, site.live)


def test_a_swap_and_its_undo_name_the_same_two() -> None:
    """What is exchanged is exchanged back."""
    for operation in _build():
        for do, undo in zip(operation["do"], operation["undo"], strict=False):
            if do["act"] == "swap":
                assert undo == {**do, "act": "swap_back"}


@pytest.mark.parametrize(
    ("at", "directory"),
    [
        ("before_stop", "/srv/.web.deployguard/t1"),
        ("before_start", "/srv/web/current"),
        ("after_start", "/srv/web/current"),
    ],
)
def test_a_task_of_a_component_runs_in_its_new_tree(at: str, directory: str) -> None:
    """Before the swap that stands beside the live one."""
    task = _task("migrate", at, component="web", env={"A": "1"}, timeout="7s")
    (found,) = [operation for operation in _build((task,)) if operation["component"] == "task"]
    (do,), (undo,) = found["do"], found["undo"]
    assert do == {
        "act": "run",
        "argv": ["migrate"],
        "timeout": 7.0,
        "env": {"A": "1"},
        "cwd": directory,
        "ok": [0],
    }
    assert undo == {**do, "argv": ["unmigrate"]}


def test_the_undo_of_a_task_is_run_once() -> None:
    """Nobody promises that a migration can be taken back twice; a driver has to."""
    for operation in _build((_task("migrate", "before_start"),)):
        assert operation.get("undo_once", False) == (operation["component"] == "task")


def test_a_task_without_an_inverse() -> None:
    """With ``undo_less`` there is nothing to undo."""
    task = Task.model_validate({"name": "warm", "run": ["warm"], "undo_less": "a cache"})
    (found,) = [operation for operation in _build((task,)) if operation["component"] == "task"]
    assert found["undo"] == []


def test_a_task_of_a_component_that_is_not_here() -> None:
    """A host without the component does not run its tasks."""
    components = {"db": _component("db")}
    sites = {"db": _site("db", components["db"])}
    task = _task("migrate", "before_start", component="web")
    procedure = build(components, ["db"], sites, {"db": _observed()}, (task,))
    assert not [operation for operation in procedure if operation["component"] == "task"]


def test_a_component_without_a_service() -> None:
    """Files only: a snapshot and a swap."""
    component = Component.model_validate({"artifact": "x", "path": "/srv/web"})
    site = _site("web", component, files={})
    procedure = build({"web": component}, ["web"], {"web": site}, {})
    assert [operation["id"] for operation in procedure] == ["web:snapshot", "web:tree"]


def test_it_is_data() -> None:
    """The whole procedure survives the journal, and every id is there once."""
    procedure = _build((_task("one", "before_stop"), _task("two", "after_start")))
    assert json.loads(json.dumps(procedure)) == procedure
    assert len({operation["id"] for operation in procedure}) == len(procedure)
