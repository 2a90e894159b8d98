"""The rules of a PM2 service: what PM2 would take for something else than the plan means."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from deployguard.plan.document import Finding, Path
from deployguard.plan.territory import path_fault, tree_entry_fault

if TYPE_CHECKING:
    from deployguard.plan.model import Pm2Service

__all__ = ["pm2_findings"]

#: Anything with one of these in it is a file to PM2, and nothing else is an ecosystem file.
_FILES = (".json", ".yml", ".yaml", ".config.js", ".config.cjs", ".config.mjs")


def pm2_findings(service: Pm2Service, where: Path) -> Iterator[Finding]:
    """Everything that is wrong with one service block."""
    yield from _names(service, (*where, "name"))
    if service.ecosystem is not None:
        yield from _ecosystem(service.ecosystem, (*where, "ecosystem"))
        return
    for field in ("ecosystem_env", "env"):
        if getattr(service, field):
            yield Finding(
                (*where, field),
                f"{field} is for a start from an ecosystem file, and none is named",
                "add ecosystem, or remove it: PM2 keeps the environment of what it knows",
                on_key=True,
            )


def _names(service: Pm2Service, where: Path) -> Iterator[Finding]:
    several = not isinstance(service.name, str)
    if not service.names:
        yield Finding(where, "must not be empty", "name the processes as `pm2 list` shows them")
    for index, name in enumerate(service.names):
        place = (*where, index) if several else where
        if name == "all" or name.isdigit():
            what = "every process" if name == "all" else "the process of that number"
            yield Finding(place, f'"{name}" is {what} to PM2', "use the name in `pm2 list`")
        elif any(ending in name for ending in _FILES):
            yield Finding(
                place, f'"{name}" is a file to PM2', "name a process here, and the file `ecosystem`"
            )
        elif name in service.names[:index]:
            yield Finding(place, f'"{name}" is there already', "remove it")


def _ecosystem(file: str, where: Path) -> Iterator[Finding]:
    fault = path_fault(file) if file.startswith("/") else tree_entry_fault(file)
    if fault is not None:
        yield Finding(where, *fault)
    elif not file.endswith(_FILES):
        endings = ", ".join(_FILES)
        yield Finding(where, f'"{file}" is no ecosystem file to PM2', f"one ends in {endings}")
