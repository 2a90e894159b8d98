"""What the containers said: those that are not well come last, where somebody looks first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deployguard.onhost.compose import logs as containerlogs
from deployguard.onhost.share import Share
from deployguard.onhost.system import Completed
from tests.onhost.fake_engine import FakeEngine, container

SAID = {
    "id-api-1": b"2026-01-01T00:00:02Z ModuleNotFoundError: No module named 'shared.telemetry'\n",
    "id-db-1": b"2026-01-01T00:00:01Z ready\n",
}


class Talking(FakeEngine):
    """Its containers have said something, or nothing."""

    def run(self, argv: Any, **options: Any) -> Completed:
        """``logs``, or what any engine answers."""
        if argv[1] == "logs":
            return Completed(tuple(argv), 0, b"", SAID.get(argv[-1], b""), False, 0.0)
        return super().run(argv, **options)


def test_those_that_are_not_well_come_last(tmp_path: Path) -> None:
    """What said nothing is in the table, and nowhere else."""
    for name in ("docker", "docker-compose"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    engine = Talking(
        container("db", health="healthy"),
        container("api", "restarting", restarts=3, exit_code=1),
        container("web", "created"),
    )
    manager = {"tool": "docker-compose", "project": "shop", "env": {"PATH": str(tmp_path)}}
    share = Share(10_000, engine.monotonic() + 10.0, engine.monotonic)
    said, cut, problems = containerlogs.gather({"manager": manager}, share, 0.0, engine)
    lines = [line for line in said.decode().splitlines() if line]
    assert (cut, problems) == (False, "")
    assert [line.partition(":")[0] for line in lines[:3]] == [
        "shop_db_1",
        "shop_api_1",
        "shop_web_1",
    ]
    assert lines[3] == "==> shop_db_1 <=="
    assert lines[5] == "==> shop_api_1 <=="
    assert lines[-1].endswith("No module named 'shared.telemetry'")


def test_those_that_are_not_well_are_asked_first(tmp_path: Path) -> None:
    """When the time is up after one of them, it is the one that somebody needs."""
    for name in ("docker", "docker-compose"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    engine = Talking(container("db"), container("api", "restarting", restarts=3))
    manager = {"tool": "docker-compose", "project": "shop", "env": {"PATH": str(tmp_path)}}
    looks = iter([0.0, 0.0, 0.0, 99.0])
    share = Share(10_000, 10.0, lambda: next(looks, 99.0))
    said, cut, _ = containerlogs.gather({"manager": manager}, share, 0.0, engine)
    assert cut and b"shared.telemetry" in said and b"ready" not in said
