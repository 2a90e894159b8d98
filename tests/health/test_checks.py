"""Checks of a plan as data for the host."""

from __future__ import annotations

from typing import Any

import pytest

from deployguard.errors import UsageError
from deployguard.health.checks import compile_checks
from deployguard.onhost.probes.base import CheckData
from deployguard.onhost.probes.registry import sample
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


def test_a_database_with_its_password_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is journalled says where it is and where the password is from; the password is beside
    it, where the host keeps it apart."""
    monkeypatch.setenv("DB_PASSWORD", "geheim")
    check = compiled(
        {"postgres": {
            "dsn": "postgresql://shop@db.example.com/orders?sslmode=verify-full&sslrootcert=/ca",
            "password_env": "DB_PASSWORD",
            "query": "SELECT 1",
            "expect": "1",
            "free_connections": "20%",
        }},
        manager={},
    )[0]  # fmt: skip
    assert check.pop("secret") == {"password": "geheim"}  # type: ignore[misc]
    assert "geheim" not in repr(check)
    assert check["credential"] == "the password in DB_PASSWORD"
    assert (check["address"], check["number"]) == ("db.example.com", 5432)
    assert (check["user"], check["database"]) == ("shop", "orders")
    assert (check["tls"], check["ca_file"]) == ("verify-full", "/ca")
    assert (check["query"], check["expect"], check["free_connections"]) == ("SELECT 1", "1", "20%")


def test_a_secret_that_is_not_there_is_told_before_it_is_missed() -> None:
    """By its name, as a mistake in usage."""
    with pytest.raises(UsageError, match="the environment variable NOT_SET is not set"):
        compiled({"redis": {"dsn": "redis://cache", "password_env": "NOT_SET"}}, manager={})


def test_where_a_service_logs() -> None:
    """The unit's journal, with the bus of a user's manager; the file of a program of ours."""
    bus = {"XDG_RUNTIME_DIR": "/run/user/1000"}
    user = {"driver": "systemd", "unit": "shop.service", "scope": "user", "env": bus}
    check = compiled({"logs": {}}, manager=user)[-1]
    assert check["log"] == {"unit": "shop.service", "scope": "user", "env": bus}
    ours = {"driver": "process", "pid_file": "/x/shop.pid", "log": "/x/shop.log"}
    assert compiled({"logs": {}}, manager=ours)[-1]["log"] == {"path": "/x/shop.log"}
    check = compiled({"logs": {"file": "/var/log/shop.log"}}, manager=user)[-1]
    assert check["log"] == {"path": "/var/log/shop.log"}


def test_soaks_of_their_own() -> None:
    """A number lags and an error takes a moment; a default that does not fit is fitted."""
    number = {"url": "http://p", "query": "up", "min": 1}
    first, second, third = compiled(
        {"prometheus": number},
        {"prometheus": {**number, "deadline": 5}},
        {"logs": {"file": "/x"}},
        manager={},
    )
    assert (first["min_healthy_time"], first["deadline"]) == (30.0, 120.0)
    assert (second["min_healthy_time"], second["interval"]) == (5.0, 2.0)
    assert (third["min_healthy_time"], third["deadline"]) == (10.0, 30.0)


STACK = {"driver": "compose", "tool": "auto", "project": "shop", "record": "/r", "env": {}}


def test_each_service_is_a_check_of_its_own() -> None:
    """With a baseline of its own; and nobody else has to look for restarts."""
    found = compiled(
        {"container": ["db", "api"]},
        {"container": {"services": ["cron"], "name": "jobs", "critical": False}},
        {"http": {"url": "http://x/", "service": "api"}},
        manager=STACK,
        service={"compose": {}},
    )
    assert [(one["name"], one["kind"], one.get("service")) for one in found] == [
        ("container-db", "container", "db"),
        ("container-api", "container", "api"),
        ("jobs", "container", "cron"),
        ("http", "http", "api"),
    ]
    assert found[0]["manager"] == STACK
    assert [one["critical"] for one in found] == [True, True, False, True]


def test_a_stack_without_such_checks_is_looked_at_as_a_whole() -> None:
    """Something has to see a service that is started over and over."""
    found = compiled({"port": 80}, manager=STACK, service={"compose": {}})
    assert [one["kind"] for one in found] == ["process", "port"]
