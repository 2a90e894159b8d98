"""Room for a new tree: what it takes, and what there is."""

from __future__ import annotations

import os
from typing import Mapping, NamedTuple

from deployguard.onhost.trees.blobs import LARGE
from deployguard.onhost.trees.manifest import Manifest

_UNBOUNDED = 2**62


class Space(NamedTuple):
    """Room on a file system."""

    bytes: int
    inodes: int


def needed(
    manifest: Manifest,
    wanted: Mapping[str, int],
    reserve: int = 0,
    block: int = 4096,
    consume_store: bool = False,
) -> Space:
    """What building ``manifest`` takes, tree and store together, rounded up to whole blocks.

    What is ``wanted`` (of ``missing``) arrives in the store, and lies on the disk twice for a
    while. That copies may be reflinks is not counted on.
    """
    sizes = wanted.values()
    tree = sum(-(-entry.size // block) * block for entry in manifest)
    directories = sum(block for entry in manifest if entry.kind == "d")
    store = sum(size + block for size in sizes if size < LARGE or not consume_store)
    alone = sum(1 for size in sizes if size >= LARGE)
    return Space(tree + directories + store + reserve, manifest.count() + alone + 8)


def free(path: str) -> Space:
    """What is free where ``path`` is, or will be. The share kept for root is not counted:
    a deploy that runs as root has no business in it.
    """
    while not os.path.lexists(path):
        path = os.path.dirname(path) or "."
    found = os.statvfs(path)
    # Some file systems (btrfs) make inodes as they need them and report none.
    inodes = found.f_favail if found.f_files else _UNBOUNDED
    return Space(found.f_bavail * found.f_frsize, inodes)
