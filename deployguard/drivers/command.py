"""A service of any kind, driven by the user's own start, stop and status commands.

What ``start`` and ``stop`` answer differs from program to program when there is nothing to do, and
some come back before the deed is done. So it is ``status`` that is believed, except of the start of
the new version, which the checks judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deployguard.drivers.base import Action, Observation, Site, Steps, operation, run
from deployguard.plan.model import CommandService, Component, ManagedFile

ANY = list(range(256))


class CommandDriver:
    """See the module. Exit status 0 of ``status`` means running."""

    name = "command"

    def observe(self, component: Component, site: Site) -> list[dict[str, Any]]:
        service = _service(component)
        return [
            {
                "field": "status",
                "kind": "status",
                "argv": list(service.status),
                "env": dict(service.env),
                "timeout": service.timeout,
            }
        ]

    def files(self, component: Component) -> dict[str, ManagedFile]:
        return {}

    def steps(self, name: str, component: Component, site: Site, observed: Observation) -> Steps:
        service = _service(component)
        start = self._run(service, service.start)
        stop = {**self._run(service, service.stop), "ok": ANY}
        up = {**self._run(service, service.status), "until": service.timeout}
        down = {**up, "ok": list(range(1, 256))}
        stopping = []
        if self.running(observed):
            again = [{**start, "ok": ANY, "apart": True}, up]
            stopping.append(operation(name, "stop", f"stop {name}", [stop, down], again))
        starting = operation(name, "start", f"start {name}", [start], [stop, down])
        return Steps(stop=stopping, start=[starting])

    def _run(self, service: CommandService, argv: Sequence[str]) -> Action:
        return run(argv, env=service.env, timeout=service.timeout)

    def process_probe(self, component: Component, site: Site) -> dict[str, Any]:
        service = _service(component)
        return {
            "driver": "command",
            "argv": list(service.status),
            "env": dict(service.env),
        }

    def running(self, observed: Observation) -> bool:
        return bool(observed.get("status", {}).get("status") == 0)

    def titles(self, component: Component) -> list[str]:
        return [" ".join(_service(component).start)]


def _service(component: Component) -> CommandService:
    assert component.service is not None and component.service.command is not None
    return component.service.command
