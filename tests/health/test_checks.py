"""Checks of a plan as data for the host."""

from __future__ import annotations

from typing import Any

import pytest

from deployguard.health.checks import compile_checks
from deployguard.onhost.probes import CheckData, sample
from deployguard.onhost.system import System
from deployguard.plan.model import Component

UNIT = {"driver": "systemd", "unit": "backend.service", "scope": "system"}


def compiled(*checks: dict[str, Any], manager: Any = UNIT, **more: Any) -> list[CheckData]:
    """The checks of a component called ``backend`` at v2."""
    component = Component.model_validate(
        {"artifact": "x", "path": "/srv/backend", "checks": list(checks), **more}
    )
    return compile_checks("backend", component, "v2", manager)


def test_the_options_and_their_defaults() -> None:
    """As seconds, with an id that names the component."""
    one, two = compiled(
        {"process": {}},
        {"port": {"number": 3000, "timeout": "2s", "min_healthy_time": "1m", "critical": False}},
    )
    assert one["id"] == "backend/process" and one["manager"] == UNIT
    assert (one["timeout"], one["interval"], one["deadline"]) == (5.0, 0.5, 30.0)
    assert two["id"] == "backend/port" and two["component"] == "backend"
    assert (two["address"], two["number"]) == ("127.0.0.1", 3000)
    assert (two["timeout"], two["min_healthy_time"], two["critical"]) == (2.0, 60.0, False)


def test_ids_are_unique() -> None:
    """Two ports of a component, and a name that somebody chose badly."""
    found = compiled({"process": {}}, {"port": 1}, {"port": 2}, {"tcp": {
        "address": "db", "port": 5432, "name": "port"}})  # fmt: skip
    assert [check["id"] for check in found] == [
        "backend/process",
        "backend/port",
        "backend/port-2",
        "backend/port-3",
    ]
    assert found[3]["kind"] == "tcp" and found[3]["address"] == "db"


def test_a_service_is_watched_even_when_nobody_asked() -> None:
    """For as long as the longest soak; without a service there is nothing to watch."""
    first, _, _ = compiled({"port": {"number": 1, "min_healthy_time": 20}}, {"port": 2})
    assert first["kind"] == "process" and first["critical"]
    assert first["min_healthy_time"] == 20.0
    assert [check["kind"] for check in compiled({"port": 1}, manager={})] == ["port"]
    assert [check["kind"] for check in compiled()] == ["process"]


def test_http_expectations_and_the_version() -> None:
    """The field of ``version`` is expected to hold the deployed one, and is known to."""
    check = compiled(
        {"process": {}},
        {"http": {
            "url": "http://127.0.0.1:3000/health",
            "json": {"status": "ok"},
            "version": "build.version",
            "body": "ok v2",
            "headers": {"X": "1"},
            "verify_tls": False,
        }},
    )[1]  # fmt: skip
    assert check["status"] == [200]
    assert check["json"] == {"status": "ok", "build.version": "v2"}
    assert check["versioned"] == ["build.version"]
    assert check["body_versioned"] is True
    assert check["headers"] == {"X": "1"} and check["verify_tls"] is False


def test_fields_that_the_loader_found_to_hold_the_version() -> None:
    """They come with the plan, and several statuses do too."""
    check = compiled(
        {"http": {"url": "http://h/", "status": [200, 204], "json": {"v": "v2"},
                  "versioned": ["v"], "body": "fine"}},
        manager={},
    )[0]  # fmt: skip
    assert check["status"] == [200, 204] and check["versioned"] == ["v"]
    assert check["body_versioned"] is False


@pytest.mark.parametrize(
    ("layout", "live"), [("releases", "/srv/backend/current"), ("in_place", "/srv/backend")]
)
def test_a_command_runs_in_the_live_tree(layout: str, live: str) -> None:
    """Unless the plan names another directory."""
    first, second = compiled(
        {"command": ["true"]},
        {"command": {"argv": ["true"], "directory": "/tmp", "env": {"A": "b"}}},
        manager={},
        layout=layout,
    )
    assert first["directory"] == live and first["argv"] == ["true"]
    assert second["directory"] == "/tmp" and second["env"] == {"A": "b"}


def test_a_process_check_without_a_service_is_never_healthy() -> None:
    """There is nobody to ask."""
    check = compiled({"process": {}}, manager={})[0]
    assert sample(check, System())["state"] == "unknown"
