"""Drivers with one mistake each, for the suite to find."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from deployguard.drivers.base import Observation, Operation, Site, Steps
from deployguard.drivers.process import ProcessDriver
from deployguard.plan.model import Component


def _changed(steps: Steps, change: Any) -> Steps:
    return Steps(
        stop=[change(operation) for operation in steps.stop],
        start=[change(operation) for operation in steps.start],
    )


class Spoilt(ProcessDriver):
    """A driver whose operations are changed."""

    def change(self, operation: Operation) -> Operation:
        """The mistake."""
        raise NotImplementedError

    def steps(self, name: str, component: Component, site: Site, observed: Observation) -> Steps:
        return _changed(super().steps(name, component, site, observed), self.change)


class Impure(Spoilt):
    """Counts its calls."""

    calls = itertools.count()

    def change(self, operation: Operation) -> Operation:
        return {**operation, "title": f"{operation['title']} {next(self.calls)}"}


class NoUndo(Spoilt):
    """Forgets the way back."""

    def change(self, operation: Operation) -> Operation:
        return {**operation, "undo": []}


class Shell(Spoilt):
    """Composes a command line."""

    def change(self, operation: Operation) -> Operation:
        line = {"act": "run", "argv": ["/bin/sh", "-c", f"echo {operation['id']}"], "timeout": 1.0}
        return {**operation, "do": [*operation["do"], line]}


class SameId(Spoilt):
    """Uses one id for everything."""

    def change(self, operation: Operation) -> Operation:
        return {**operation, "id": "app:step"}


class NotData(Spoilt):
    """Puts an object into an operation that JSON does not give back."""

    def change(self, operation: Operation) -> Operation:
        return {**operation, "extra": (1, 2)}


class StartsThePlans(ProcessDriver):
    """Starts on the way back what the plan says, and not what ran."""

    def steps(self, name: str, component: Component, site: Site, observed: Observation) -> Steps:
        steps = super().steps(name, component, site, observed)
        return replace(steps, stop=[{**op, "undo": steps.start[0]["undo"]} for op in steps.stop])


class Optimist(ProcessDriver):
    """Its probe asks nobody."""

    def process_probe(self, component: Component, site: Site) -> dict[str, Any]:
        return {"driver": "command", "argv": ["true"], "env": {}}


class Blind(ProcessDriver):
    """Believes that nothing ever runs."""

    def running(self, observed: Observation) -> bool:
        return False


class Placed(ProcessDriver):
    """Asks about the live tree, which nobody knows yet."""

    def observe(self, component: Component, site: Site) -> list[dict[str, Any]]:
        questions = super().observe(component, site)
        argv = ["test", "-d", site.live or "/"]
        return [*questions, {"field": "tree", "kind": "status", "argv": argv}]


class Mute(ProcessDriver):
    """Does not say what restarts."""

    def titles(self, component: Component) -> list[str]:
        return []
