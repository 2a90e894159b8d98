"""What is particular to systemd: enablement, drop-ins, start limits, and whose manager it is."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployguard.drivers.base import Operation, Site, Steps
from deployguard.drivers.systemd import SystemdDriver
from deployguard.errors import ActionFailed
from deployguard.plan.model import Component, Service
from deployguard.testing import CRASH, DriverCase, Trial
from deployguard.transport import registry
from tests.drivers.cases import on_host, systemctl, systemd_case
from tests.fleet import Fleet
from tests.fleet import Host as Machine

SITE = Site("web", "releases", "/srv/web/current", "/srv/web/releases/v2", "/srv/web/.c", uid=1000)


def _component(**service: Any) -> Component:
    unit = {"unit": "web.service", **service}
    return Component.model_validate(
        {"artifact": "x", "path": "/srv/web", "service": {"systemd": unit}}
    )


def _steps(active: str = "active", state: str = "enabled", **service: Any) -> Steps:
    observed = {"unit": {"ActiveState": active, "UnitFileState": state}}
    return SystemdDriver().steps("web", _component(**service), SITE, observed)


def _argvs(operation: Operation, side: str) -> list[str]:
    return [" ".join(action["argv"]) for action in operation[side]]


def test_every_start_is_preceded_by_reset_failed() -> None:
    """A unit that used up its start limit is refused a start, and so would the old version be."""
    steps = _steps()
    both = ["systemctl reset-failed web.service", "systemctl start web.service"]
    assert _argvs(steps.start[0], "do") == both
    assert _argvs(steps.stop[0], "undo") == both
    assert steps.start[0]["do"][0]["ok"] == list(range(256))


@pytest.mark.parametrize(
    ("active", "stops", "accepted"),
    [
        ("active", True, [0]),
        ("reloading", True, [0, 1]),
        ("activating", True, [0, 1]),
        ("inactive", False, []),
        ("failed", False, []),
        ("", False, []),
    ],
)
def test_only_what_runs_is_stopped(active: str, stops: bool, accepted: list[int]) -> None:
    """What was on its way up is started again, and need not come up."""
    steps = _steps(active)
    assert bool(steps.stop) == stops
    if stops:
        assert steps.stop[0]["undo"][1]["ok"] == accepted


def test_a_stop_that_takes_too_long_is_a_kill() -> None:
    """Then it is stopped once more; the undo of a start does the same."""
    steps = _steps(stop_timeout="3s")
    for stop in (steps.stop[0]["do"][0], steps.start[0]["undo"][0]):
        assert stop["timeout"] == 3.0
        assert stop["on_timeout"] == ["systemctl", "kill", "--signal=KILL", "web.service"]


@pytest.mark.parametrize(
    ("wanted", "state", "do", "undo"),
    [
        (True, "disabled", "enable", "disable"),
        (True, "", "enable", "disable"),
        (True, "enabled", None, None),
        (False, "enabled", "disable", "enable"),
        (False, "disabled", None, None),
        (None, "disabled", None, None),
    ],
)
def test_enablement(wanted: bool | None, state: str, do: str | None, undo: str | None) -> None:
    """Changed only where the plan asks for something else than what is, and changed back."""
    changes = list(_steps("active", state, enable=wanted).refresh_after)
    if do is None:
        assert changes == []
    else:
        (operation,) = changes
        assert _argvs(operation, "do") == [f"systemctl {do} web.service"]
        assert _argvs(operation, "undo") == [f"systemctl {undo} web.service"]


@pytest.mark.parametrize("files", [{"unit_file": "a"}, {"drop_ins": {"x.conf": "b"}}])
def test_a_reload_on_either_side(files: dict[str, Any]) -> None:
    """After the files are swapped, and after they are swapped back; without files there is none."""
    steps = _steps(**files)
    (before,), (after,) = steps.refresh_before, steps.refresh_after
    assert (before["do"], _argvs(before, "undo")) == ([], ["systemctl daemon-reload"])
    assert (_argvs(after, "do"), after["undo"]) == (["systemctl daemon-reload"], [])
    assert not _steps().refresh_before and not _steps().refresh_after


def test_where_the_files_go() -> None:
    """To root's directory or below the user's home, which the host knows."""
    files = {"unit_file": "a", "drop_ins": {"x.conf": "b"}}
    assert list(SystemdDriver().files(_component(**files))) == [
        "/etc/systemd/system/web.service",
        "/etc/systemd/system/web.service.d/x.conf",
    ]
    assert list(SystemdDriver().files(_component(scope="user", **files))) == [
        "~/.config/systemd/user/web.service",
        "~/.config/systemd/user/web.service.d/x.conf",
    ]


def test_the_manager_of_a_user() -> None:
    """Every command goes to it, and knows where it listens."""
    steps = _steps(scope="user", unit_file="a", enable=False)
    operations = [*steps.stop, *steps.refresh_before, *steps.refresh_after, *steps.start]
    actions = [action for op in operations for side in ("do", "undo") for action in op[side]]
    for action in actions:
        assert action["argv"][:2] == ["systemctl", "--user"]
        assert action["env"] == {"XDG_RUNTIME_DIR": "/run/user/1000"}
    probe = SystemdDriver().process_probe(_component(scope="user"), SITE)
    assert probe["scope"] == "user" and probe["env"] == {"XDG_RUNTIME_DIR": "/run/user/1000"}


def test_a_reload_stops_nothing() -> None:
    """It is tested first, and reloaded once more where the files have been swapped back."""
    steps = _steps(action="reload", test=["nginx", "-t"], unit_file="a")
    assert not steps.stop
    (start,) = steps.start
    assert _argvs(start, "do") == [
        *("nginx -t", "systemctl reset-failed web.service"),
        "systemctl reload-or-restart web.service",
    ]
    assert start["undo"] == []
    undone = [_argvs(operation, "undo") for operation in reversed(steps.refresh_before)]
    assert undone == [
        ["systemctl daemon-reload"],
        ["systemctl reset-failed web.service", "systemctl reload-or-restart web.service"],
    ]
    assert steps.refresh_before[0]["undo"][1]["ok"] == [0]


def test_what_cannot_be_reloaded_is_not_restarted_instead() -> None:
    """systemd says that it cannot, and the deploy goes back."""
    observed = {"unit": {"ActiveState": "active", "CanReload": "no"}}
    component = _component(action="reload")
    (start,) = SystemdDriver().steps("web", component, SITE, observed).start
    assert _argvs(start, "do")[-1] == "systemctl reload web.service"


def test_a_test_that_fails_before_need_not_succeed_after() -> None:
    """The old configuration was broken on the disk already."""
    observed = {"unit": {"ActiveState": "active"}, "test": {"status": 1}}
    component = _component(action="reload", test=["nginx", "-t"])
    steps = SystemdDriver().steps("web", component, SITE, observed)
    assert steps.refresh_before[0]["undo"][1]["ok"] == list(range(256))


@pytest.mark.parametrize("active", ["inactive", "failed", "activating"])
def test_what_is_not_active_is_started_and_not_reloaded(active: str) -> None:
    """There is nothing to reload; the test comes before the start as well."""
    steps = _steps(active, action="reload", test=["nginx", "-t"])
    assert _argvs(steps.start[0], "do")[0] == "nginx -t"
    assert _argvs(steps.start[0], "do")[-1] == "systemctl start web.service"
    assert bool(steps.stop) == (active == "activating")


def test_whether_we_may_is_asked_of_the_system_manager_only() -> None:
    """Root may, and everybody may in a manager of their own."""
    driver = SystemdDriver()
    (asked,) = driver.observe(_component(), SITE)
    assert asked["permit"] == [
        *("systemctl", "--no-ask-password", "stop", "--job-mode=isolate", "web.service")
    ]
    assert driver.observe(_component(), replace(SITE, uid=0))[0]["permit"] is None
    assert driver.observe(_component(scope="user"), SITE)[0]["permit"] is None


# -- on real hosts -----------------------------------------------------------------------------


def _unit(case: DriverCase) -> str:
    service = case.component("v1").service
    assert service is not None and service.systemd is not None
    return service.systemd.unit


def _served_by(case: DriverCase, service: Service) -> DriverCase:
    """The same case with another service block."""
    return replace(
        case,
        component=lambda version: case.component(version).model_copy(update={"service": service}),
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the plan's files are."""
    (tmp_path / "drop-in").write_text("[Service]\nEnvironment=EXTRA=1\n")
    return tmp_path


def test_enabled_by_the_first_deploy(fleet: Fleet, directory: Path) -> None:
    """It is enabled with the deploy, and unknown again after the restore."""
    machine = fleet.hosts[0]
    case = systemd_case(fleet, machine, directory, enable=True)
    with Trial(case, "v1") as trial:
        trial.switch()
        assert systemctl(machine, "is-enabled", _unit(case)) == "enabled"
        assert trial.restore()["state"] == "restored"
    assert systemctl(machine, "show", "-P", "LoadState", _unit(case)) == "not-found"
    wants = machine.run(["ls", "/etc/systemd/system/multi-user.target.wants"]).stdout.decode()
    assert _unit(case) not in wants


def test_disabled_and_enabled_again(fleet: Fleet, directory: Path) -> None:
    """A deploy that disables the unit is taken back, enablement included."""
    machine = fleet.hosts[0]
    case = systemd_case(fleet, machine, directory, enable=True)
    case.deploy("v1")
    off = systemd_case(fleet, machine, directory, enable=False)
    component = off.component("v2").service
    assert component is not None and component.systemd is not None
    renamed = component.systemd.model_copy(update={"unit": _unit(case)})
    service = component.model_copy(update={"systemd": renamed})
    with Trial(_served_by(case, service), "v2") as trial:
        trial.switch()
        assert systemctl(machine, "is-enabled", _unit(case)) == "disabled"
        assert trial.restore()["state"] == "restored"
    assert systemctl(machine, "is-enabled", _unit(case)) == "enabled"
    case.await_served("v1")
    case.stop()


def test_a_drop_in_comes_and_goes(fleet: Fleet, directory: Path) -> None:
    """Its directory too, which was not there before; systemd knows both times."""
    machine = fleet.hosts[0]
    case = systemd_case(fleet, machine, directory)
    case.deploy("v1")
    with_it = case.component("v2").service
    assert with_it is not None and with_it.systemd is not None
    drop_ins = with_it.systemd.model_copy(update={"drop_ins": {"extra.conf": "drop-in"}})
    service = with_it.model_copy(update={"systemd": drop_ins})
    before = machine.tree("/etc/systemd/system")
    with Trial(_served_by(case, service), "v2") as trial:
        trial.switch()
        assert "EXTRA=1" in systemctl(machine, "show", "-P", "Environment", _unit(case))
        assert trial.restore()["state"] == "restored"
    assert machine.tree("/etc/systemd/system").keys() == before.keys()
    assert "EXTRA=1" not in systemctl(machine, "show", "-P", "Environment", _unit(case))
    case.await_served("v1")
    case.stop()


def test_a_start_limit_that_was_hit(fleet: Fleet, directory: Path) -> None:
    """systemd would refuse the good old version; it starts all the same."""
    machine = fleet.hosts[0]
    case = systemd_case(fleet, machine, directory)
    case.deploy("v1")
    service = case.component("v1").service
    assert service is not None and service.systemd is not None
    # With a unit file comes a reload, which makes systemd forget the count.
    bare = service.systemd.model_copy(update={"unit_file": None})
    alone = _served_by(case, service.model_copy(update={"systemd": bare}))
    with Trial(alone, CRASH) as trial:
        trial.switch()
        deadline = time.monotonic() + 30
        while systemctl(machine, "is-active", _unit(case)) != "failed":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "start-limit-hit" in machine.journal(_unit(case)) or "too quickly" in (
            machine.journal(_unit(case))
        )
        assert trial.restore()["state"] == "restored"
    case.await_served("v1")
    case.stop()


def _refused(case: DriverCase, machine: Machine, **service: Any) -> str:
    """What is said to a unit like this; nothing was touched, and what served serves."""
    whole = case.component("v1").service
    assert whole is not None and whole.systemd is not None
    other = whole.systemd.model_copy(update={"unit_file": None, **service})
    before = machine.tree("/etc/systemd/system")
    with pytest.raises(ActionFailed) as refused:
        Trial(_served_by(case, whole.model_copy(update={"systemd": other})), "v2")
    assert refused.value.kind == "refused"
    assert machine.tree("/etc/systemd/system") == before
    assert case.served() == "v1"
    return f"{refused.value.reason}; {refused.value.hint}"


def test_what_cannot_be_met_is_one_error_before_anything_is_touched(
    fleet: Fleet, directory: Path
) -> None:
    """A unit that is not there, one that is masked, and one that is not ours to stop."""
    machine = fleet.hosts[0]
    case = systemd_case(fleet, machine, directory)
    case.deploy("v1")
    case.await_served("v1")
    unit = _unit(case)
    said = _refused(case, machine, unit=unit.replace("conform", "conforn"))
    assert said.startswith(f"the host has no unit {unit.replace('conform', 'conforn')}; ")
    assert f"did you mean {unit}?" in said
    machine.run(["systemctl", "mask", "nobody.service"])
    said = _refused(case, machine, unit="nobody.service")
    assert said == "nobody.service is masked; systemctl unmask nobody.service"
    machine.run(["systemctl", "unmask", "nobody.service"])

    # Whoever has left out `become` may look at it, and no more.
    ours = replace(
        case, connect=lambda: registry.connect(machine.name, on_host(fleet, machine, become=False))
    )
    said = _refused(ours, machine)
    assert said.startswith(f"{machine.user} may not stop and start {unit}; set `become: true`")
    assert systemctl(machine, "is-active", unit) == "active"
    case.stop()


def test_a_unit_that_a_link_leads_to_may_come_with_the_tree(fleet: Fleet, directory: Path) -> None:
    """systemd does not find it before the first deploy, and that is as it should be."""
    machine = fleet.hosts[0]
    case = systemd_case(fleet, machine, directory)
    service = case.component("v1").service
    assert service is not None and service.systemd is not None
    bare = service.systemd.model_copy(update={"unit_file": None})
    link = f"/etc/systemd/system/{_unit(case)}"
    machine.run(["ln", "-s", f"{case.component('v1').path}/current/nothing.service", link])
    with Trial(_served_by(case, service.model_copy(update={"systemd": bare})), "v1") as trial:
        assert trial.observed["unit"]["LoadState"] == "not-found"
    machine.run(["rm", link])
