"""A snapshot of a store as what a transaction deploys: the same walk as any deploy.

What is restored is what the snapshot says, and where it goes the plan says: nothing outside what
the plan manages is written. Owners are found by their names, since another host has other numbers.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from deployguard.drivers.registry import driver_of
from deployguard.errors import Refused, UsageError
from deployguard.onhost.trees.manifest import Manifest
from deployguard.plan.model import Component, Plan
from deployguard.plan.order import components_on
from deployguard.rollout.targets import Source, source_of_release, with_shared_links
from deployguard.snapshots import record
from deployguard.snapshots.base import SnapshotMissing
from deployguard.snapshots.release import SnapshotRelease
from deployguard.snapshots.vault import Vault
from deployguard.transport.session import Session

__all__ = ["Restoring", "chosen", "version_of"]

Parts = Mapping[str, Mapping[str, record.Component]]


def chosen(
    plan: Plan, snapshot: record.Snapshot, hosts: Collection[str], of: str | None
) -> dict[str, Mapping[str, record.Component]]:
    """What each host gets, by the names in the plan: its own, or what ``of`` ran.

    Raises :class:`UsageError`.
    """
    there = ", ".join(snapshot.hosts)
    unknown = [host for host in hosts if host not in plan.hosts]
    if unknown:
        raise UsageError(f"the plan has no host {unknown[0]}", hint="name one of the plan")
    if of is not None:
        if not hosts:
            raise UsageError(f"who gets what {of} ran?", hint="name the new host with --host")
        if of not in snapshot.hosts:
            raise UsageError(f"the snapshot {snapshot.id} has no {of}", hint=f"it has {there}")
        return dict.fromkeys(hosts, snapshot.hosts[of])
    found = {host: snapshot.hosts[host] for host in hosts or plan.hosts if host in snapshot.hosts}
    lost = [host for host in hosts if host not in snapshot.hosts]
    if lost or not found:
        which = lost[0] if lost else "host of this plan"
        raise UsageError(
            f"the snapshot {snapshot.id} has no {which}; it has {there}",
            hint="`--host NEW --of OLD` brings what one host ran to another",
        )
    return found


def version_of(snapshot: record.Snapshot, parts: Parts, release: str | None) -> str:
    """The one version that the hosts get. Raises :class:`UsageError`."""
    if release is not None:
        return release
    by_version: dict[str, list[str]] = {}
    for host, components in parts.items():
        for component in components.values():
            by_version.setdefault(component.version, []).append(host)
    if len(by_version) > 1:
        words = "; ".join(f"{v} on {', '.join(dict.fromkeys(h))}" for v, h in by_version.items())
        raise UsageError(
            f"the snapshot {snapshot.id} has more than one version: {words}",
            hint="restore the hosts of each with --host",
        )
    version = next(iter(by_version))
    if version == "adopted":
        raise UsageError(
            f"what the snapshot {snapshot.id} has was not deployed by deployguard, so nobody has "
            "said which version it is",
            hint="say what it is called: --release VERSION",
        )
    return version


@dataclass(frozen=True)
class _Tree:
    manifest: Manifest
    release: SnapshotRelease


class Restoring:
    """One snapshot on its way to hosts. ``plan`` is cut to what the snapshot has of it."""

    def __init__(self, plan: Plan, vault: Vault, snapshot: record.Snapshot, parts: Parts) -> None:
        self.snapshot = snapshot
        self._vault = vault
        self._parts = parts
        names = {name for components in parts.values() for name in components}
        self.left_alone = sorted(set(plan.components) - names)
        components = {n: c for n, c in plan.components.items() if n in names}
        self.plan = plan.model_copy(
            update={
                "hosts": {name: plan.hosts[name] for name in parts},
                "components": components,
                "tasks": tuple(
                    t for t in plan.tasks if t.component is None or t.component in components
                ),
            }
        )
        for host in parts:
            for name in components_on(self.plan, host):
                self._demand(host, name, plan.components[name])
        self._trees: dict[str, _Tree] = {}

    def _demand(self, host: str, name: str, component: Component) -> None:
        part = self._parts[host].get(name)
        if part is None:
            raise UsageError(
                f"the snapshot {self.snapshot.id} has no {name} of {host}, and of others it has",
                hint="restore the hosts that are alike with --host",
            )
        managed = {**driver_of(component).files(component), **component.files}
        for file in part.files:
            if file.path not in managed:
                raise UsageError(
                    f"the snapshot {self.snapshot.id} has {file.path} for {name}, which the plan "
                    "does not manage",
                    hint="restore with the plan of that time; nothing else is ever written to",
                )

    def open(self, stack: ExitStack) -> dict[str, Source]:
        """The trees, read; and a source for each component, as the guards see it.

        Raises :class:`~deployguard.snapshots.base.SnapshotError` where anything is missing.
        """
        key, words = self.snapshot.key, f"the snapshot {self.snapshot.id}"
        digests: set[str] = set()
        for part in (part for parts in self._parts.values() for part in parts.values()):
            if part.tree not in self._trees:
                manifest = self._vault.manifest(self.snapshot, part)
                release = SnapshotRelease(self._vault, key, words, manifest)
                stack.callback(release.close)
                self._trees[part.tree] = _Tree(manifest, release)
                digests.update(manifest.blobs())
            digests.update(file.digest for file in part.files if file.exists)
        there = self._vault.all()
        lacking = sum(self._vault.object_of(digest, key) not in there for digest in digests)
        if lacking:
            raise SnapshotMissing(
                f"{words} cannot be restored: {lacking} of its contents are not in "
                f"{self._vault.address}",
                hint="restore another; `deployguard snapshots verify PLAN` says which are whole",
            )
        return {
            name: source_of_release(
                self.plan, component, self._trees[self._any_part(name).tree].release
            )
            for name, component in self.plan.components.items()
        }

    def _any_part(self, name: str) -> record.Component:
        return next(parts[name] for parts in self._parts.values() if name in parts)

    def component(self, host: str, name: str, component: Component) -> Component:
        """The component as this host had it: its unit enabled, or not."""
        part = self._parts[host][name]
        enabled = part.facts.get("UnitFileState")
        service = component.service
        if service is None or service.systemd is None or service.systemd.enable is not None:
            return component
        if enabled not in ("enabled", "disabled"):
            return component
        systemd = service.systemd.model_copy(update={"enable": enabled == "enabled"})
        return component.model_copy(
            update={"service": service.model_copy(update={"systemd": systemd})}
        )

    def sources(
        self, host: str, components: Mapping[str, Component], session: Session
    ) -> dict[str, Source]:
        """What one host gets, with its own numbers for the owners. Raises :class:`Refused`."""
        parts = {name: self._parts[host][name] for name in components}
        users = _mapped(host, session, "users", [part.users for part in parts.values()])
        groups = _mapped(host, session, "groups", [part.groups for part in parts.values()])
        found = {}
        for name, component in components.items():
            part = parts[name]
            owner_of = _numbers(part.users, users), _numbers(part.groups, groups)
            tree = self._trees[part.tree]
            manifest = Manifest(
                entry._replace(uid=owner_of[0](entry.uid), gid=owner_of[1](entry.gid))
                for entry in tree.manifest
            )
            manifest = with_shared_links(manifest, component)
            files = tuple(self._file(file, *owner_of) for file in part.files)
            found[name] = Source(
                self.plan.version,
                manifest,
                tree.release,
                manifest.digest(),
                manifest.to_bytes(),
                files,
            )
        return found

    def _file(
        self, file: record.File, user: Callable[[int], int], group: Callable[[int], int]
    ) -> dict[str, Any]:
        data: dict[str, Any] = {"path": file.path, "owner": None, "group": None}
        if not file.exists:
            return dict(data, absent=True, mode=0, digest="", content="")
        content = b"".join(self._vault.content(file.digest, file.size, self.snapshot.key))
        return dict(
            data,
            mode=file.mode,
            uid=user(file.uid),
            gid=group(file.gid),
            mtime_ns=file.mtime_ns,
            digest=file.digest,
            content=base64.b64encode(content).decode("ascii"),
        )


def _mapped(
    host: str, session: Session, kind: str, named: list[Mapping[int, str]]
) -> dict[str, int]:
    """The numbers that names have on the host. Raises :class:`Refused` for one it has not."""
    names = sorted({name for names in named for name in names.values()})
    asked: dict[str, list[str]] = {"users": [], "groups": [], kind: names}
    answer: dict[str, int | None] = session.call("identities", asked)[kind]
    unknown = [name for name in names if answer.get(name) is None]
    if unknown:
        what = kind.removesuffix("s")
        program = "useradd --system" if what == "user" else "groupadd --system"
        raise Refused(
            f"{host}: there is no {what} {', '.join(unknown)}, who owns files of the snapshot",
            hint=f"create it there, as in `{program} {unknown[0]}`, and restore again",
        )
    return {name: number for name, number in answer.items() if number is not None}


def _numbers(names: Mapping[int, str], here: Mapping[str, int]) -> Callable[[int], int]:
    """From a number of then to one of here; one that nobody was called by stays."""

    def number(then: int) -> int:
        return here[names[then]] if then in names else then

    return number
