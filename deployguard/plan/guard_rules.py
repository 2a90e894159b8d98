"""The rules for guards that look at more than one key. Each yields findings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deployguard.errors import PlanInvalid
from deployguard.plan.document import Finding, Path, Place
from deployguard.plan.moments import NotAMoment, is_dated, moment_of, time_of, zone_hint, zone_named
from deployguard.plan.suggestion import did_you_mean
from deployguard.plan.territory import tree_entry_fault

if TYPE_CHECKING:
    from deployguard.plan.guard import (
        BackupGuard,
        BaselineGuard,
        CapacityGuard,
        ChangeSizeGuard,
        DiskGuard,
        ParityGuard,
        StructureGuard,
        Window,
        WindowGuard,
    )
    from deployguard.plan.model import Plan
    from deployguard.plan.names import Names

__all__ = ["guard_findings"]


def guard_findings(plan: Plan, base: str | None, names: Names) -> Iterator[Finding]:
    """What is wrong with the guards of a plan.

    ``base`` is the directory of the plan file; ``None`` leaves out whether local files are there.
    """
    for index, guard in enumerate(plan.guards):
        rule = _RULES.get(guard.kind)
        if rule is not None:
            yield from rule(guard.spec, ("guards", index, guard.kind), _Around(plan, base, names))


@dataclass(frozen=True)
class _Around:
    """What stands around a guard: its plan, the folder of the plan, what may be referred to."""

    plan: Plan
    base: str | None
    names: Names


def _disk(guard: DiskGuard, where: Path, around: _Around) -> Iterator[Finding]:
    if guard.free is None and guard.inodes is None:
        yield Finding(where, "asks for nothing", "add free: 2 GiB or inodes: 10000")


def _change_size(guard: ChangeSizeGuard, where: Path, around: _Around) -> Iterator[Finding]:
    if guard.files is None and guard.size is None and guard.commits is None:
        yield Finding(where, "asks for nothing", "add files: 200, bytes: 20 MB or commits: 10")
    if guard.commits is not None and around.base is not None:
        folder = os.path.join(around.base, guard.checkout)
        if not os.path.isdir(folder):
            yield Finding(
                (*where, "checkout"),
                f'"{guard.checkout}" is not a folder',
                "name the git checkout that the release was built from",
            )


def _baseline(guard: BaselineGuard, where: Path, around: _Around) -> Iterator[Finding]:
    for index, name in enumerate(guard.allow):
        yield from _component(name.partition("/")[0], (*where, "allow", index), around)


def _component(name: str, where: Path, around: _Around) -> Iterator[Finding]:
    known = around.names.components
    if known is not None and name not in known:
        yield Finding(where, f'there is no component "{name}"', did_you_mean(name, known))


def _window(guard: WindowGuard, where: Path, around: _Around) -> Iterator[Finding]:
    if not guard.freeze and not guard.allow:
        yield Finding(where, "asks for nothing", "add freeze: or allow:")
    try:
        zone_named(guard.zone)
    except NotAMoment:
        words = f'there is no time zone "{guard.zone}"'
        yield Finding((*where, "zone"), words, zone_hint(guard.zone))
    for block, windows in (("freeze", guard.freeze), ("allow", guard.allow)):
        for index, window in enumerate(windows):
            yield from _span(window, (*where, block, index))


def _span(window: Window, where: Path) -> Iterator[Finding]:
    dated = [is_dated(text) for text in (window.start, window.end)]
    wrong = False
    for key, text, is_date in (("from", window.start, dated[0]), ("to", window.end, dated[1])):
        try:
            moment_of(text, end=False) if is_date else time_of(text)
        except NotAMoment:
            wrong = True
            mend = 'write it quoted, as "15:00", "2026-12-20" or "2026-12-20 15:00"'
            yield Finding((*where, key), f'"{text}" is no time and no date', mend)
    if wrong:
        return
    if dated[0] != dated[1]:
        key = "to" if dated[0] else "from"
        yield Finding((*where, key), "from and to are both dates, or both times", f"mend {key}")
    elif dated[0] and window.days:
        mend = "name days, or dates"
        yield Finding(
            (*where, "days"), "a span of dates has no days of the week", mend, on_key=True
        )
    elif dated[0] and moment_of(window.end, end=True) <= moment_of(window.start, end=False):
        yield Finding((*where, "to"), "it ends before it begins", "swap from and to")


def _parity(guard: ParityGuard, where: Path, around: _Around) -> Iterator[Finding]:
    from deployguard.plan.facts import read_facts

    for key, facts in (("facts", guard.facts), ("tested_in", guard.tested_in)):
        if not isinstance(facts, str) or around.base is None:
            continue
        path = os.path.join(around.base, facts)
        if not os.path.isfile(path):
            mend = "paths are relative to the plan file"
            yield Finding((*where, key), f'the file "{facts}" is not there', mend)
            continue
        try:
            read_facts(path)
        except PlanInvalid as invalid:
            for mistake in invalid.mistakes:
                place = Place(mistake.file, mistake.line, mistake.column)
                words = f"{mistake.where}: {mistake.message}" if mistake.where else mistake.message
                yield Finding((*where, key), words, mistake.hint, place=place)


def _capacity(guard: CapacityGuard, where: Path, around: _Around) -> Iterator[Finding]:
    for name, need in guard.components.items():
        place = (*where, "components", name)
        known = around.names.components
        if known is not None and name not in known:
            hint = did_you_mean(name, known)
            yield Finding(place, f'there is no component "{name}"', hint, on_key=True)
        if not {"connections", "memory", "open_files", "disk"} & need.model_fields_set:
            mend = "add connections, memory, open_files or disk"
            yield Finding(place, "asks for nothing", mend, on_key=True)
    pools = any(need.connections is not None for need in guard.components.values())
    declared = guard.postgresql is not None and guard.postgresql.max_connections is not None
    if guard.postgresql is not None and not pools:
        mend = "add connections to a component"
        yield Finding((*where, "postgresql"), "nothing connects to it", mend, on_key=True)
    asked = any(
        check.kind == "postgres"
        for component in around.plan.components.values()
        for check in component.checks
    )
    if pools and not declared and not asked:
        yield Finding(
            where,
            "nothing says how many connections PostgreSQL has",
            "add postgresql: {max_connections: 100}, or a `postgres` check to a component",
            on_key=True,
        )


def _backup(guard: BackupGuard, where: Path, around: _Around) -> Iterator[Finding]:
    if guard.here and guard.hosts:
        mend = "remove one"
        yield Finding((*where, "hosts"), "it is here, or on hosts", mend, on_key=True)
    if not guard.here and not guard.path.startswith("/"):
        mend = "write where it is on the host, or add here: true"
        yield Finding((*where, "path"), f'"{guard.path}" is not an absolute path', mend)
    if around.names.hosts is not None:
        known = {group for host in around.plan.hosts.values() for group in host.groups}
        known |= {"all", *around.names.hosts}
        for index, name in enumerate(guard.hosts):
            if name not in known:
                hint = did_you_mean(name, sorted(known))
                place = (*where, "hosts", index)
                yield Finding(place, f'there is no host or group "{name}"', hint)
    if isinstance(guard.opens, tuple) and not any("{path}" in word for word in guard.opens):
        mend = "as in [pg_restore, --list, '{path}']"
        yield Finding((*where, "opens"), "the command does not say {path}", mend)


def _structure(guard: StructureGuard, where: Path, around: _Around) -> Iterator[Finding]:
    if not guard.needs and not guard.protect and guard.removed is None:
        yield Finding(where, "asks for nothing", "add needs, protect or removed")
    if guard.component is not None:
        yield from _component(guard.component, (*where, "component"), around)
    for field, entries in (("needs", guard.needs), ("protect", guard.protect)):
        for index, entry in enumerate(entries):
            fault = tree_entry_fault(entry)
            if fault is not None:
                yield Finding((*where, field, index), *fault)


_RULES: dict[str, Callable[[Any, Path, _Around], Iterator[Finding]]] = {
    "disk": _disk,
    "change_size": _change_size,
    "baseline": _baseline,
    "window": _window,
    "parity": _parity,
    "capacity": _capacity,
    "backup": _backup,
    "structure": _structure,
}
