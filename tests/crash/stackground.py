"""A ground whose service is a compose stack on a real Docker Engine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.crash.ground import PORT, STATE, Ground
from tests.drivers.stacks import BASE, engines_on
from tests.fleet.host import Host
from tests.releases import pack

COMPOSE = f"""\
services:
  web:
    build: .
    image: shop-web
    command: [sh, /run.sh]
    ports: ["{PORT}:80"]
    restart: always
    depends_on: [store]
  store:
    image: {BASE}
    command: [sh, -c, 'trap "exit 0" TERM; while :; do sleep 1 & wait $$!; done']
    restart: unless-stopped
"""
DOCKERFILE = "FROM {base}\nLABEL shop={version}\nCOPY run.sh VERSION /\n"
RUN = """\
[ "$(cat /VERSION)" = bad ] && exit 3
trap "exit 0" TERM
mkdir -p /www
printf '{"status": "healthy", "version": "%s"}' "$(cat /VERSION)" > /www/health
httpd -f -p 80 -h /www &
wait $!
"""


def make_stacks(directory: Path) -> Path:
    """v1, v2 and one whose container ends at once."""
    for version in ("v1", "v2", "bad"):
        folder = directory / version
        folder.mkdir(parents=True)
        (folder / "docker-compose.yml").write_text(COMPOSE)
        (folder / "Dockerfile").write_text(DOCKERFILE.format(base=BASE, version=version))
        (folder / "run.sh").write_text(RUN)
        (folder / "VERSION").write_text(version)
        # Ground reads one for every version.
        (directory / f"{version}.service").write_text(version)
        for path in folder.rglob("*"):
            os.utime(path, (10**9 + ord(version[-1]), 10**9 + ord(version[-1])))
        pack(folder, directory / f"{version}.tar.gz")
    return directory


class StackGround(Ground):
    """What runs is read from the engine: the label of the image of each container."""

    kind = "stack"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        health = f"http://127.0.0.1:{PORT}/health"
        field = {"status": "healthy", "version": "{{ version }}"}
        # A boot starts Docker and then the containers, and this machine is busy.
        self.component = {
            "checks": [
                {"process": {"deadline": "60s", "min_healthy_time": "1s"}},
                {"http": {"url": health, "json": field, "interval": "0.2s", "deadline": "60s"}},
            ],
        }

    def runs_it(self) -> dict[str, Any]:
        return {"compose": {"tool": "docker-compose", "stop_timeout": "2s", **self.service}}

    def set_up(self) -> None:
        """v1 is live, on an engine that is new."""
        for host in self.hosts:
            if host.path(STATE).exists():
                host.reset()
            if host.run(["docker", "image", "inspect", BASE], check=False).returncode != 0:
                engines_on(host)
        super().set_up()

    def definition(self, host: Host) -> str:
        """Which version's image there is a container of."""
        return " ".join(sorted(set(self._inspect(host, "web", '{{index .Config.Labels "shop"}}'))))

    def _inspect(self, host: Host, service: str, form: str) -> list[str]:
        label = f"label=com.docker.compose.service={service}"
        ids = host.run(["docker", "ps", "-aq", "--filter", label]).stdout.decode().split()
        if not ids:
            return []
        argv = ["docker", "inspect", "--format", form, *ids]
        return host.run(argv).stdout.decode().strip().splitlines()

    def _units(self, host: Host) -> str:
        states = [
            state
            for service in ("web", "store")
            for state in self._inspect(host, service, "{{.State.Status}}")
        ]
        script = (
            "systemctl list-units --all --plain --no-legend 'deployguard*'; "
            "ls /run/systemd/transient | grep deployguard"
        )
        ours = " ".join(host.run(["sh", "-c", script], check=False).stdout.decode().split())
        if states == ["running", "running"] and not ours:
            return "active enabled"
        return f"{states} {ours}"
