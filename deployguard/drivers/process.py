"""A program the host program supervises itself, with a pid file and a log.

For localhost, demos and machines without a service manager. The pid file holds the start time of
the process beside its pid, because a pid alone comes round again, and the very command line that
was started, because an undo has to start the old one and not the plan's.
"""

from __future__ import annotations

from typing import Any

from deployguard.drivers.base import Action, Observation, Site, Steps, operation
from deployguard.plan.model import Component, ManagedFile, ProcessService


class ProcessDriver:
    """See the module."""

    name = "process"

    def observe(self, component: Component, site: Site) -> list[dict[str, Any]]:
        return [
            {
                "field": "process",
                "kind": "process",
                "pid_file": _pid_file(component, site),
            }
        ]

    def files(self, component: Component) -> dict[str, ManagedFile]:
        return {}

    def steps(self, name: str, component: Component, site: Site, observed: Observation) -> Steps:
        service = _service(component)
        stop: Action = {
            "act": "terminate",
            "pid_file": _pid_file(component, site),
            "signal": service.stop_signal,
            "timeout": service.stop_timeout,
        }
        start: Action = {
            "act": "spawn",
            "argv": list(service.argv),
            "env": dict(service.env),
            "cwd": service.directory or site.working_directory,
            "log": f"{site.service_stem(component.path)}.log",
            "pid_file": _pid_file(component, site),
        }
        stopping = []
        if self.running(observed):
            old: Action = {**start, **observed["process"]["started_as"]}
            stopping.append(operation(name, "stop", f"stop {name}", [stop], [old]))
        return Steps(
            stop=stopping, start=[operation(name, "start", f"start {name}", [start], [stop])]
        )

    def process_probe(self, component: Component, site: Site) -> dict[str, Any]:
        return {
            "driver": "process",
            "pid_file": _pid_file(component, site),
            "log": f"{site.service_stem(component.path)}.log",
        }

    def running(self, observed: Observation) -> bool:
        return bool(observed.get("process", {}).get("running"))

    def titles(self, component: Component) -> list[str]:
        return [_service(component).argv[0]]


def _pid_file(component: Component, site: Site) -> str:
    return f"{site.service_stem(component.path)}.pid"


def _service(component: Component) -> ProcessService:
    assert component.service is not None and component.service.process is not None
    return component.service.process
