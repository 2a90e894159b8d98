"""What is said of a stack and of its services, from what an engine says of containers."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from deployguard.onhost.probes import healthcheck, registry
from deployguard.onhost.probes.base import Sample
from deployguard.onhost.together import Together
from tests.onhost.fake_engine import FakeEngine, container


@pytest.fixture
def manager(tmp_path: Path) -> dict[str, Any]:
    """How the host asks; `docker` is only looked for, never run."""
    for name in ("docker", "docker-compose"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    env = {"PATH": str(tmp_path), "HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path)}
    record = str(tmp_path / "app.stack")
    return {"driver": "compose", "tool": "auto", "project": "shop", "env": env, "record": record}


def _check(kind: str, manager: dict[str, Any], **more: Any) -> Any:
    times = {"timeout": 5.0, "interval": 0.5, "deadline": 10.0, "min_healthy_time": 0.0}
    names = {"id": f"shop/{kind}", "component": "shop", "name": kind, "critical": True}
    return {"kind": kind, "manager": manager, **names, **times, **more}


def _stack(engine: FakeEngine, manager: dict[str, Any]) -> Sample:
    return registry.sample(_check("process", manager), engine)


def _service(engine: FakeEngine, manager: dict[str, Any], name: str = "api") -> Sample:
    return registry.sample(_check("container", manager, service=name), engine)


def test_all_services_run(manager: dict[str, Any]) -> None:
    """Whatever their health checks say: that is another layer."""
    engine = FakeEngine(container("api", health="unhealthy"), container("db"))
    found = _stack(engine, manager)
    assert found["state"] == "healthy"
    assert found["message"] == "2 of 2 services run"
    assert found["observed"]["down"] == []


def test_a_service_that_is_down_is_named(manager: dict[str, Any]) -> None:
    """With how it ended; one that ended for good will not come up by itself."""
    engine = FakeEngine(container("api", "exited", exit_code=3), container("db"))
    found = _stack(engine, manager)
    assert found["state"] == "unhealthy" and found["final"]
    assert found["message"] == "api ended with status 3"
    engine = FakeEngine(container("api", "restarting", exit_code=1), container("db"))
    found = _stack(engine, manager)
    assert not found["final"]
    assert found["message"] == "api restarts over and over, exit status 1"


def test_the_record_knows_the_services(manager: dict[str, Any]) -> None:
    """One without any container is down; a container of no service of the file is nobody's."""
    record = {"started": {}, "services": ["api", "db"]}
    Path(manager["record"]).write_text(json.dumps(record))
    engine = FakeEngine(container("db"), container("orphan", "exited", exit_code=1))
    found = _stack(engine, manager)
    assert found["message"] == "api has no container"
    assert found["observed"]["down"] == ["api"]


def test_a_stack_without_containers(manager: dict[str, Any]) -> None:
    """Is down, and not unknown."""
    found = _stack(FakeEngine(), manager)
    assert found["state"] == "unhealthy"
    assert found["message"] == "project shop has no container"


def test_an_engine_that_does_not_answer_is_unknown(manager: dict[str, Any]) -> None:
    """Nobody knows then."""
    engine = FakeEngine(container("api"))
    engine.down = 10
    assert _stack(engine, manager)["state"] == "unknown"
    assert _service(engine, manager)["state"] == "unknown"


def test_one_shot_services_may_end(manager: dict[str, Any]) -> None:
    """With status 0, and their end is no restart."""
    manager["one_shot"] = ["migrate"]
    engine = FakeEngine(container("api"), container("migrate", "exited"))
    found = _stack(engine, manager)
    assert found["state"] == "healthy" and "migrate" not in found["observed"]["instance"]
    engine = FakeEngine(container("api"), container("migrate", "exited", exit_code=1))
    assert _stack(engine, manager)["message"] == "migrate ended with status 1"


def test_every_start_is_another_instance(manager: dict[str, Any]) -> None:
    """A container keeps its id when it is started again."""
    first = _stack(FakeEngine(container("api", restarts=1)), manager)["observed"]
    again = container("api", restarts=2, started="2026-01-01T00:00:09Z")
    second = _stack(FakeEngine(again), manager)["observed"]
    assert (first["restarts"], second["restarts"]) == (1, 2)
    assert first["instance"] != second["instance"]


@pytest.mark.parametrize(
    ("state", "health", "healthy", "words"),
    [
        ("running", None, True, "api runs, and has no health check of its own"),
        ("running", "healthy", True, "api is healthy"),
        ("running", "starting", False, "the container of api says starting"),
        ("running", "unhealthy", False, "the container of api says unhealthy: curl: not found"),
        ("exited", "healthy", False, "api ended with status 0"),
        ("created", None, False, "api is created"),
    ],
)
def test_a_service(
    manager: dict[str, Any], state: str, health: str | None, healthy: bool, words: str
) -> None:
    """It runs, and its own health check passes where it has one."""
    more = {} if health is None else {"health": health, "test": ["CMD-SHELL", "curl -f x"]}
    if health == "unhealthy":
        more["said"] = "/bin/sh: 1\ncurl: not found\n"
    found = _service(FakeEngine(container("api", state, **more)), manager)
    assert (found["state"] == "healthy") is healthy
    assert found["message"] == words
    if health in ("healthy", "unhealthy") and state == "running":
        assert found["observed"]["test"] == "curl -f x"


def test_a_service_without_container(manager: dict[str, Any]) -> None:
    """Cannot come up by itself."""
    found = _service(FakeEngine(container("db")), manager)
    assert found["final"] and found["message"] == "api has no container"


def test_what_was_down_before_need_not_come_up(manager: dict[str, Any]) -> None:
    """A restore is judged against the baseline, service by service."""
    engine = FakeEngine(container("api", "restarting"), container("db"), container("web"))
    check = _check("process", manager)
    baseline = healthcheck.watch([check], engine, mode="once")
    assert not baseline["healthy"]
    result = healthcheck.watch([check], engine, mode="restore", baseline=baseline)
    assert result["healthy"] and result["checks"][0]["required"]
    engine.containers[2]["State"]["Status"] = "exited"
    result = healthcheck.watch([check], engine, mode="restore", baseline=baseline)
    assert not result["healthy"]
    assert "web ended" in result["checks"][0]["message"]


def test_one_look_serves_all_who_ask_at_the_same_time() -> None:
    """Who asks while a look is under way waits for the next one, with all the others."""
    together = Together()
    begun, go_on = threading.Event(), threading.Event()
    calls: list[int] = []

    def look() -> int:
        calls.append(len(calls))
        begun.set()
        go_on.wait()
        return calls[-1]

    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(together.ask("shop", look)))
        for _ in range(6)
    ]
    threads[0].start()
    begun.wait()
    for thread in threads[1:]:
        thread.start()
    while (following := together._turns["shop"][1]) is None or following.asked < 5:
        time.sleep(0)
    go_on.set()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [0, 1, 1, 1, 1, 1]


def test_a_look_that_fails_fails_for_all() -> None:
    """With the same error, and the next one asks anew."""
    together = Together()

    def fail() -> None:
        raise OSError("no")

    for _ in range(2):
        with pytest.raises(OSError, match="no"):
            together.ask("shop", fail)
    assert together.ask("shop", lambda: 3) == 3
