"""The same service as a process of PM2, whose daemon a boot starts with all that was saved."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.crash.ground import NAME, PORT, Ground, make_releases
from tests.fleet.host import Host
from tests.releases import pack

ECOSYSTEM = """\
module.exports = {{ apps: [{{
  name: "{name}", script: "server.py", interpreter: "python3", args: "{port}",
  env: {{ RELEASE: "{version}", PYTHONDONTWRITEBYTECODE: "1" }},
}}] }};
"""


def make_pm2_releases(directory: Path) -> Path:
    """The usual ones, each with the file from which PM2 starts it."""
    make_releases(directory, "releases")
    for version in ("v1", "v2", "bad"):
        file = directory / version / "ecosystem.config.js"
        file.write_text(ECOSYSTEM.format(name=NAME, port=PORT, version=version))
        os.utime(file, (10**9, 10**9))
        os.utime(file.parent, (10**9, 10**9))
        pack(directory / version, directory / f"{version}.tar.gz")
    return directory


class Pm2Ground(Ground):
    """Root deploys, and the deploy user's PM2 runs it."""

    kind = "pm2"
    #: Whether a boot starts PM2, or nobody does but the dead-man.
    boots = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.worlds = {
            version: replace(world, unit=self._saved(version))
            for version, world in self.worlds.items()
        }
        health = f"http://127.0.0.1:{PORT}/health"
        field = {"status": "healthy", "version": "{{ version }}"}
        # A boot starts Node, PM2 and then the program, and this machine is busy.
        self.component = {
            "checks": [
                {"process": {"deadline": "60s"}},
                {"http": {"url": health, "json": field, "interval": "0.2s", "deadline": "60s"}},
            ]
        }

    def runs_it(self) -> dict[str, Any]:
        ecosystem = {"name": self.name, "ecosystem": "ecosystem.config.js", "save": True}
        return {"pm2": {**ecosystem, "user": self.hosts[0].user, **self.service}}

    def make_new(self, host: Host) -> None:
        super().make_new(host)
        if self.boots:
            # As its documentation has it, so that a boot brings back what was saved.
            argv = ["pm2", "startup", "systemd", "-u", host.user, "--hp", f"/home/{host.user}"]
            host.run(argv)
            host.run(["rm", "-rf", "/root/.pm2"])

    @property
    def manager(self) -> str:
        """The unit that a boot starts its daemon with."""
        return "pm2-deploy.service"

    def story(self, host: Host) -> str:
        """With what PM2 has to say."""
        log = host.path(f"/home/{host.user}/.pm2/pm2.log")
        said = log.read_text(errors="replace").splitlines()[-40:] if log.exists() else []
        return "\n  ".join([super().story(host), *said])

    def definition(self, host: Host) -> str:
        """What a boot would start."""
        text = host.path(f"/home/{host.user}/.pm2/dump.pm2").read_text()
        return self._saved(*(entry["env"]["RELEASE"] for entry in json.loads(text)))

    def _saved(self, *versions: str) -> str:
        return f"PM2 has saved {', '.join(versions)}"

    def _units(self, host: Host) -> str:
        """Any unit of ours; then one process, online, of the version that is live."""
        ours = "systemctl list-units --all --plain --no-legend 'deployguard*'"
        script = f"{ours}; ls /run/systemd/transient | grep deployguard"
        if units := host.run(["sh", "-c", script], check=False).stdout.decode().split():
            return " ".join(units)
        argv = ["runuser", "-u", host.user, "--", "env", f"HOME=/home/{host.user}", "pm2", "jlist"]
        said = host.run(argv, check=False).stdout.decode()
        try:
            listed = json.loads(said[said.index("[{") :])
        except ValueError:
            return said
        state = [
            (entry["name"], entry["pm2_env"]["status"], entry["pm2_env"]["env"]["RELEASE"])
            for entry in listed
        ]
        wanted = [(self.name, "online", self.live_version(host))]
        return "active enabled" if state == wanted else str(state)
