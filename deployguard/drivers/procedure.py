"""The whole procedure of one host: what is done in which order, each step with its undo.

The order of the list is the order of the deploy; the undo is the same list walked backwards, which
gives the rescue its order for free: the new services stop in reverse dependency order, the trees
are swapped back, the old services start in dependency order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from deployguard.drivers.base import (
    Driver,
    Observation,
    Operation,
    Site,
    Steps,
    operation,
    swap,
)
from deployguard.drivers.registry import driver_of
from deployguard.drivers.tasks import down_steps, task_steps
from deployguard.onhost.places import WHOLE
from deployguard.plan.model import Component, Task

__all__ = ["build"]


def build(
    components: Mapping[str, Component],
    order: Sequence[str],
    sites: Mapping[str, Site],
    observed: Mapping[str, Observation],
    tasks: Sequence[Task] = (),
    driver_for: Callable[[Component], Driver] = driver_of,
    down: Collection[str] = (),
    dumps: str = "",
) -> list[Operation]:
    """The procedure for the components in ``order`` (dependencies first) on one host.

    ``down`` names the migrations among the tasks that are taken back; ``dumps`` is where dumps go
    on the host. See :mod:`deployguard.drivers.tasks`.
    """
    steps: dict[str, Steps] = {
        name: driver_for(components[name]).steps(
            name, components[name], sites[name], observed.get(name, {})
        )
        for name in order
    }
    procedure: list[Operation] = [_tag(name, sites[name]) for name in order if sites[name].commit]
    for name in order:
        procedure += steps[name].prepare
    procedure += task_steps(tasks, "before_stop", sites, down, dumps)
    for name in reversed(order):
        procedure += steps[name].stop
    for name in order:
        procedure.append(
            operation(
                name, "snapshot", f"record {name}", [{"act": "snapshot", "component": name}], []
            )
        )
    procedure += down_steps(tasks, sites, down, dumps)
    for name in order:
        procedure += steps[name].refresh_before
    for name in order:
        procedure += _swaps(name, components[name], sites[name])
    for name in order:
        procedure += steps[name].refresh_after
    procedure += task_steps(tasks, "before_start", sites, down, dumps)
    for name in order:
        procedure += steps[name].start
    procedure += task_steps(tasks, "after_start", sites, down, dumps)
    return procedure


def _tag(name: str, site: Site) -> Operation:
    """Before anything moves: whatever comes, a person finds by this name what ran."""
    made = {"act": "tag", "path": site.live, "name": site.tag, "commit": site.commit}
    return operation(name, "tag", f"tag {site.commit[:12]} as {site.tag}", [made], [])


def _swaps(name: str, component: Component, site: Site) -> list[Operation]:
    operations: list[Operation] = []
    for path, beside in site.files.items():
        operations.append(swap(name, f"file:{path}", f"swap {path}", path, beside))
    if component.layout in WHOLE and component.keep and site.exists:
        there = {"source": site.live, "target": site.beside, "patterns": list(component.keep)}
        back = {"source": site.beside, "target": site.live, "patterns": list(component.keep)}
        operations.append(
            operation(
                name,
                "keep",
                f"carry the kept paths of {name}",
                [{"act": "carry", **there}],
                [{"act": "carry", **back}],
            )
        )
    operations.append(swap(name, "tree", f"swap {site.live}", site.live, site.beside))
    return operations
