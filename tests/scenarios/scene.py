"""One deployment to play with: a plan of its own for hosts of the shared fleet.

Every scene has a path, a unit and a port of its own, so that many can use the same hosts one after
another. What a test asserts it reads from the hosts directly, never through deployguard.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.fleet.fleet import Fleet
from tests.fleet.host import Host
from tests.fleet.tree import Entry
from tests.releases import django_release, pack, small_release

_PORTS = itertools.count(20000 + (os.getpid() % 500) * 20)

UNIT = """\
[Unit]
Description={name}
StartLimitIntervalSec=0

[Service]
WorkingDirectory={directory}
ExecStart=/usr/bin/python3 {directory}/server.py {port}
Restart={restart}
RestartSec=100ms
Environment=PYTHONDONTWRITEBYTECODE=1

[Install]
WantedBy=multi-user.target
"""


class Result:
    """How a command ended, and what it said."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code = done.returncode
        self.text = done.stderr
        self.lines = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]

    @property
    def outcome(self) -> dict[str, Any]:
        """The last line of ``--json``."""
        assert self.lines, f"no JSON on stdout; stderr:\n{self.text}"
        last: dict[str, Any] = self.lines[-1]
        return last

    def host(self, name: str) -> dict[str, Any]:
        """One host of the outcome."""
        found: dict[str, Any] = next(h for h in self.outcome["hosts"] if h["host"] == name)
        return found

    def __repr__(self) -> str:
        return f"<exit {self.code}>\n{self.text}"


class Scene:
    """A plan, its releases and its hosts."""

    def __init__(
        self,
        fleet: Fleet,
        directory: Path,
        *,
        hosts: int = 3,
        layout: str = "releases",
        real: bool = False,
        restart: str = "no",
        base: str = "/srv",
        **plan: Any,
    ) -> None:
        fleet.need(hosts)
        self.fleet = fleet
        self.directory = directory
        self.hosts: list[Host] = list(fleet.hosts[:hosts])
        self.layout = layout
        self.real = real
        self.port = next(_PORTS)
        self.name = f"app{self.port}"
        self.path = f"{base}/{self.name}"
        self.unit = f"{self.name}.service"
        self.extra = plan
        self.component: dict[str, Any] = {}
        self.connect_deadline = "4s"
        self.checks: list[dict[str, Any]] = [
            {"process": {"deadline": "6s"}},
            {"port": {"number": self.port, "deadline": "6s"}},
            {
                "http": {
                    "url": f"http://127.0.0.1:{self.port}/health",
                    "json": {"status": "healthy", "version": "{{ version }}"},
                    "deadline": "6s",
                }
            },
        ]
        live = self.live
        unit = UNIT.format(name=self.name, directory=live, port=self.port, restart=restart)
        (directory / "app.service").write_text(unit)
        self.environment = {
            "DEPLOYGUARD_STATE": str(directory / "state"),
            "GITHUB_TOKEN": "ghp_test0token0for0the0local0server000",
            "HOME": str(directory),
        }

    @property
    def live(self) -> str:
        """The live tree's name on a host."""
        return f"{self.path}/current" if self.layout == "releases" else self.path

    def release(self, version: str, *, fault: str = "none", based_on: str = "") -> Path:
        """Make a release; a real one has Django in it."""
        folder = self.directory / "build" / version
        if self.real:
            django_release(folder, based_on or version, fault=fault, name=version)
        else:
            small_release(folder, version, fault=fault)
        return folder

    def artifact(self, version: str) -> Path:
        """Pack the release as the artifact that the plan names."""
        return pack(
            self.directory / "build" / version, self.directory / f"{self.name}-{version}.tar.gz"
        )

    def write_plan(self, version: str, **changes: Any) -> Path:
        """The plan file, as a user would write it."""
        component: dict[str, Any] = {
            "artifact": f"{self.name}-{{{{ version }}}}.tar.gz",
            "path": self.path,
            "layout": self.layout,
            "service": {"systemd": {"unit": self.unit, "unit_file": "app.service"}},
            "checks": self.checks,
            **self.component,
        }
        plan: dict[str, Any] = {
            "name": self.name,
            "version": version,
            "hosts": {
                host.name: {
                    "address": host.address,
                    "user": host.user,
                    "identity_file": str(host.client_key),
                    "known_hosts": str(host.known_hosts),
                    "become": True,
                    "connect_deadline": self.connect_deadline,
                }
                for host in self.hosts
            },
            "components": {"backend": component},
            "rescue": {"evidence": {"directory": "forensics"}},
            **self.extra,
            **changes,
        }
        path = self.directory / "plan.yaml"
        path.write_text(yaml.safe_dump(plan, sort_keys=False))
        return path

    def command(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Result:
        """Run ``deployguard`` as a user does."""
        return Result(
            subprocess.run(
                [sys.executable, "-m", "deployguard", *arguments],
                cwd=self.directory,
                env={**os.environ, **self.environment, **(environment or {})},
                check=False,
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                timeout=300,
            )
        )

    def apply(self, version: str, *options: str, fault: str = "none", **changes: Any) -> Result:
        """Build, pack and deploy a version."""
        if not (self.directory / "build" / version).exists():
            self.release(version, fault=fault, based_on="v1" if version == "v1" else "v2")
        self.artifact(version)
        self.write_plan(version, **changes)
        return self.command("apply", "plan.yaml", "--json", *options)

    def served(self, host: Host) -> dict[str, Any]:
        """What the host serves now."""
        url = f"http://{host.address}:{self.port}/health"
        with urllib.request.urlopen(url, timeout=5) as answer:
            found: dict[str, Any] = json.loads(answer.read())
        return found

    def tree(self, host: Host) -> dict[bytes, Entry]:
        """The live tree, whole."""
        return host.tree(self._root(host))

    def _root(self, host: Host) -> str:
        if self.layout != "releases":
            return self.path
        return host.run(["readlink", "-f", self.live]).stdout.decode().strip()

    def unit_state(self, host: Host) -> Sequence[str]:
        """Unit file content and whether the unit is active and enabled."""
        show = ["systemctl", "show", self.unit, "--property=ActiveState,UnitFileState"]
        text = host.run(show).stdout.decode().split()
        return [*sorted(text), host.read(f"/etc/systemd/system/{self.unit}").decode()]

    def leftovers(self, host: Host) -> list[str]:
        """Whatever of deployguard's stands beside the live tree and its unit, and should not.

        Trees that are retained for a rollback stand in the host's own record, and belong there.
        """
        kept = set()
        for folder in host.run(["ls", "/var/lib/deployguard/live"]).stdout.decode().split():
            record = json.loads(host.read(f"/var/lib/deployguard/live/{folder}/record.json"))
            kept |= {record["tree"], *(older["tree"] for older in record["previous"])}
        find = host.run(
            [
                "find",
                "/srv",
                "/etc/systemd/system",
                "-maxdepth",
                "3",
                "(",
                "-name",
                f".{self.name}.dg-*",
                "-o",
                "-name",
                f".{self.unit}.dg-*",
                "-o",
                "-name",
                ".current.*",
                "-o",
                "-name",
                "*.partial",
                "-o",
                "-path",
                f"/srv/.{self.name}.deployguard/*",
                "-o",
                "-path",
                f"{self.path}/releases/*",
                ")",
                "-prune",
                "-print",
            ],
            check=False,
        )
        stray = [path for path in find.stdout.decode().split() if path not in kept]
        locks = host.run(["sh", "-c", "ls /var/lib/deployguard/locks/*.json 2>/dev/null || true"])
        return [*stray, *locks.stdout.decode().split()]
