"""The snapshots that a store has; and one of now, taken without a deploy."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

from deployguard.errors import UsageError
from deployguard.plan.model import Plan
from deployguard.plan.order import components_on, hosts_in_order
from deployguard.rollout.keeping import Keeper
from deployguard.rollout.member import Connect
from deployguard.rollout.owner import owner_name
from deployguard.rollout.survey import THREADS
from deployguard.rollout.transactions import new_transaction
from deployguard.snapshots.base import SnapshotError, StoreAway
from deployguard.snapshots.record import Snapshot
from deployguard.snapshots.vault import Vault

__all__ = ["Taken", "listed", "take"]


@dataclass(frozen=True)
class Taken:
    """One snapshot in a store, as it is listed. ``error`` says what is wrong with it, if anything.

    ``hosts`` has the version of each component by host, ``bytes`` what restored trees would have.
    ``verified`` says that every object of it was read and compared.
    """

    id: str
    store: str
    taken_at: float | None = None
    by: str = ""
    hosts: dict[str, dict[str, str]] | None = None
    entries: int = 0
    bytes: int = 0
    key: str = ""
    verified: bool = False
    error: str = ""
    hint: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def listed(vault: Vault, identifier: str = "", *, verify: bool = False) -> list[Taken]:
    """The snapshots of a vault, newest first; one alone where it is named.

    Raises :class:`SnapshotError` where the store is away, or has not the one that is named.
    """
    if identifier:
        return [_looked_at(vault, vault.snapshot(identifier).id, verify)]
    return [_looked_at(vault, each, verify) for each in reversed(vault.ids())]


def _looked_at(vault: Vault, identifier: str, verify: bool) -> Taken:
    try:
        snapshot = vault.snapshot(identifier)
        if verify:
            for digest, size in vault.needs(snapshot).values():
                for _ in vault.content(digest, size, snapshot.key):
                    pass
        return _taken(vault, snapshot, verify)
    except StoreAway:
        raise
    except SnapshotError as error:
        return Taken(identifier, vault.address, error=error.message, hint=error.hint)


def _taken(vault: Vault, snapshot: Snapshot, verified: bool = False) -> Taken:
    parts = [component for _, _, component in snapshot.components()]
    return Taken(
        snapshot.id,
        vault.address,
        snapshot.taken_at,
        snapshot.by,
        {
            host: {name: component.version for name, component in components.items()}
            for host, components in snapshot.hosts.items()
        },
        sum(part.count for part in parts),
        sum(part.bytes for part in parts),
        snapshot.key,
        verified,
    )


def take(plan: Plan, vault: Vault, connect: Connect) -> Taken:
    """A snapshot of what is live now. Raises :class:`SnapshotError`, and
    :class:`~deployguard.errors.HostFailure`: without all hosts there is none."""
    now = time.time()
    keeper = Keeper(plan, vault, new_transaction(plan, now), owner_name())

    def ask(host: str) -> None:
        with connect(host, plan.hosts[host]) as session:
            session.keep_alive(max(plan.lease / 4, 1.0))
            components = {name: plan.components[name] for name in components_on(plan, host)}
            keeper.host(host, components, session)

    names = hosts_in_order(plan)
    with ThreadPoolExecutor(min(THREADS, max(len(names), 1))) as threads:
        for _ in threads.map(ask, names):
            pass
    identifier = keeper.finish(now)
    if not identifier:
        raise UsageError("nothing is live on the hosts of the plan", hint="deploy first")
    taken = _taken(vault, vault.snapshot(identifier))
    try:
        keeper.prune(now)
    except SnapshotError as error:
        return replace(taken, hint=f"old snapshots were not removed: {error.message}")
    return taken
