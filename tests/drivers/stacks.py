"""Compose stacks for the driver tests, on a host with real engines and no registry.

The one image that everything is built from is busybox, from this machine's own package, in an
image of its own from scratch. What a version is stands in the image that is built from its tree.
"""

from __future__ import annotations

import io
import tarfile
import urllib.request
from pathlib import Path
from typing import Any

from deployguard.drivers.registry import DRIVERS
from deployguard.plan.model import Host
from deployguard.testing import DriverCase
from deployguard.transport import registry
from tests.drivers import services
from tests.drivers.cases import component
from tests.fleet import Fleet
from tests.fleet import Host as Machine
from tests.fleet.plugin import compose_plugin

#: On the hosts: both engines, and the compose tools that Debian has for them.
PACKAGES = ("busybox-static", "docker.io", "docker-compose", "podman", "podman-compose")
BASE = "deployguard-test-base"
#: The same with the host's own Python in it.
PYTHON = "deployguard-test-python"

# The hosts have no cgroup controllers, no overlay can stand on their disk, which is one, and the
# rules that Docker makes for packets drop those for podman.
FILES = {
    "/etc/docker/daemon.json": '{"iptables": false}',
    "/etc/containers/storage.conf": """\
[storage]
driver = "vfs"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
""",
    "/etc/containers/containers.conf": """\
[containers]
default_ulimits = []
pids_limit = 0
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
""",
}

COMPOSE = """\
services:
  web:
    build: .
    image: {name}-web
    command: [sh, /run.sh]
    ports: ["{port}:80"]
"""

DOCKERFILE = f"FROM {BASE}\nCOPY VERSION run.sh /\n"

RUN = """\
version=$(cat /VERSION)
[ "$version" = crash ] && exit 3
case $version in stubborn) trap "" TERM ;; *) trap "exit 0" TERM ;; esac
mkdir -p /www && cp /VERSION /www/VERSION
httpd -f -p 80 -h /www &
while :; do wait $!; kill -0 $! 2>/dev/null || exit 4; done
"""


def engines_on(machine: Machine) -> None:
    """Start docker on a host that has the packages, and give both engines the base image."""
    machine.small_disk("/var/lib/docker", 4 << 30, filesystem="ext4")
    for path, text in FILES.items():
        machine.write(path, text)
    machine.run(["systemctl", "reset-failed"])
    machine.run(["systemctl", "restart", "docker"])
    machine.run(["iptables", "-P", "FORWARD", "ACCEPT"])
    tree = _base_tree(machine)
    machine.run(["docker", "import", "-", BASE], input=tree)
    machine.run(["podman", "import", "-", BASE], input=tree)


def plugin_on(machine: Machine) -> None:
    """Give docker its compose plugin."""
    plugin = "/usr/libexec/docker/cli-plugins/docker-compose"
    if not machine.path(plugin).exists():
        machine.write(plugin, compose_plugin().read_bytes(), mode=0o755)


def _base_tree(machine: Machine) -> bytes:
    """A root file system of busybox alone."""
    found = io.BytesIO()
    busybox = machine.read("/bin/busybox")
    applets = machine.run(["busybox", "--list"]).stdout.decode().split()
    with tarfile.open(fileobj=found, mode="w") as tar:
        for folder in ("bin", "tmp", "etc"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        program = tarfile.TarInfo("bin/busybox")
        program.size, program.mode = len(busybox), 0o755
        tar.addfile(program, io.BytesIO(busybox))
        for applet in applets:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            if applet != "busybox":
                tar.addfile(link)
    return found.getvalue()


def python_on(machine: Machine) -> None:
    """Give docker an image with Python, made of what the host has installed."""
    if machine.run(["docker", "image", "inspect", PYTHON], check=False).returncode == 0:
        return
    machine.run(["sh", "-ec", _PYTHON_IMAGE, "sh", BASE, PYTHON])


_PYTHON_IMAGE = """\
python=$(readlink -f /usr/bin/python3)
folder=$(mktemp -d)
ln -s "$python" "$folder/python3"
libraries=$(ldd "$python" | grep -o '/[^ ]*' | sort -u)
tar -C / -chf "$folder/python.tar" --exclude=test --exclude=__pycache__ \
  ${python#/} usr/lib/$(basename "$python") $(echo "$libraries" | sed s,^/,,)
printf 'FROM %s\nADD python.tar /\nCOPY python3 /bin/\n' "$1" > "$folder/Dockerfile"
rm "$folder/python3" && printf '#!/bin/sh\nexec %s "$@"\n' "$python" > "$folder/python3"
chmod 755 "$folder/python3"
docker build -q -t "$2" "$folder"
"""


def release(directory: Path, name: str, number: int, version: str) -> Path:
    """The tree of a version of a stack; made once."""
    tree = directory / "build" / version
    if not tree.exists():
        tree.mkdir(parents=True)
        (tree / "VERSION").write_text(version)
        (tree / "run.sh").write_text(RUN)
        (tree / "Dockerfile").write_text(DOCKERFILE)
        text = COMPOSE.format(name=name, port=number)
        (tree / "docker-compose.yml").write_text(text)
    return tree


def served(address: str, number: int) -> str | None:
    """The version that answers, or ``None`` where nobody does."""
    try:
        with urllib.request.urlopen(f"http://{address}:{number}/VERSION", timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return None


def compose_case(
    fleet: Fleet, machine: Machine, directory: Path, tool: str, layout: str = "in_place"
) -> DriverCase:
    """A stack of one service, built on the host."""
    host = Host.model_validate(
        {
            "address": machine.address,
            "user": machine.user,
            "identity_file": str(fleet.client_key),
            "known_hosts": str(fleet.known_hosts),
            "become": True,
        }
    )
    number = services.port()
    name = f"conform{number}"
    engine = "podman" if tool == "podman-compose" else "docker"
    service: dict[str, Any] = {"compose": {"tool": tool, "stop_timeout": "1s"}}

    def stop() -> None:
        label = f"label=com.docker.compose.project={name}"
        found = machine.run([engine, "ps", "-q", "--filter", label]).stdout.decode().split()
        if found:
            machine.run([engine, "stop", "-t", "1", *found])

    return DriverCase(
        driver=DRIVERS["compose"],
        component=lambda version: component(f"/srv/{name}", service, layout),
        release=lambda version: release(directory, name, number, version),
        connect=lambda: registry.connect(machine.name, host),
        served=lambda: served(machine.address, number),
        stop=stop,
    )
