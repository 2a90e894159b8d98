"""The steps for a compose stack, on an engine that remembers what it was told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deployguard.onhost.compose import stack as compose
from deployguard.onhost.compose.containers import EngineFailed, find_tool
from tests.onhost.fake_engine import FakeEngine, container

BASE = {"act": "containers", "engine": "docker", "project": "shop", "env": {}, "timeout": 10.0}
LEVELS = [["db", "cache"], ["api"], ["web"]]


def _perform(engine: FakeEngine, verb: str, **more: Any) -> None:
    compose.perform({**BASE, "record": "/nowhere", "verb": verb, **more}, engine)


def _told(engine: FakeEngine, word: str) -> list[list[str]]:
    return [words for words in engine.told if words[0] == word]


def test_stop_goes_from_those_who_need_to_those_who_are_needed() -> None:
    """What the file does not know is stopped first; what is down stays down."""
    services = ["db", "api", "web", "orphan"]
    engine = FakeEngine(*(container(name) for name in services), container("cache", "exited"))
    _perform(engine, "stop", levels=LEVELS, grace=3)
    assert _told(engine, "stop") == [
        ["stop", "-t", "3", f"id-{name}-1"] for name in ("orphan", "web", "api", "db")
    ]
    engine.told.clear()
    _perform(engine, "stop", levels=LEVELS, grace=None)
    assert engine.told == []


def test_a_loop_is_stopped_too() -> None:
    """A container between two of its starts is not running, and would come back."""
    engine = FakeEngine(container("api", "restarting"))
    _perform(engine, "stop", levels=[], grace=None)
    assert engine.containers[0]["State"]["Status"] == "exited"


def test_what_does_not_stop_is_said() -> None:
    """After three times."""
    engine = FakeEngine(container("api"))
    engine.stubborn.add("id-api-1")
    with pytest.raises(EngineFailed, match="shop_api_1 would not stop"):
        _perform(engine, "stop", levels=[], grace=None)


def test_an_engine_that_comes_up_late_is_waited_for() -> None:
    """After a boot it may start after us."""
    engine = FakeEngine(container("api"))
    engine.down = 20
    _perform(engine, "stop", levels=[], grace=None)
    assert engine.containers[0]["State"]["Status"] == "exited"
    engine.down = 10**6
    with pytest.raises(EngineFailed, match="Is the docker daemon running"):
        _perform(engine, "stop", levels=[], grace=None)


def _start(engine: FakeEngine, running: dict[str, int], healthy: list[str]) -> None:
    _perform(engine, "start", levels=LEVELS, running=running, healthy=healthy, patience=5.0)


def test_start_brings_back_those_that_ran_in_order() -> None:
    """Not those that did not, and no more of a service than there were."""
    two = [container("api", "created", number=number) for number in (2, 1)]
    names = ["db", "cache", "web"]
    engine = FakeEngine(*(container(name, "created") for name in names), *two)
    _start(engine, {"db": 1, "cache": 0, "api": 1, "web": 1}, [])
    assert engine.told == [["start", f"id-{name}-1"] for name in ("db", "api", "web")]


def test_start_waits_for_what_was_healthy_and_for_nothing_else() -> None:
    """What was not healthy before the deploy must not hold up what runs beside it."""
    engine = FakeEngine(
        container("db", "created", health="starting"),
        container("api", "created", health="starting"),
    )
    began = engine.time
    _start(engine, {"db": 1, "api": 1}, [])
    assert engine.time == began
    _start(engine, {"db": 1, "api": 1}, ["db"])
    assert 5.0 <= engine.time - began < 6.0, "as long as its patience lasts"
    assert [words[1] for words in engine.told[-2:]] == ["id-db-1", "id-api-1"]


def test_a_start_that_fails_starts_the_others() -> None:
    """And says which could not be started."""
    engine = FakeEngine(container("db", "created"))
    with pytest.raises(EngineFailed, match="api: 0 of 1 containers are there"):
        _start(engine, {"db": 1, "api": 1}, [])
    assert engine.told == [["start", "id-db-1"]]


def test_clear_leaves_only_what_the_old_stack_had() -> None:
    """Its containers hold its volumes; what is new goes, with its networks."""
    engine = FakeEngine(container("api"), container("new"))
    engine.networks = ["shop_default", "shop_new"]
    _perform(engine, "clear", keep=["api"], networks=["shop_default"], levels=[], grace=None)
    assert [one["Id"] for one in engine.containers] == ["id-api-1"]
    assert engine.networks == ["shop_default"]


def test_names_lead_back_to_the_images_they_led_to() -> None:
    """Only those that were led elsewhere are told."""
    engine = FakeEngine()
    engine.images = {"api:latest": "sha256:new", "db:latest": "sha256:db1"}
    _perform(engine, "retag", tags={"api": "api1", "db:latest": "db1"})
    assert engine.told == [["tag", "api1", "api"]]
    assert engine.images["api:latest"] == "api1"


def test_forget_removes_what_the_new_file_does_not_have(tmp_path: Path) -> None:
    """Only what was of the old stack, and stopped."""
    record = tmp_path / "app.stack"
    record.write_text(json.dumps({"started": {}, "services": ["api"]}))
    engine = FakeEngine(
        container("api", "exited"), container("old", "exited"), container("stranger", "exited")
    )
    _perform(engine, "forget", services=["api", "old"], record=str(record))
    assert engine.told == [["rm", "id-old-1"]]


def test_one_off_containers_are_no_part_of_the_stack() -> None:
    """`compose run` leaves them behind."""
    engine = FakeEngine(container("api", oneoff=True))
    _perform(engine, "stop", levels=[], grace=None)
    assert engine.told == []


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder for programs, and nothing else in PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


def _program(folder: Path, name: str) -> None:
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(0o755)


def test_the_first_tool_that_is_there(programs: Path, tmp_path: Path) -> None:
    """A plugin counts when docker finds it, and a tool without its engine does not."""
    env = {"PATH": str(programs), "HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path)}
    with pytest.raises(EngineFailed, match="there is no docker compose, docker-compose or podman"):
        find_tool("auto", env)
    _program(programs, "podman-compose")
    with pytest.raises(EngineFailed, match="podman-compose is there and podman is not"):
        find_tool("auto", env)
    _program(programs, "podman")
    assert find_tool("auto", env) == (["podman-compose"], "podman")
    _program(programs, "docker")
    _program(programs, "docker-compose")
    assert find_tool("auto", env) == (["docker-compose"], "docker")
    with pytest.raises(EngineFailed, match="there is no docker compose on the host"):
        find_tool("docker compose", env)
    (tmp_path / "cli-plugins").mkdir()
    _program(tmp_path / "cli-plugins", "docker-compose")
    assert find_tool("auto", env) == (["docker", "compose"], "docker")
    assert find_tool("podman-compose", env).engine == "podman"


def test_a_daemon_that_is_down_is_said_with_its_mend(programs: Path, tmp_path: Path) -> None:
    """Before anything is touched; `look` refuses with it."""
    _program(programs, "docker")
    _program(programs, "docker-compose")
    engine = FakeEngine()
    engine.down = 10**6
    env = {"PATH": str(programs), "HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path)}
    question = {
        "field": "stack",
        "kind": "compose",
        "tool": "auto",
        "project": "shop",
        "directory": str(tmp_path),
        "env": env,
        "record": str(tmp_path / "app.stack"),
    }
    refused = compose.observe(question, engine)["refused"]
    assert "Is the docker daemon running?" in refused["message"]
    assert "systemctl start docker" in refused["hint"]


def test_a_tool_of_another_engine_is_refused(programs: Path, tmp_path: Path) -> None:
    """Two engines would run the stack twice; with nothing there it is the plan's from now on."""
    for name in ("docker", "docker-compose", "podman", "podman-compose"):
        _program(programs, name)
    record = tmp_path / "app.stack"
    env = {"PATH": str(programs), "HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path)}
    call = {"tool": "docker-compose", "project": "shop", "directory": str(tmp_path), "env": env}
    record.write_text(json.dumps({"started": call, "services": ["api"]}))
    question = {"field": "stack", "kind": "compose", **call, "record": str(record)}
    wanted = {**question, "tool": "podman-compose"}
    refused = compose.observe(wanted, FakeEngine(container("api")))["refused"]
    said = "project shop runs under docker, and the plan's tool is podman-compose"
    assert (refused["message"], "take it down there" in refused["hint"]) == (said, True)
    observed = compose.observe(wanted, FakeEngine())
    assert (observed["tool"], observed["engine"]) == (["podman-compose"], "podman")
    # The one that started it is gone from the host: the plan's has to do.
    (programs / "docker-compose").unlink()
    assert compose.observe(wanted, FakeEngine())["next"]["tool"] == ["podman-compose"]
