"""Which driver serves a component. The table is the only place that names them all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployguard.drivers.base import Driver, Observation, Site, Steps
from deployguard.drivers.command import CommandDriver
from deployguard.drivers.compose import ComposeDriver
from deployguard.drivers.kubernetes import KubernetesDriver
from deployguard.drivers.pm2 import Pm2Driver
from deployguard.drivers.process import ProcessDriver
from deployguard.drivers.systemd import SystemdDriver
from deployguard.plan.model import Component, ManagedFile

__all__ = ["DRIVERS", "NoService", "driver_of"]


class NoService:
    """A component without a service: files only."""

    name = "none"

    def observe(self, component: Component, site: Site) -> list[dict[str, Any]]:
        return []

    def files(self, component: Component) -> dict[str, ManagedFile]:
        return {}

    def steps(self, name: str, component: Component, site: Site, observed: Observation) -> Steps:
        return Steps()

    def process_probe(self, component: Component, site: Site) -> dict[str, Any]:
        return {}

    def running(self, observed: Observation) -> bool:
        return False

    def titles(self, component: Component) -> list[str]:
        return []


DRIVERS: Mapping[str, Driver] = {
    driver.name: driver
    for driver in (
        SystemdDriver(),
        ProcessDriver(),
        CommandDriver(),
        Pm2Driver(),
        ComposeDriver(),
        KubernetesDriver(),
        NoService(),
    )
}


def driver_of(component: Component) -> Driver:
    """The driver of the component's service."""
    return DRIVERS[component.service.kind if component.service is not None else "none"]
