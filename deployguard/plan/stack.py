"""The rules for compose stacks, and for the checks that are about one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from deployguard.plan.document import Finding, Path
from deployguard.plan.territory import tree_entry_fault

if TYPE_CHECKING:
    from deployguard.plan.model import Check, Component, ComposeService

__all__ = ["service_findings", "project_of", "stack_findings"]


def project_of(component: Component, service: ComposeService) -> str:
    """The compose project, as the tools make it from the name of a folder; empty if they cannot."""
    name = PurePosixPath(component.path).name
    return service.project or re.sub(r"[^-_a-z0-9]", "", name.lower()).lstrip("-_")


def stack_findings(component: Component, where: Path) -> Iterator[Finding]:
    """What is wrong with a component's ``service: {compose: …}``."""
    service = component.service.compose if component.service is not None else None
    if service is None:
        return
    where = (*where, "service", "compose")
    if not project_of(component, service):
        yield Finding(
            where,
            f'no project name can be made of "{component.path}"',
            "write project: and a name in lower case",
            on_key=True,
        )
    places = [((*where, "file", index), path) for index, path in enumerate(service.file)]
    if service.env_file is not None:
        places.append(((*where, "env_file"), service.env_file))
    for place, path in places:
        fault = None if path.startswith("/") else tree_entry_fault(path)
        if fault is not None:
            yield Finding(place, *fault)


def service_findings(check: Check, component: Component, where: Path) -> Iterator[Finding]:
    """What is wrong with a check that names services of a stack; ``where`` is its kind's place."""
    stack = component.service.compose if component.service is not None else None
    named = check.container is not None or (
        check.http is not None and check.http.service is not None
    )
    if named and stack is None:
        yield Finding(
            where if check.container is not None else (*where, "service"),
            "is about a service of a compose stack, and the component has none",
            "add service: {compose: {}}, or remove it",
            on_key=True,
        )
