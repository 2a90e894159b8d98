"""The checkouts of a transaction: what stands beside the live ones until the trees are built."""

from __future__ import annotations

import fcntl
import os
from typing import Any, Dict, List, Optional

from deployguard.onhost import durable
from deployguard.onhost.git.checkout import Checkout
from deployguard.onhost.git.command import legible
from deployguard.onhost.places import State, workshop
from deployguard.onhost.state.journal import Journal
from deployguard.onhost.system import System
from deployguard.onhost.transaction import settlement

_ENDING = ".checkout"


class Preparing:
    """Where each checkout is prepared, and that nothing of it stays."""

    def __init__(self, state: State, system: System) -> None:
        self._state = state
        self._system = system
        self._checkouts: Dict[str, Checkout] = {}
        self._made: List[str] = []
        self._alive: List[int] = []

    def obtain(
        self, target: Dict[str, Any], transaction: str, journal: Optional[Journal]
    ) -> Dict[str, Any]:
        """Fetch the revision, or find out from where a bundle has to begin.

        What is made for it stands in ``journal`` first, or goes with this process where there is
        none. Raises :class:`NotManageable`.
        """
        checkout = Checkout(self._system, target, transaction)
        revision = checkout.revision
        self._sweep(target["path"], transaction)
        directories = settlement.missing_directories([revision.place])
        if journal is not None:
            journal.append("preparing", place=revision.place, directories=directories)
        else:
            self._made += [*directories, revision.place]
        for directory in directories:
            durable.make_directory(directory, 0o755)
        with legible(target["path"]):
            revision.prepare()
            self._hold(revision.place)
            self._checkouts[target["name"]] = checkout
            if target["source"]["from"] == "remote":
                revision.fetch()
                lacks = False
            else:
                lacks = revision.lacks()
            live = revision.live
            haves = live.tips() if live is not None else []
        return {"commit": revision.commit, "lacks": lacks, "haves": haves}

    def take(self, component: str, pieces: Any, digest: str, size: int) -> int:
        """Receive a bundle; how many bytes it had."""
        return self._checkouts[component].revision.take(pieces, digest, size)

    def checkout(self, target: Dict[str, Any], transaction: str) -> Checkout:
        """What makes the tree of a target, its revision being there."""
        if target["source"]["kind"] == "history":
            return Checkout(self._system, target, transaction)
        checkout = self._checkouts[target["name"]]
        checkout.retarget(target)
        return checkout

    def clear(self) -> None:
        """The trees are built: what they were built from is not needed any more."""
        for checkout in self._checkouts.values():
            durable.remove_tree(checkout.revision.place)

    def close(self) -> None:
        """Let go; where there is no journal, nobody else clears up after us."""
        for path in reversed(self._made):
            if path.endswith(_ENDING):
                durable.remove_tree(path)
            else:
                settlement.remove_directory(path)
        for descriptor in self._alive:
            os.close(descriptor)
        self._made, self._alive = [], []

    def _hold(self, place: str) -> None:
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self._alive.append(descriptor)

    def _sweep(self, path: str, transaction: str) -> None:
        """Remove what a preview left that was killed: nobody holds it, and no journal knows it."""
        directory = workshop(path)
        for name in os.listdir(directory) if os.path.isdir(directory) else []:
            identifier = name[: -len(_ENDING)]
            if not name.endswith(_ENDING) or identifier == transaction:
                continue
            if os.path.isdir(self._state.transaction(identifier)):
                continue
            place = os.path.join(directory, name)
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                durable.remove_tree(place)
            except BlockingIOError:
                pass
            finally:
                os.close(descriptor)
