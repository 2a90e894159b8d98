"""Runs a plan to the letter as it is published, hosts and all: ssh_config leads its names here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.fleet.fleet import Fleet
from tests.fleet.host import Host


class Published:
    """A user with a plan in ``folder`` and an ssh_config that knows the plan's hosts."""

    def __init__(self, fleet: Fleet, folder: Path, names: list[str]) -> None:
        fleet.need(len(names))
        self.folder = folder
        self.hosts: Mapping[str, Host] = dict(zip(names, fleet.hosts, strict=False))
        self.home = folder.parent / "home"
        (self.home / ".ssh").mkdir(parents=True)
        (self.home / ".ssh" / "config").write_text(
            "".join(
                f"Host {name}\n  HostName {host.address}\n  IdentityFile {host.client_key}\n"
                f"  UserKnownHostsFile {host.known_hosts}\n"
                for name, host in self.hosts.items()
            )
        )
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("GITHUB_", "DEPLOYGUARD_", "SSH_"))
        }
        self.environment["HOME"] = str(self.home)
        # `deployguard` as a command, for what runs the words of a document as they are.
        self.environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """A command in the plan's folder; both its channels are in ``stdout``, as in a terminal."""
        return subprocess.run(
            argv,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )


def served(host: Host, port: int, path: str = "/health") -> dict[str, Any]:
    """What a host serves now, asked from outside it."""
    url = f"http://{host.address}:{port}{path}"
    with urllib.request.urlopen(url, timeout=5) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found
