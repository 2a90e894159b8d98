"""The data in ``forensics/`` and what becomes of it for a plan."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from deployguard.drivers.base import Site
from deployguard.errors import InternalError
from deployguard.evidence.collect import (
    collectors_for,
    component_collectors,
    forensics,
    host_collectors,
)
from deployguard.onhost.evidence.collect import CollectorData, collect
from deployguard.onhost.system import System
from deployguard.plan.model import Plan

MANAGERS: dict[str, dict[str, Any]] = {
    "systemd": {"driver": "systemd", "unit": "backend.service", "scope": "system"},
    "process": {"driver": "process", "pid_file": "/s/backend.pid", "log": "/s/backend.log"},
    "command": {"driver": "command", "argv": ["ctl", "status"], "env": {"A": "b"}},
    "pm2": {"driver": "pm2", "names": ["api"], "user": "ubuntu", "home": "/home/ubuntu/.pm2"},
    "none": {},
}


def of(driver: str, **more: Any) -> dict[str, CollectorData]:
    """The collectors of a component with this driver, by short id."""
    found = component_collectors("backend", "/srv/backend", {**MANAGERS[driver], **more})
    return {collector["id"].removeprefix("backend/"): collector for collector in found}


@pytest.mark.parametrize("driver", MANAGERS)
def test_every_driver_has_complete_data(driver: str) -> None:
    """No name is left unfilled, every collector is bounded and has a stage."""
    found = of(driver)
    assert found["tree"]["to"] == "backend" and found["tree"]["path"] == "/srv/backend"
    for collector in [*found.values(), *host_collectors(["/srv"])]:
        assert not re.search(r"\{[a-z_]+\}", repr(collector))
        assert collector["stage"] in ("critical", "rest")
        assert 0 < collector["max_bytes"] <= 64 * 2**20
        assert 0 < collector["max_seconds"] <= 10
        assert None not in collector.values()


def test_a_unit_of_the_system_manager_and_of_a_user() -> None:
    """The option is there, or no argument at all."""
    assert of("systemd")["status"]["argv"][:3] == ["systemctl", "status", "--no-pager"]
    user = of("systemd", scope="user", env={"XDG_RUNTIME_DIR": "/run/user/7"})
    assert user["status"]["argv"][:3] == ["systemctl", "--user", "status"]
    assert user["service-log"]["scope"] == "user"
    assert user["service-log"]["env"] == {"XDG_RUNTIME_DIR": "/run/user/7"}


def test_a_supervised_program_has_its_log_and_a_command_its_status() -> None:
    """Each under the name of the documented layout."""
    log = of("process")["service-log"]
    assert (log["kind"], log["path"], log["to"]) == (
        "tail", "/s/backend.log", "backend-service.log"
    )  # fmt: skip
    status = of("command")["status"]
    assert status["argv"] == ["ctl", "status"] and status["env"] == {"A": "b"}


def test_a_plan_bounds_its_collectors() -> None:
    """The machine, then components in order; the plan's limits win where they are lower."""
    plan = Plan.model_validate(
        {
            "name": "shop",
            "version": "v2",
            "hosts": {"web1": {}},
            "components": {
                "backend": {
                    "artifact": "x",
                    "path": "/srv/backend",
                    "service": {"process": {"argv": ["run"]}},
                },
                "pages": {"artifact": "y", "path": "/srv/pages"},
            },
            "rescue": {"evidence": {"max_bytes": "1 MiB", "max_seconds": "2s"}},
        }
    )
    sites = {
        name: Site(name, "releases", "", f"/srv/{name}/new", "", state="/var/lib/deployguard")
        for name in plan.components
    }
    found = collectors_for(plan, plan.components, sites)
    ids = [collector["id"] for collector in found]
    assert ids[-4:] == ["backend/service-log", "backend/pid-file", "backend/tree", "pages/tree"]
    assert ids[0] == "host/facts" and len(ids) == len(set(ids))
    assert found[-4]["path"] == sites["backend"].service_stem("/srv/backend") + ".log"
    assert found[-2]["path"] == "/srv/backend/new"
    assert found[-2]["ignore"] == ["**/__pycache__", "**/*.pyc"]
    assert found[0]["paths"] == ["/", "/srv/backend", "/srv/pages"]
    assert max(collector["max_bytes"] for collector in found) == 2**20
    assert max(collector["max_seconds"] for collector in found) == 2.0


def test_the_host_understands_what_the_controller_sends(tmp_path: Path) -> None:
    """The data as it is, run by the host's own code; a missing log is no disaster."""
    (tmp_path / "live").mkdir()
    (tmp_path / "log").write_text("boom\n")
    manager = {"driver": "process", "pid_file": str(tmp_path / "no"), "log": str(tmp_path / "log")}
    found = component_collectors("backend", str(tmp_path / "live"), manager)
    found += host_collectors([str(tmp_path)])
    results = {r["id"]: r for r in collect(found, str(tmp_path / "out"), System())}
    assert (tmp_path / "out/backend-service.log").read_text() == "boom\n"
    assert (tmp_path / "out/backend/MANIFEST.jsonl").exists()
    assert (tmp_path / "out/host-facts.json").exists()
    assert results["backend/pid-file"]["error"] and not results["backend/tree"]["error"]


def test_mistakes_in_the_data_are_named(tmp_path: Path) -> None:
    """An unknown driver, an unknown key, no YAML."""
    with pytest.raises(InternalError, match="no forensics data for the driver x"):
        component_collectors("a", "/a", {"driver": "x"})
    (tmp_path / "bad.yaml").write_text("collectors: [{id: a, kind: file, path: /x, tu: a}]")
    with pytest.raises(InternalError, match="unknown keys tu"):
        component_collectors("a", "/a", {"driver": "bad"}, folder=tmp_path)
    (tmp_path / "bad.yaml").write_text("collectors: {")
    with pytest.raises(InternalError, match="is not forensics data"):
        component_collectors("a", "/a", {"driver": "bad"}, folder=tmp_path)


def test_a_checkout_reads_the_folder_at_its_top() -> None:
    """Where people look for it."""
    assert (forensics() / "systemd.yaml").is_file()
