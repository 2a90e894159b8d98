"""The job that every contender does, and the proof that it did it.

A release of some 3,670 files is live on every host behind a systemd unit; another one, which the
host has never seen, is deployed. Afterwards every host must serve the new version, and its tree
must be, entry by entry, the one that was built. Nothing here asks a contender how it went.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bench.disks import Disks
from bench.measure import await_quiet
from tests.fleet.fleet import Fleet
from tests.fleet.host import Host
from tests.releases import django_release, pack

HOME = Path(os.environ.get("DEPLOYGUARD_BENCH_HOME", "/var/tmp/deployguard-bench"))
PORT = 8000
NAME = "shop"
ROOT = "/srv/shop"
UNIT = "shop.service"
URL = f"http://127.0.0.1:{PORT}/health"
#: What the versions are made of; the sick one starts and answers 503.
VERSIONS = {"v1": ("v1", "none"), "v2": ("v2", "none"), "sick": ("v2", "unhealthy")}

UNIT_FILE = f"""\
[Unit]
Description=The shop
StartLimitIntervalSec=0

[Service]
WorkingDirectory={ROOT}/current
ExecStart=/usr/bin/python3 {ROOT}/current/server.py {PORT}
Environment=PYTHONDONTWRITEBYTECODE=1

[Install]
WantedBy=multi-user.target
"""

# One line an entry, the same on the host and here: kind, mode, link target, hash, path.
TREE = r"""
cd "$1" && {
  find . -mindepth 1 \( -type d -o -type l \) -printf '%y %m %l %P\n'
  find . -type f -printf '%y %m %P\n'
  find . -type f -print0 | sort -z | xargs -0 sha256sum
} | LC_ALL=C sort | sha256sum
"""

WIPE = f"""
systemctl stop {UNIT} 2>/dev/null
systemctl reset-failed {UNIT} 2>/dev/null
rm -rf {ROOT} /var/lib/deployguard /root/.ansible /home/*/.ansible /tmp/* /tmp/.[!.]* \
  /home/*/*.tar.gz
systemctl enable -q {UNIT}
"""

Result = TypeVar("Result")


class Wrong(Exception):
    """A contender's deploy did not do what it had to do."""


@dataclass(frozen=True)
class Release:
    """A version, built and packed."""

    version: str
    directory: Path
    archive: Path
    digest: str
    files: int
    size: int


class Job:
    """The hosts, the releases, and the questions asked of both."""

    def __init__(self, fleet: Fleet, disks: Disks) -> None:
        self.fleet = fleet
        self.folder = disks.scratch()
        self.hosts: list[Host] = []
        self.releases = {version: _build(self.folder, version) for version in VERSIONS}
        self._disks = disks

    def use(self, count: int) -> None:
        """Go on with the first ``count`` hosts."""
        self.hosts = self._disks.grow(self.fleet, count)

    def wipe(self) -> None:
        """Every host as before the first deploy: the unit is there, nothing else is."""

        def one(host: Host) -> None:
            host.write(f"/etc/systemd/system/{UNIT}", UNIT_FILE)
            host.run(["sh", "-c", f"systemctl daemon-reload; {WIPE}"])

        self._all(one)

    def forget_all_but(self, version: str) -> None:
        """Remove every release except the one that is live, and what a tool left elsewhere."""
        script = (
            f'cd {ROOT}/releases && for r in * .[!.]*; do [ "$r" = "$1" ] || rm -rf "$r"; done; '
            "rm -rf /tmp/* /tmp/.[!.]* /root/.ansible /home/*/.ansible"
        )
        self._all(lambda host: host.run(["sh", "-c", script, "sh", version]))

    def settle(self) -> None:
        """Let what was written reach the disk now, and wait until the machine is quiet."""
        os.sync()
        await_quiet()

    def verify(self, version: str) -> None:
        """Raises :class:`Wrong` unless every host has and serves exactly this version."""
        wrong = [complaint for complaint in self._all(self._complaint(version)) if complaint]
        if wrong:
            raise Wrong("; ".join(wrong[:3]))

    def _complaint(self, version: str) -> Callable[[Host], str]:
        expected = self.releases[version]

        def one(host: Host) -> str:
            try:
                served = _served(host)
            except OSError as error:
                return f"{host.name} does not serve: {error}"
            if served.get("version") != version or served.get("status") != "healthy":
                return f"{host.name} serves {served}"
            done = host.run(["sh", "-c", TREE, "sh", f"{ROOT}/current"])
            if done.stdout.decode().split()[0] != expected.digest:
                return f"{host.name}: the tree is not that of {version}"
            return ""

        return one

    def _all(self, work: Callable[[Host], Result]) -> list[Result]:
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(work, self.hosts))


def _served(host: Host) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://{host.address}:{PORT}/health", timeout=10) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found


def _build(folder: Path, version: str) -> Release:
    django, fault = VERSIONS[version]
    directory = folder / "build" / version
    shutil.rmtree(directory, ignore_errors=True)
    django_release(directory, django, fault=fault, name=version)
    archive = pack(directory, folder / f"{NAME}-{version}.tar.gz")
    paths = [path for path in directory.rglob("*") if path.is_file()]
    return Release(
        version,
        directory,
        archive,
        tree_digest(directory),
        len(paths),
        sum(path.stat().st_size for path in paths),
    )


def tree_digest(directory: Path) -> str:
    """The digest of a tree here, made by the same commands as on a host."""
    done = subprocess.run(
        ["sh", "-c", TREE, "sh", str(directory)], check=True, capture_output=True, text=True
    )
    return done.stdout.split()[0]
