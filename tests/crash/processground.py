"""The same service as a process with a pid file: nobody but the dead-man starts it again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.crash.ground import PORT, Ground
from tests.fleet.host import Host


class ProcessGround(Ground):
    """Root runs it, and no unit does."""

    kind = "process"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.worlds = {
            version: replace(world, unit=self.definition(self.hosts[0]))
            for version, world in self.worlds.items()
        }

    def runs_it(self) -> dict[str, Any]:
        env = {"PYTHONDONTWRITEBYTECODE": "1"}
        return {"process": {"argv": ["python3", "server.py", str(PORT)], "env": env}}

    def definition(self, host: Host) -> str:
        return "nothing beyond the tree"

    def _units(self, host: Host) -> str:
        """Any unit of ours that systemd knows: the process is to be no part of one."""
        script = (
            "systemctl list-units --all --plain --no-legend 'deployguard*'; "
            "ls /run/systemd/transient | grep deployguard"
        )
        found = host.run(["sh", "-c", script], check=False).stdout.decode().split()
        return " ".join(found) or "active enabled"
