"""The rules that look at more than one block, or at the files beside the plan.

All of them run before any host is contacted. Each yields findings and knows nothing of places or
of the other rules, so that all mistakes are reported at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from deployguard.plan.check_rules import check_findings
from deployguard.plan.checkout import checkout_findings
from deployguard.plan.document import Finding, Path
from deployguard.plan.guard_rules import guard_findings
from deployguard.plan.kubernetes import kubernetes_findings
from deployguard.plan.moments import NotAMoment, zone_hint, zone_named
from deployguard.plan.names import Names
from deployguard.plan.notify_rules import notify_findings
from deployguard.plan.order import find_cycle, hosts_named
from deployguard.plan.pm2 import pm2_findings
from deployguard.plan.respond_rules import respond_findings
from deployguard.plan.snapshots import snapshots_findings
from deployguard.plan.stack import stack_findings
from deployguard.plan.suggestion import did_you_mean
from deployguard.plan.task_rules import task_findings
from deployguard.plan.territory import territory_findings, tree_entry_fault

if TYPE_CHECKING:
    from deployguard.plan.model import (
        Artifact,
        Component,
        Plan,
        SystemdService,
    )

__all__ = ["plan_findings"]

_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.zst", ".tzst")


def plan_findings(
    plan: Plan, base: str | None, names: Names, environ: Mapping[str, str] | None
) -> Iterator[Finding]:
    """Every rule on every block.

    ``base`` is the directory of the plan file; ``None`` leaves out whether local files are there.
    ``environ`` has the variables that the plan names; ``None`` leaves out whether they are set.
    """
    targets: set[str] | None = None
    if names.hosts is not None:
        targets = {group for host in plan.hosts.values() for group in host.groups}
        targets |= {"all", *names.hosts}
        if not names.hosts:
            yield Finding(("hosts",), "there are no hosts", "add at least one", on_key=True)
    if names.components is not None and not names.components:
        yield Finding(("components",), "there are no components", "add at least one", on_key=True)
    yield from _variables(plan)
    yield from _hosts(plan)
    yield from _serial(plan.serial)
    yield from guard_findings(plan, base, names)
    yield from _needs(plan, names)
    for name, component in plan.components.items():
        where: Path = ("components", name)
        yield from _targets((*where, "hosts"), component.hosts, targets)
        yield from _component(plan, component, where, base)
        for index, check in enumerate(component.checks):
            yield from check_findings(check, component, (*where, "checks", index), environ)
    yield from territory_findings(plan)
    yield from task_findings(plan, names, targets)
    yield from respond_findings(plan, targets, environ)
    yield from notify_findings(plan, base)
    incident: Path = ("rescue", "incident")
    yield from _targets(
        (*incident, "severity", "canary"), plan.rescue.incident.severity.canary, targets
    )
    yield from _zone((*incident, "targets", "zone"), plan.rescue.incident.targets.zone)
    if plan.snapshots is not None:
        yield from snapshots_findings(plan.snapshots, ("snapshots",), base, environ)


def _variables(plan: Plan) -> Iterator[Finding]:
    for key in plan.vars:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
            yield Finding(
                ("vars", key),
                f'a template cannot name "{key}"',
                f"use letters, digits and _, as in {re.sub(r'[^A-Za-z0-9_]', '_', key)}",
                on_key=True,
            )


def _zone(where: Path, name: str) -> Iterator[Finding]:
    if name == "UTC":  # the one that needs no data of the system
        return
    try:
        zone_named(name)
    except NotAMoment:
        yield Finding(where, f'there is no time zone "{name}"', zone_hint(name))


def _hosts(plan: Plan) -> Iterator[Finding]:
    machines: dict[tuple[object, ...], str] = {}
    for name, host in plan.hosts.items():
        where: Path = ("hosts", name)
        if host.transport == "local":
            for field in ("port", "user", "identity_file", "jump", "ssh_config", "known_hosts"):
                if getattr(host, field) is not None:
                    yield Finding(
                        (*where, field),
                        f"{field} is for ssh, and this host is local",
                        f"remove {field}, or transport: local",
                        on_key=True,
                    )
            continue
        machine = (host.address or name, host.port, host.user, host.jump, host.state_directory)
        first = machines.setdefault(machine, name)
        if first != name:
            yield Finding(
                where,
                f"is the same machine as {first}, with the same address and user",
                "a machine takes part in a transaction once; remove one",
                on_key=True,
            )


def _serial(serial: Sequence[int | str]) -> Iterator[Finding]:
    if not serial:
        yield Finding(("serial",), "must not be empty", 'write [1, "50%"], or remove it')
    for index, entry in enumerate(serial):
        text = str(entry)
        match = re.fullmatch(r"([0-9]{1,9})(?:\.[0-9]{1,9})?(%?)", text)
        if match is None or ("." in text and not match[2]):
            hint = "write a number of hosts such as 1, or a percentage such as 50%"
            yield Finding(("serial", index), f'"{text}" is not a batch', hint)
        elif float(text.rstrip("%")) <= 0:
            yield Finding(("serial", index), "a batch cannot be empty", "write 1 or more")
        elif match[2] and float(text[:-1]) > 100:
            yield Finding(("serial", index), f"{text} is more than all hosts", "write 100%")


def _needs(plan: Plan, names: Names) -> Iterator[Finding]:
    for name, component in plan.components.items():
        for index, need in enumerate(component.needs):
            where: Path = ("components", name, "needs", index)
            if need == name:
                yield Finding(where, "a component cannot need itself", "remove it")
            elif names.components is not None and need not in names.components:
                others = [other for other in names.components if other != name]
                hint = did_you_mean(need, others, among="the others are")
                yield Finding(where, f'there is no component "{need}"', hint)
    graph = {
        name: [need for need in component.needs if need != name]
        for name, component in plan.components.items()
    }
    while cycle := find_cycle(graph):
        last = cycle[-2]
        yield Finding(
            ("components", last, "needs"),
            f"components need one another in a circle: {' → '.join(cycle)}",
            "one of them must start first; remove a need",
        )
        # Cut it there, and look for the next one.
        graph[last] = [need for need in graph[last] if need != cycle[-1]]


def _targets(
    where: Path, wanted: Sequence[str], known: Collection[str] | None
) -> Iterator[Finding]:
    for index, target in enumerate(wanted):
        if known is not None and target not in known:
            hint = did_you_mean(target, sorted(known))
            yield Finding((*where, index), f'there is no host or group "{target}"', hint)


def _component(
    plan: Plan, component: Component, where: Path, base: str | None
) -> Iterator[Finding]:
    yield from checkout_findings(component, where, base)
    if component.artifact is not None and component.layout != "git":
        yield from _artifact(component.artifact, (*where, "artifact"), base)
    yield from _inside(component, where)
    yield from stack_findings(component, where)
    for path, file in component.files.items():
        if file.source is not None:
            source = (*where, "files", path, "source")
            yield from _local_file(file.source, source, base, "file")
    systemd = component.service.systemd if component.service else None
    if systemd is not None:
        yield from _systemd(plan, component, systemd, (*where, "service", "systemd"), base)
    pm2 = component.service.pm2 if component.service else None
    if pm2 is not None:
        yield from pm2_findings(pm2, (*where, "service", "pm2"))
    kubernetes = component.service.kubernetes if component.service else None
    if kubernetes is not None:
        hosts = len(hosts_named(plan.hosts, component.hosts))
        yield from kubernetes_findings(kubernetes, (*where, "service", "kubernetes"), hosts)
    if all(check.kind == "imports" for check in component.checks):
        yield Finding(
            where,
            "has no checks, and a deploy without checks cannot be judged",
            "add checks, if only `- process: {}` or `- port: 8080`",
            on_key=True,
        )


def _artifact(artifact: Artifact, where: Path, base: str | None) -> Iterator[Finding]:
    if base is None:
        return
    path = os.path.join(base, artifact.path)
    shown = f'"{artifact.path}"'
    where = (*where, "path")
    try:
        if os.path.isdir(path):
            if not os.access(path, os.R_OK | os.X_OK):
                yield Finding(where, f"the directory {shown} cannot be read", "check its mode")
            elif not next(os.scandir(path), None):
                yield Finding(where, f"the directory {shown} is empty", "build the release first")
            if artifact.sha256 is not None:
                place = (*where[:-1], "sha256")
                yield Finding(
                    place,
                    "a directory has no SHA-256",
                    "remove it, or name a tar file",
                    on_key=True,
                )
            if artifact.strip_components:
                yield Finding(
                    (*where[:-1], "strip_components"),
                    "strip_components is for archives, and this artifact is a directory",
                    "remove it, or name the directory below",
                    on_key=True,
                )
            return
    except (OSError, ValueError):
        yield Finding(where, f"{shown} cannot be read")
        return
    missing = list(_local_file(artifact.path, where, base, "artifact"))
    yield from missing
    if not missing and not artifact.path.endswith(_TAR_SUFFIXES):
        yield Finding(
            where,
            f"{shown} is not a known kind of artifact",
            f"a directory, or a file that ends in {', '.join(_TAR_SUFFIXES)}",
        )


def _local_file(name: str, where: Path, base: str | None, what: str) -> Iterator[Finding]:
    if base is None:
        return
    path = os.path.join(base, name)
    try:
        if os.path.isfile(path):
            if not os.access(path, os.R_OK):
                yield Finding(where, f'the {what} "{name}" cannot be read', "check its mode")
            return
        message = f'the {what} "{name}" is not there'
        if os.path.exists(path):
            yield Finding(where, f'the {what} "{name}" is not a file')
            return
        folder = os.path.dirname(path) or "."
        inside = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    except (OSError, ValueError):
        yield Finding(where, f'the {what} "{name}" cannot be read')
        return
    if not os.path.isdir(folder):
        hint = f"there is no folder {os.path.relpath(folder, base)} beside the plan"
    else:
        hint = did_you_mean(os.path.basename(path), inside, among="the folder holds")
        hint = hint or "paths are relative to the plan file"
    yield Finding(where, message, hint)


def _inside(component: Component, where: Path) -> Iterator[Finding]:
    for field, layouts in (("keep", ("in_place", "git")), ("shared", ("releases",))):
        entries: tuple[str, ...] = getattr(component, field)
        if entries and component.layout not in layouts:
            other = "shared" if field == "keep" else "keep"
            yield Finding(
                (*where, field),
                f"{field} is for layout: {layouts[0]}, and this component has {component.layout}",
                f"use {other}, or layout: {layouts[0]}",
                on_key=True,
            )
        for index, entry in enumerate(entries):
            fault = tree_entry_fault(entry)
            outer = next(
                (other for other in entries if other != entry and entry.startswith(f"{other}/")),
                None,
            )
            if fault is not None:
                yield Finding((*where, field, index), *fault)
            elif outer is not None or entry in entries[:index]:
                yield Finding(
                    (*where, field, index),
                    f'"{entry}" is in "{outer or entry}" already',
                    "remove it",
                )


def _systemd(
    plan: Plan, component: Component, systemd: SystemdService, where: Path, base: str | None
) -> Iterator[Finding]:
    if systemd.unit_file is not None:
        yield from _local_file(systemd.unit_file, (*where, "unit_file"), base, "unit file")
    for name, source in systemd.drop_ins.items():
        place = (*where, "drop_ins", name)
        if "/" in name or not name.endswith(".conf") or name == ".conf":
            hint = "systemd reads only names that end in .conf, without a /"
            yield Finding(place, f'"{name}" is not the name of a drop-in', hint, on_key=True)
        yield from _local_file(source, place, base, "drop-in")
    if systemd.scope == "user":
        hosts = hosts_named(plan.hosts, component.hosts)
        root = next((host for host in hosts if plan.hosts[host].become), None)
        if root is not None:
            yield Finding(
                (*where, "scope"),
                f"scope: user means the manager of the SSH user, and {root} has become: true",
                "use scope: system, or remove become",
            )
