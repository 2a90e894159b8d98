"""The compose plugin of docker, from a Debian package, for hosts whose release has none.

Debian 12 has the old `docker-compose` only. The plugin is one program that needs nothing but a C
library, so the package of the next release will do; on Ubuntu it is a package of its own.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.fleet import machine
from tests.fleet.base import STATE

_WHERE = "usr/libexec/docker/cli-plugins/docker-compose"
_ELSEWHERE = "usr/lib/docker/cli-plugins/docker-compose"
_NEXT = "trixie"


def compose_plugin() -> Path:
    """Where the plugin stands on this machine; fetched once. Raises FleetUnavailable."""
    kept = STATE / "plugins" / "docker-compose"
    if kept.exists():
        return kept
    ubuntu = "ubuntu" in platform.freedesktop_os_release().get("ID", "")
    name = "docker-compose-v2" if ubuntu else "docker-compose"
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        try:
            found = _download(Path(folder), name, None if ubuntu else _NEXT)
        except (OSError, subprocess.CalledProcessError) as error:
            raise machine.FleetUnavailable(f"cannot fetch {name}: {error}") from error
        shutil.copy(found, kept.with_suffix(".new"))
        kept.with_suffix(".new").rename(kept)
    return kept


def _download(folder: Path, name: str, suite: str | None) -> Path:
    """The plugin out of the package, unpacked in `folder`; nothing is installed."""
    options: list[str] = []
    if suite is not None:
        source = machine.mirror()
        signed = f"[signed-by={source.keyring}] " if source.keyring else ""
        (folder / "sources.list").write_text(f"deb {signed}{source.url} {suite} main\n")
        (folder / "lists/partial").mkdir(parents=True)
        settings = {
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::lists": folder / "lists",
            "Dir::Cache": folder,
        }
        options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    # As root, apt would hand the download to a user who may not write here.
    options += ["-o", "APT::Sandbox::User=root"]
    for argv in (
        ["apt-get", "-q", *options, "update"],
        ["apt-get", "-q", *options, "download", name],
    ):
        subprocess.run([*machine.outside(), *argv], cwd=folder, check=True, capture_output=True)
    package = next(folder.glob(f"{name}_*.deb"))
    machine.command(["dpkg-deb", "-x", str(package), str(folder / "tree")])
    places = [folder / "tree" / place for place in (_WHERE, _ELSEWHERE)]
    return next(place for place in places if place.exists())
