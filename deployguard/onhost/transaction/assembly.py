"""Builds, beside what is live, what the switch puts in place: trees, files, shared places."""

from __future__ import annotations

import base64
import os
from typing import Any, Dict, List, Sequence, Tuple

from deployguard.onhost import durable
from deployguard.onhost.places import NotManageable, beside_file
from deployguard.onhost.trees import staging
from deployguard.onhost.trees.inspection import View
from deployguard.onhost.trees.manifest import NOBODY, ROOT
from deployguard.onhost.trees.owners import owner_of
from deployguard.onhost.trees.scan import Manifest, scan, vouch


def build_tree(folder: str, view: View, blobs: str, save: bool = False) -> Dict[str, int]:
    """Build a component's new tree, verified; its manifests go to the transaction's ``folder``.

    Nothing is synced yet: that is done once for the trees of all components, and the folder. With
    ``save`` a git checkout keeps what people have changed in the live one.

    Answers what :func:`staging.build` does: nothing, or the digests that are still missing.
    """
    place, checkout = view.placement, view.checkout
    assert view.wanted is not None
    built_before = view.after is not None
    # Who owns what in a checkout stands in its manifest.
    owner = owner_of(view.target, place.root) if checkout is None else None
    partial = place.tree + ".partial"
    missing = staging.build(
        view.wanted, partial, view.sources, store_dir=blobs, owner=owner, keep_owner=owner is None
    )
    if missing:
        return missing
    name = view.target["name"]
    view.after = view.wanted if owner is None else view.wanted.owned_by(owner)
    if checkout is not None:
        built = vouch(partial, view.wanted, view.skip)
        checkout.finish(partial, save)
        view.after = scan(partial, skip=view.skip, cache=built)
    save_index(folder, view)
    durable.put(manifest_file(folder, "after-%s" % name), view.after.to_bytes())
    if view.before is not None:
        durable.put(manifest_file(folder, "before-%s" % name), view.before.to_bytes())
    if built_before:
        durable.remove_tree(place.tree)  # by us: another component had to be sent something
    durable.move(partial, place.tree)
    if place.link is not None:
        _unlink(place.beside)
        os.symlink(place.link, place.beside)
    return {}


def vouch_for(folder: str, view: View) -> None:
    """Note how the new tree stands, so that neither the commit nor the next look reads all of it.

    Called once it is synced: what was written a moment ago cannot be vouched for. Not synced
    itself: a torn one is recognised, and costs the next look its time.
    """
    assert view.after is not None
    cache = vouch(view.placement.tree, view.after, view.skip)
    durable.put(os.path.join(folder, "after-%s.cache" % view.target["name"]), cache.to_bytes())


def exchange_or_refuse(view: View) -> None:
    """Raise :class:`NotManageable` where the switch could not be one atomic step."""
    # Tried where the tree will be built: what a crash leaves there is cleared away with it.
    partial = view.placement.tree + ".partial"
    durable.remove_tree(partial)
    os.mkdir(partial, 0o700)
    if not durable.exchange_supported(partial):
        raise NotManageable(
            "the file system of %s cannot exchange two paths in one step" % view.placement.live,
            "the switch needs RENAME_EXCHANGE: put the path on ext4, xfs, btrfs or tmpfs",
        )


def save_index(folder: str, view: View) -> None:
    """Keep what the index of the live checkout says, beside the manifest that has its bytes."""
    if view.target["layout"] == "git" and view.placement.root is not None:
        from deployguard.onhost.git import index as gitindex

        found = gitindex.meaning(view.placement.root)
        path = os.path.join(folder, "index-%s" % view.target["name"])
        durable.write_file(path, found.encode("ascii"))


def save_manifest(folder: str, name: str, manifest: Manifest) -> None:
    """Keep ``name.manifest`` in a transaction's folder, durably."""
    durable.write_file(manifest_file(folder, name), manifest.to_bytes(), 0o600)


def manifest_file(folder: str, name: str) -> str:
    """Where a transaction's folder has the manifest ``name``."""
    return os.path.join(folder, name + ".manifest")


def files_of(views: Sequence[View], identifier: str) -> List[Dict[str, Any]]:
    """The managed files of all components, each with the name it waits under."""
    return [
        dict(file, component=view.target["name"], beside=beside_file(file["path"], identifier))
        for view in views
        for file in view.target["files"]
    ]


def stage_file(file: Dict[str, Any]) -> None:
    """Write a managed file beside the live one, with its owner and mode."""
    if file.get("absent"):
        return  # the swap takes the live one away
    # Nobody looks at it yet: no need for the temporary name that a power cut may leave behind.
    _unlink(file["beside"])
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(file["beside"], flags, 0o600)
    try:
        durable.write_all(descriptor, base64.b64decode(file["content"]))
        if os.geteuid() == 0:
            os.fchown(descriptor, *_owner_of_file(file))
        # After it: a change of owner takes setuid and setgid away.
        os.fchmod(descriptor, file["mode"])
        if "mtime_ns" in file:
            os.utime(descriptor, ns=(file["mtime_ns"], file["mtime_ns"]))
    finally:
        os.close(descriptor)


def _owner_of_file(file: Dict[str, Any]) -> Tuple[int, int]:
    if "uid" in file:
        return int(file["uid"]), int(file["gid"])
    asked = dict(file, owner=file.get("owner"), group=file.get("group"))
    return owner_of(asked, None) or (-1, -1)


def shared_directories(view: View) -> List[str]:
    """The shared directories of a component; a shared file cannot be made up."""
    shared = os.path.join(view.target["path"], "shared")
    return [os.path.join(shared, p.rstrip("/")) for p in view.target["shared"] if p.endswith("/")]


def own_shared(view: View, made: Sequence[str]) -> None:
    """Give the shared directories that were just made to the owner of the trees."""
    owner = owner_of(view.target, view.placement.root)
    top = view.wanted.get(ROOT) if view.wanted is not None else None
    if owner is None and top is not None and NOBODY not in (top.uid, top.gid):
        owner = top.uid, top.gid  # each file has its own; the top stands for those who write
    if owner is None or os.geteuid() != 0:
        return
    for directory in shared_directories(view):
        if directory in made:
            os.chown(directory, *owner)


def _unlink(path: str) -> None:
    if os.path.lexists(path):
        os.unlink(path)
