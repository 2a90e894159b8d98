"""A conformance case for each driver: what it runs, where, and how to ask what runs there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from deployguard.drivers.registry import DRIVERS
from deployguard.plan.model import Component, Host
from deployguard.testing import CRASH, STUBBORN, DriverCase
from deployguard.transport import registry
from tests.cluster import manifests
from tests.cluster.cluster import Cluster, kubectl
from tests.cluster.images import serving
from tests.drivers import services
from tests.fleet import Fleet
from tests.fleet import Host as Machine

UNIT = """\
[Unit]
Description=the {version} of {name}

[Service]
ExecStart=/usr/bin/python3 {live}/server.py {port}
Restart=always
RestartSec=50ms
TimeoutStopSec=2
Environment=PYTHONDONTWRITEBYTECODE=1

[Install]
WantedBy={wanted}
"""


def process_case(directory: Path, layout: str = "releases") -> DriverCase:
    """A program that the host program supervises on this machine."""
    host = _here(directory)
    number = services.port()
    service = {
        "process": {
            "argv": [sys.executable, "server.py", str(number)],
            "stop_timeout": "1s",
            "env": {"PYTHONDONTWRITEBYTECODE": "1"},
        }
    }

    def stop() -> None:
        for pid_file in (directory / "state" / "services").glob("app-*.pid"):
            _kill(int(json.loads(pid_file.read_text())["pid"]))

    return DriverCase(
        driver=DRIVERS["process"],
        component=lambda version: component(str(directory / "srv" / "app"), service, layout),
        release=lambda version: services.release(directory, version),
        connect=lambda: registry.connect("here", host),
        served=lambda: services.served("127.0.0.1", number),
        stop=stop,
    )


def command_case(directory: Path, layout: str = "in_place") -> DriverCase:
    """Commands of a user on this machine, as unhelpful as they come."""
    host = _here(directory)
    number = services.port()
    control = directory / "ctl.py"
    control.write_text(services.CONTROL)
    path = directory / "srv" / "app"
    live = path / "current" if layout == "releases" else path
    argv = {
        verb: [sys.executable, str(control), verb, str(directory / "pid"), str(live), str(number)]
        for verb in ("start", "stop", "status")
    }
    service = {"command": {**argv, "timeout": "10s"}}
    return DriverCase(
        driver=DRIVERS["command"],
        component=lambda version: component(str(path), service, layout),
        release=lambda version: services.release(directory, version),
        connect=lambda: registry.connect("here", host),
        served=lambda: services.served("127.0.0.1", number),
        stop=lambda: _quietly(argv["stop"]),
    )


def systemd_case(
    fleet: Fleet,
    machine: Machine,
    directory: Path,
    *,
    user: bool = False,
    layout: str = "releases",
    **options: Any,
) -> DriverCase:
    """A unit of the system manager, or of a user's, on a host of the fleet."""
    host = on_host(fleet, machine, become=not user)
    number = services.port()
    name = f"conform{number}"
    path = f"/home/{machine.user}/{name}" if user else f"/srv/{name}"
    live = f"{path}/current" if layout == "releases" else path
    wanted = "default.target" if user else "multi-user.target"

    def service(version: str) -> dict[str, Any]:
        text = UNIT.format(version=version, name=name, live=live, port=number, wanted=wanted)
        (directory / f"{version}.service").write_text(text)
        unit = {"unit": f"{name}.service", "unit_file": f"{version}.service"}
        scope = "user" if user else "system"
        return {"systemd": {**unit, "scope": scope, "stop_timeout": "10s", **options}}

    def stop() -> None:
        systemctl(machine, "stop", f"{name}.service", user=user)

    return DriverCase(
        driver=DRIVERS["systemd"],
        component=lambda version: component(path, service(version), layout),
        release=lambda version: services.release(directory, version),
        connect=lambda: registry.connect(machine.name, host),
        served=lambda: services.served(machine.address, number),
        stop=stop,
        directory=directory,
    )


def pm2_case(
    fleet: Fleet,
    machine: Machine,
    directory: Path,
    *,
    become: bool = True,
    layout: str = "releases",
    instances: int = 0,
    **options: Any,
) -> DriverCase:
    """A Node program under the PM2 of the deploy user, on a host of the fleet.

    The host program is root, or that user; with ``instances`` it runs in cluster mode.
    """
    host = on_host(fleet, machine, become=become)
    number = services.port()
    name = f"conform{number}"
    path = f"/home/{machine.user}/{name}"
    whose = {"user": machine.user} if become else {}
    service = {"pm2": {"name": name, "ecosystem": "ecosystem.config.js", **whose, **options}}
    return DriverCase(
        driver=DRIVERS["pm2"],
        component=lambda version: component(path, service, layout, owner=machine.user),
        release=lambda version: services.node_release(
            directory, version, name, number, instances=instances
        ),
        connect=lambda: registry.connect(machine.name, host),
        served=lambda: services.served(machine.address, number),
        stop=lambda: stop_under_pm2(machine, name),
        directory=directory,
    )


def pm2(machine: Machine, *words: str) -> subprocess.CompletedProcess[bytes]:
    """What ``pm2`` does and says, for the deploy user on a host."""
    argv = ["runuser", "-u", machine.user, "--", "env", f"HOME=/home/{machine.user}", "pm2"]
    return machine.run([*argv, *words], check=False)


def stop_under_pm2(machine: Machine, name: str) -> None:
    """By hand; fine when it does not run."""
    if machine.path(f"/home/{machine.user}/.pm2").exists():
        pm2(machine, "stop", name)


def kubernetes_case(directory: Path, cluster: Cluster) -> DriverCase:
    """A Deployment in a small cluster, by the kubectl of this machine."""
    host = _here(directory)
    for version in ("v1", "v2", CRASH, STUBBORN):
        fault = version if version in (CRASH, STUBBORN) else ""
        cluster.images[f"registry.example.com/app:{version}"] = serving(version, fault)
    service = {
        "kubernetes": {
            "context": "production",
            "namespace": "chat",
            "kubeconfig": str(cluster.kubeconfig),
            "program": kubectl(),
            "workloads": ["app"],
        }
    }
    number = cluster.ingress("app")

    def release(version: str) -> Path:
        tree = directory / "build" / version
        tree.mkdir(parents=True, exist_ok=True)
        image = f"registry.example.com/app:{version}"
        # So that nobody waits for what comes to nothing.
        deadline = 1 if version == CRASH else 600
        made = manifests.deployment(
            "app", image, deadline=deadline, terminationGracePeriodSeconds=1
        )
        (tree / "app.yaml").write_text(manifests.text(made, manifests.service("app")))
        return tree

    def served() -> str | None:
        status, body = cluster.ask(number, "/")
        return str(body["version"]) if status == 200 else None

    def stop() -> None:
        cluster.kubectl("-n", "chat", "scale", "deployment/app", "--replicas=0")

    return DriverCase(
        driver=DRIVERS["kubernetes"],
        component=lambda version: component(str(directory / "srv" / "app"), service, "releases"),
        release=release,
        connect=lambda: registry.connect("here", host),
        served=served,
        stop=stop,
        overlaps=True,
    )


def systemctl(machine: Machine, *words: str, user: bool = False) -> str:
    """What systemctl says on the host; a failing one says it too."""
    argv = ["systemctl", *words]
    if user:
        uid = machine.run(["id", "-u", machine.user]).stdout.decode().strip()
        runtime = f"XDG_RUNTIME_DIR=/run/user/{uid}"
        argv = ["runuser", "-u", machine.user, "--", "env", runtime, "systemctl", "--user", *words]
    return machine.run(argv, check=False).stdout.decode().strip()


def let_user_managers_run(machine: Machine) -> None:
    """Start the deploy user's own systemd, as for somebody who may linger."""
    machine.run(["loginctl", "enable-linger", machine.user])
    deadline = time.monotonic() + 30
    while systemctl(machine, "is-system-running", user=True) not in ("running", "degraded"):
        assert time.monotonic() < deadline, "the user manager does not come up"
        time.sleep(0.1)


def component(path: str, service: dict[str, Any], layout: str, **more: Any) -> Component:
    """A component as a plan describes it."""
    return Component.model_validate(
        {"artifact": "unused", "path": path, "layout": layout, "service": service, **more}
    )


def on_host(fleet: Fleet, machine: Machine, *, become: bool) -> Host:
    return Host.model_validate(
        {
            "address": machine.address,
            "user": machine.user,
            "identity_file": str(fleet.client_key),
            "known_hosts": str(fleet.known_hosts),
            "become": become,
        }
    )


def _here(directory: Path) -> Host:
    return Host.model_validate({"transport": "local", "state_directory": str(directory / "state")})


def _kill(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _quietly(argv: list[str]) -> None:
    subprocess.run(argv, capture_output=True, check=False)
