"""A service of any kind, driven by the user's own start, stop and status commands."""

from __future__ import annotations

from typing import Any

from deployguard.drivers.base import Observation, Site, Steps, operation, run
from deployguard.plan.model import CommandService, Component, ManagedFile


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
        start = run(service.start, env=service.env, timeout=service.timeout)
        stop = run(service.stop, env=service.env, timeout=service.timeout)
        stopping = []
        if self.running(observed):
            stopping.append(operation(name, "stop", f"stop {name}", [stop], [start]))
        return Steps(
            stop=stopping, start=[operation(name, "start", f"start {name}", [start], [stop])]
        )

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
