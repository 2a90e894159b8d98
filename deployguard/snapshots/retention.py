"""How many snapshots stay, and what goes with those that do not.

A content is removed when no snapshot names it, and that was written down a day ago. An upload takes
less than that, and relies on nothing that is written down there. So nothing that it found is
removed under it.
"""

from __future__ import annotations

from dataclasses import dataclass

from deployguard.snapshots.vault import Vault

__all__ = ["GRACE", "Pruned", "prune"]

#: How long a content stays that nothing needs, in seconds.
GRACE = 24 * 3600.0


@dataclass(frozen=True)
class Pruned:
    """What went: ids of snapshots, and how many contents."""

    snapshots: tuple[str, ...] = ()
    contents: int = 0


def prune(vault: Vault, keep: int, now: float, *, grace: float = GRACE) -> Pruned:
    """Leave the ``keep`` newest snapshots, and all that they need.

    Where a snapshot that stays cannot be read, no content is removed: it may need any. Raises
    :class:`~deployguard.snapshots.base.SnapshotError`.
    """
    ids = vault.ids()
    gone, stay = ids[:-keep], ids[-keep:]
    for identifier in gone:
        vault.forget(identifier)
    garbage = vault.garbage()
    if not gone and not garbage:
        return Pruned()
    needed: set[str] = set()
    for identifier in stay:
        needed.update(vault.needs(vault.snapshot(identifier)))
    unneeded = vault.all() - needed
    marked = {name: garbage.get(name, now) for name in unneeded}
    if marked != garbage:
        vault.set_garbage(marked)
    over = [name for name, since in marked.items() if name in garbage and now - since >= grace]
    for name in over:
        vault.remove(name)
    if over:
        vault.set_garbage({n: since for n, since in marked.items() if n not in set(over)})
    return Pruned(tuple(gone), len(over))
