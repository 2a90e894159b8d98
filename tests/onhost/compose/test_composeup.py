"""A new stack starts as its file demands, or says what it waits for in vain."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from deployguard.onhost.compose import stack as compose
from deployguard.onhost.compose.containers import EngineFailed
from deployguard.onhost.system import Completed
from tests.onhost.fake_engine import FakeEngine, container

CONFIG = """\
services:
  api:
    depends_on:
      db:
        condition: service_healthy
      migrate:
        condition: service_completed_successfully
    image: api
  db:
    image: db
  debug:
    image: debug
    profiles:
    - debug
  migrate:
    depends_on:
      db:
        condition: service_started
    image: migrate
"""


class Stack(FakeEngine):
    """An engine with a tool that makes the containers it is asked for; they live as told."""

    def __init__(self, **lives: list[dict[str, Any]]) -> None:
        super().__init__()
        #: By service, what its container is after each look at it; the last stays.
        self.lives = lives
        self.asked: list[list[str]] = []
        self.config = CONFIG

    def run(self, argv: Any, **options: Any) -> Completed:
        """The tool, or the engine."""
        words = list(argv)
        if words[0] != "docker-compose":
            if words[1] == "inspect":
                self._live()
            return super().run(argv, **options)
        self.asked.append(words[3:])
        if "-d" in words:
            for one in self.containers:
                if f"-{words[-1]}-" in one["Id"]:
                    self.told.append(["start", one["Id"]])
                    one["State"]["Status"] = "running"
            return Completed(tuple(argv), 0, b"", b"", False, 0.0)
        if words[-1] == "config":
            return Completed(tuple(argv), 0, self.config.encode(), b"", False, 0.0)
        names = words[words.index("--no-deps") + 1 :] if "--no-deps" in words else []
        for name in names or re.findall(r"^  (\w+):", self.config, re.MULTILINE):
            self.containers.append(container(name, "created"))
        return Completed(tuple(argv), 0, b"", b"", False, 0.0)

    def _live(self) -> None:
        for number, one in enumerate(self.containers):
            name = one["Config"]["Labels"]["com.docker.compose.service"]
            if one["State"]["Status"] != "created" and self.lives.get(name):
                lives = self.lives[name]
                more = lives.pop(0) if len(lives) > 1 else lives[0]
                self.containers[number] = container(name, **{"state": "running", **more})

    def started(self) -> list[str]:
        """The services, in the order in which they were started."""
        return [words[1].split("-")[1] for words in self.told if words[0] == "start"]


def _up(engine: Stack, record: Path, **more: Any) -> None:
    call = {
        "project": "shop",
        "directory": str(record.parent),
        "files": [],
        "env_file": None,
        "profiles": [],
        "env": {},
    }
    base = {"engine": "docker", "project": "shop", "env": {}, "record": str(record), "verb": "up"}
    up = {"started": call, "tool": ["docker-compose"], "by_level": False, "timeout": 10.0}
    compose.perform({**base, **up, **more}, engine)


HEALTHY = {"health": "healthy"}
STARTING = {"health": "starting"}
#: Between two starts, when the engine calls anything unhealthy.
CRASHED = {"state": "restarting", "health": "unhealthy", "exit_code": 1}


#: What compose 2 prints: nothing of a profile that nobody asked for.
CONFIG_2 = CONFIG[: CONFIG.index("\n  debug:")] + CONFIG[CONFIG.index("\n  migrate:") :]


def test_each_when_what_it_needs_is_as_its_file_demands(tmp_path: Path) -> None:
    """Healthy, or run to its end; and the host keeps how it was started."""
    record = tmp_path / "app.stack"
    engine = Stack(db=[STARTING, STARTING, HEALTHY], migrate=[{}, {}, {"state": "exited"}])
    engine.config = CONFIG_2
    _up(engine, record)
    assert engine.started() == ["db", "migrate", "api"]
    assert engine.asked[1] == ["up", "--no-start", "--no-build"]
    assert json.loads(record.read_text())["services"] == ["api", "db", "migrate"]
    assert record.stat().st_mode & 0o777 == 0o600


def test_by_level(tmp_path: Path) -> None:
    """For a tool that asks for states when it only makes containers; and nothing of a profile."""
    engine = Stack(db=[HEALTHY], migrate=[{"state": "exited"}])
    _up(engine, tmp_path / "app.stack", by_level=True)
    made = [words[3:] for words in engine.asked if words[0] == "up"]
    assert made == [["--no-deps", "db"], ["--no-deps", "migrate"], ["--no-deps", "api"]]


def test_a_service_may_crash_until_what_it_needs_is_there(tmp_path: Path) -> None:
    """Once or twice, or up to where it stays up."""
    lives = [{**CRASHED, "restarts": 1}, STARTING, {**CRASHED, "restarts": 2}]
    engine = Stack(db=[*lives, {**STARTING, "restarts": 3}, HEALTHY], migrate=[{"state": "exited"}])
    engine.config = CONFIG_2
    _up(engine, tmp_path / "app.stack")
    assert engine.started() == ["db", "migrate", "api"]


def test_what_is_put_in_at_a_start(tmp_path: Path) -> None:
    """Compose 2 starts itself what it puts secrets or configs into; and that alone."""
    engine = Stack(db=[HEALTHY], migrate=[{"state": "exited"}])
    engine.config = CONFIG_2.replace("    image: db\n", "    image: db\n    secrets:\n      - x\n")
    _up(engine, tmp_path / "app.stack")
    assert engine.started() == ["db", "migrate", "api"]
    (tended,) = [words for words in engine.asked if "-d" in words]
    assert {"--no-deps", "--no-recreate", "--no-build", "--pull=never"} < set(tended)
    assert tended[-1] == "db"


@pytest.mark.parametrize(
    ("env", "env_file", "debug"),
    [
        ({}, "", False),
        ({}, "COMPOSE_PROFILES=debug", True),
        ({}, 'A=b\nCOMPOSE_PROFILES = "x,debug"\n', True),
        ({"COMPOSE_PROFILES": "other"}, "COMPOSE_PROFILES=debug", False),
        ({"COMPOSE_PROFILES": "other,debug"}, "", True),
    ],
)
def test_profiles_that_the_environment_asks_for(
    tmp_path: Path,
    env: dict[str, str],
    env_file: str,
    debug: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """docker-compose 1 prints all services, and makes what it is told by name."""
    monkeypatch.delenv("COMPOSE_PROFILES", raising=False)
    (tmp_path / ".env").write_text(env_file)
    engine = Stack(db=[HEALTHY], migrate=[{"state": "exited"}])
    call = {
        "project": "shop",
        "directory": str(tmp_path),
        "files": [],
        "env_file": None,
        "profiles": [],
        "env": env,
    }
    _up(engine, tmp_path / "app.stack", by_level=True, started=call)
    assert ("debug" in engine.started()) == debug


@pytest.mark.parametrize(
    ("db", "migrate", "said"),
    [
        (
            [
                {**CRASHED, "restarts": 2},
                {"health": "starting", "restarts": 3},
                {**CRASHED, "restarts": 3},
            ],
            [{"state": "exited"}],
            "api needs db to be healthy: it restarts over and over, exit status 1",
        ),
        (
            [{"state": "exited", "exit_code": 2}],
            [{"state": "exited"}],
            "api needs db to be healthy: it ended with status 2",
        ),
        (
            [{"health": "unhealthy", "said": "curl: not found"}],
            [{"state": "exited"}],
            "api needs db to be healthy: it says unhealthy: curl: not found",
        ),
        ([{}], [{"state": "exited"}], "api needs db to be healthy: it has no health check"),
        ([STARTING], [{"state": "exited"}], "api needs db to be healthy: it was not in time"),
        (
            [HEALTHY],
            [{"state": "exited", "exit_code": 4}],
            "api needs migrate to be completed successfully: it ended with status 4",
        ),
    ],
)
def test_what_is_waited_for_in_vain(
    tmp_path: Path, db: list[dict[str, Any]], migrate: list[dict[str, Any]], said: str
) -> None:
    """Who needs whom, and what that one says of itself; and not without end."""
    engine = Stack(db=db, migrate=migrate)
    with pytest.raises(EngineFailed) as caught:
        _up(engine, tmp_path / "app.stack")
    assert str(caught.value) == said
    assert "api" not in engine.started()
    assert engine.time <= 1011.0
    assert not (tmp_path / "app.stack").exists()
