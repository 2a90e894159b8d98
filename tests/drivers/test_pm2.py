"""What is particular to PM2: names and ecosystem files, its saved state, and whose PM2 it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployguard.drivers.base import Operation, Site, Steps
from deployguard.drivers.pm2 import Pm2Driver
from deployguard.errors import ActionFailed
from deployguard.plan.model import Component
from deployguard.testing import DriverCase, Trial
from tests.drivers import services
from tests.drivers.cases import pm2, pm2_case
from tests.fleet import Fleet
from tests.fleet import Host as Machine

SITE = Site("api", "releases", "/srv/api/current", "/srv/api/releases/v2", "/srv/api/.c")
APPS = {"api": {"stopped": 0}, "job": {"stopped": 2}}


def _component(layout: str = "releases", **service: Any) -> Component:
    block = {"name": "api", **service}
    return Component.model_validate(
        {"artifact": "x", "path": "/srv/api", "layout": layout, "service": {"pm2": block}}
    )


def _steps(saved: str | None = None, layout: str = "releases", **service: Any) -> Steps:
    observed = {"pm2": {"running": True, "apps": APPS, "saved": [saved, None]}}
    return Pm2Driver().steps("api", _component(layout, **service), SITE, observed)


def _done(operation: Operation, side: str = "do") -> list[str]:
    """Its actions in words, as PM2's command line has them."""
    return [" ".join([action["verb"], *action.get("argv", [])]) for action in operation[side]]


def test_a_process_that_pm2_knows_is_stopped_and_restarted() -> None:
    """Its count of restarts begins anew, or an old one would count as the new version's."""
    (stop,), (start,) = _steps().stop, _steps().start
    assert (_done(stop), _done(stop, "undo")) == (["stop"], ["restore"])
    assert (_done(start), _done(start, "undo")) == (["reset", "run restart api"], ["stop"])
    assert stop["undo"][0]["stopped"] == {"api": 0, "job": 2}
    assert start["undo_always"]


def test_one_from_a_file_is_deleted_and_started_anew() -> None:
    """PM2 takes no new script and no new number of processes from a file on a restart."""
    steps = _steps(ecosystem="eco.config.js", ecosystem_env="production", name=["api", "job"])
    (stop,), (start,) = steps.stop, steps.start
    assert (_done(stop), _done(start, "undo")) == (["delete"], ["delete"])
    file = "/srv/api/current/eco.config.js"
    assert _done(start) == [
        f"run start {file} --only api,job --cwd /srv/api/current --env production"
    ]


def test_where_a_file_is_started() -> None:
    """In the tree, or where the host has it; the link of a release is not to be followed."""
    (start,) = _steps(layout="in_place", ecosystem="deploy/eco.config.js").start
    assert start["do"][0]["cwd"] == SITE.live and "--cwd" not in start["do"][0]["argv"]
    (start,) = _steps(ecosystem="/etc/app/eco.config.js").start
    assert start["do"][0]["cwd"] == "/etc/app" and "--cwd" not in start["do"][0]["argv"]


def test_a_reload_stops_nothing() -> None:
    """But the way back stops the new version, as every way back does."""
    steps = _steps(action="reload", name=["api", "job"])
    (stop,), (start,) = steps.stop, steps.start
    assert (_done(stop), _done(stop, "undo")) == ([], ["restore"])
    assert _done(start) == ["reset", "run reload api", "run reload job"]
    assert _done(start, "undo") == ["stop"]
    assert Pm2Driver().process_probe(_component(action="reload"), SITE)["reloaded"]


@pytest.mark.parametrize(
    ("service", "saved", "saves"),
    [
        ({}, "digest", False),
        ({"ecosystem": "a.json"}, "digest", True),
        ({"ecosystem": "a.json"}, None, False),
        ({"ecosystem": "a.json", "save": False}, "digest", False),
        ({"save": True}, None, True),
    ],
)
def test_when_the_list_is_saved(service: dict[str, Any], saved: str | None, saves: bool) -> None:
    """What a boot would start is brought up to date, where somebody relies on it."""
    (start,) = _steps(saved, **service).start
    assert ("run save" in _done(start)) == saves


def test_no_environment_of_ours() -> None:
    """What the plan names goes to the start, and to nothing else."""
    (start,) = _steps(ecosystem="a.json", env={"A": "b"}, save=True).start
    assert [action.get("env") for action in start["do"]] == [{"A": "b"}, None]


# -- on a real host ----------------------------------------------------------------------------


@pytest.fixture
def machine(fleet: Fleet) -> Iterator[Machine]:
    """A host whose deploy user has a PM2 of its own, empty again afterwards."""
    machine = fleet.hosts[0]
    yield machine
    pm2(machine, "kill")
    machine.run(["rm", "-rf", f"/home/{machine.user}/.pm2"])


def by_name(case: DriverCase) -> DriverCase:
    """The same case with a service that names a process, and no file that starts it."""
    return replace(case, component=_with(case, {"ecosystem": None}))


def started_by_hand(machine: Machine, case: DriverCase, *words: str) -> str:
    """v1 in its place, started as people do it; the name of the process."""
    component = case.component("v1")
    assert component.service is not None and component.service.pm2 is not None
    (name,) = component.service.pm2.names
    for path in case.release("v1").iterdir():
        machine.write(f"{component.path}/{path.name}", path.read_bytes(), owner=machine.user)
    number = name.removeprefix("conform")
    script = f"{component.path}/server.js"
    done = pm2(machine, "start", script, "--name", name, *words, "--", number)
    assert done.returncode == 0, done.stdout.decode()
    case.await_served("v1")
    return name


def listed(machine: Machine, name: str) -> list[dict[str, Any]]:
    """What PM2 has under a name."""
    text = pm2(machine, "jlist").stdout.decode()
    found: list[dict[str, Any]] = json.loads(text[text.index("[{") :])
    return [entry for entry in found if entry["name"] == name]


def test_a_process_that_somebody_started_by_hand(
    fleet: Fleet, machine: Machine, tmp_path: Path
) -> None:
    """It keeps its number, its arguments and its environment, there and back; nobody is root."""
    case = by_name(pm2_case(fleet, machine, tmp_path, become=False, layout="in_place"))
    name = started_by_hand(machine, case, "--node-args=--no-warnings", "--max-restarts=3")
    (before,) = listed(machine, name)
    with Trial(case, "v2") as trial:
        trial.switch()
        case.await_served("v2")
        (during,) = listed(machine, name)
        assert trial.restore()["state"] == "restored"
    case.await_served("v1")
    (after,) = listed(machine, name)
    for entry in (during, after):
        assert (entry["pm_id"], entry["pid"] != before["pid"]) == (before["pm_id"], True)
        for field in ("args", "node_args", "pm_exec_path", "max_restarts", "pm_cwd"):
            assert entry["pm2_env"][field] == before["pm2_env"][field]
    assert after["pm2_env"]["restart_time"] == 0


def test_the_saved_list_comes_back_byte_for_byte(
    fleet: Fleet, machine: Machine, tmp_path: Path
) -> None:
    """And the one before it; meanwhile a boot would have started the new version."""
    case = pm2_case(fleet, machine, tmp_path)
    case.deploy("v1")
    files = [f"/home/{machine.user}/.pm2/dump.pm2{ending}" for ending in ("", ".bak")]
    for _ in files:
        assert pm2(machine, "save").returncode == 0
    before = [(machine.read(file), machine.path(file).stat().st_mtime_ns) for file in files]
    with Trial(case, "v2") as trial:
        trial.switch()
        case.await_served("v2")
        assert b'"RELEASE": "v2"' in machine.read(files[0])
        assert trial.restore()["state"] == "restored"
    assert [(machine.read(file), machine.path(file).stat().st_mtime_ns) for file in files] == before
    case.await_served("v1")
    # What was kept for it holds environments, and is gone; so is what PM2 was given to read.
    folder = f"/var/lib/deployguard/transactions/{trial.identifier}"
    find = ["find", folder, f"/home/{machine.user}/.pm2", "("]
    kept = machine.run([*find, "-name", "kept-*", "-o", "-name", "*.deployguard", ")"])
    assert kept.stdout == b""


def test_the_daemon_dies_in_the_trial(fleet: Fleet, machine: Machine, tmp_path: Path) -> None:
    """With all that it ran: the old processes are resurrected by another one."""
    case = pm2_case(fleet, machine, tmp_path)
    case.deploy("v1")
    with Trial(case, "v2") as trial:
        trial.switch()
        case.await_served("v2")
        pm2(machine, "kill")
        case.await_served(None)
        assert trial.restore()["state"] == "restored"
    case.await_served("v1")


def test_a_new_file_counts_whole_and_the_old_environment_comes_back(
    fleet: Fleet, machine: Machine, tmp_path: Path
) -> None:
    """Another number of processes, another environment; nothing of a session gets into it."""
    case = pm2_case(fleet, machine, tmp_path)
    case.deploy("v1")
    component = case.component("v1")
    assert component.service is not None and component.service.pm2 is not None
    (name,) = component.service.pm2.names
    number = int(name.removeprefix("conform"))
    services.node_release(tmp_path, "v2", name, number, instances=3)
    with Trial(case, "v2") as trial:
        trial.switch()
        case.await_served("v2")
        new = listed(machine, name)
        assert [entry["pm2_env"]["exec_mode"] for entry in new] == ["cluster_mode"] * 3
        environment = new[0]["pm2_env"]["env"]
        assert environment["RELEASE"] == "v2" and environment["HOME"] == f"/home/{machine.user}"
        assert not {"SUDO_USER", "SSH_CONNECTION", "XDG_SESSION_ID"} & set(environment)
        assert trial.restore()["state"] == "restored"
    (old,) = listed(machine, name)
    assert old["pm2_env"]["env"]["RELEASE"] == "v1"
    case.await_served("v1")


#: What is asked for, by root or not, and what is said to it.
CANNOT_BE = [
    (True, {"name": "no-such"}, "knows no process no-such; it has conform"),
    (True, {"program": "/opt/pm2"}, "/opt/pm2 is not there"),
    (True, {"user": "nobody-here"}, "the host has no user nobody-here"),
    (True, {"user": None}, "PM2 of root (/root/.pm2) knows no process conform"),
    (False, {"user": "root"}, "PM2 of root cannot be used by deploy"),
]


def test_what_cannot_be_met_is_one_error_before_anything_is_touched(
    fleet: Fleet, machine: Machine, tmp_path: Path
) -> None:
    """A name, a program, a user that are not there; no daemon is started to find out."""
    first = by_name(pm2_case(fleet, machine, tmp_path, layout="in_place"))
    name = started_by_hand(machine, first)
    before = machine.tree(first.component("v1").path)
    for become, service, words in CANNOT_BE:
        case = pm2_case(fleet, machine, tmp_path, become=become, layout="in_place")
        with pytest.raises(ActionFailed) as refused:
            Trial(replace(case, component=_with(first, service)), "v2")
        assert refused.value.kind == "refused"
        assert words in refused.value.reason
        if service == {"user": None}:
            assert f"of {machine.user} (/home/{machine.user}/.pm2)" in refused.value.hint
    assert machine.tree(first.component("v1").path) == before
    assert first.served() == "v1" and listed(machine, name)
    assert not machine.path("/root/.pm2").exists()


def _with(case: DriverCase, service: dict[str, Any]) -> Callable[[str], Component]:
    """The component with something else in its service block."""

    def component(version: str) -> Component:
        whole = case.component(version)
        assert whole.service is not None and whole.service.pm2 is not None
        other = whole.service.pm2.model_copy(update=service)
        return whole.model_copy(update={"service": whole.service.model_copy(update={"pm2": other})})

    return component
