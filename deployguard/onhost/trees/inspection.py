"""Looks at what is live, changing nothing: the same look serves ``plan`` and ``apply``."""

from __future__ import annotations

import os
import stat
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from deployguard.onhost.places import NotManageable, Placement, State, beside_file, place, read_json
from deployguard.onhost.trees import space, staging
from deployguard.onhost.trees.kept import matches
from deployguard.onhost.trees.scan import (
    DRIFT_FIELDS,
    Entry,
    Manifest,
    Patterns,
    StatCache,
    compare,
    scan,
)

#: Kept free for the rescue, beside what the new tree needs.
RESERVE_BYTES = 8 * 1024 * 1024

Target = Dict[str, Any]


class View:
    """What one look found of one component, for the steps that follow it."""

    def __init__(self, target: Target, placement: Placement) -> None:
        self.target = target
        self.placement = placement
        self.skip = skip_patterns(target)
        #: What makes the tree of a git checkout; see :mod:`deployguard.onhost.git.checkout`.
        self.checkout: Any = None
        self.record: Optional[Dict[str, Any]] = None
        self.committed: Optional[Manifest] = None
        self.before: Optional[Manifest] = None
        self.wanted: Optional[Manifest] = None
        self.after: Optional[Manifest] = None
        self.cache = StatCache()
        #: Where contents can be copied from: the live tree, and older ones as far as needed.
        self.sources: List[Tuple[str, Manifest]] = []
        self.missing: Dict[str, int] = {}
        self.handmade: List[str] = []


def live_record(state: State, path: str) -> Optional[Dict[str, Any]]:
    """What was committed at this path last, or ``None``."""
    return read_json(os.path.join(state.live(path), "record.json"))


def load_manifest(path: str) -> Manifest:
    """A manifest kept in the state directory."""
    with open(path, "rb") as file:
        return Manifest.from_bytes(file.read())


def skip_patterns(target: Target) -> Patterns:
    """What in the live tree is the host's own business: kept and ignored paths."""
    globs = list(target["ignore"])
    for pattern in list(target["keep"]):
        globs.append(pattern.rstrip("/"))
    # A branch may have any name: a repository is looked at whole.
    return Patterns(globs, spared=".git" if target["layout"] == "git" else "")


def look(
    state: State,
    target: Target,
    manifest: Optional[Manifest],
    transaction: str,
    checkout: Any = None,
) -> Tuple[View, Dict[str, Any]]:
    """Compare the live tree with the last commit and with what is to come.

    ``manifest`` is the new tree; for a target whose source is the host's own history it is read
    here, and for a git checkout ``checkout`` makes it. Raises :class:`NotManageable`.
    """
    view = View(target, place(target, transaction))
    view.checkout = checkout
    view.record = live_record(state, target["path"])
    root, skip = view.placement.root, view.skip
    if target["source"]["kind"] == "history":
        manifest = _from_history(view, target["source"]["version"])
    else:
        target["files"] = [
            dict(file, path=os.path.expanduser(file["path"])) for file in target["files"]
        ]
        # What is not to be there, and is not, is nobody's business.
        target["files"] = [
            file
            for file in target["files"]
            if not file.get("absent") or os.path.lexists(file["path"])
        ]
    if root is not None:
        if view.record is not None and view.record.get("tree") == root:
            view.committed = load_manifest(view.record["manifest"])
            if view.record["layout"] == target["layout"]:
                view.cache = stat_cache(state, target["path"], view.committed)
        view.before = scan(root, skip=skip, cache=view.cache)
    if checkout is not None:
        manifest = checkout.release(view, manifest)
    assert manifest is not None
    view.wanted = _without_kept(manifest, target, root, view.before)
    _demand_shared(target)
    result: Dict[str, Any] = {
        "live": _live_words(view),
        "placement": view.placement._asdict(),
        "files": [_file_state(file, transaction) for file in target["files"]],
    }
    result.update(_differences(view, skip))
    drift = result["drift"]
    view.handmade = drift["changed"] + drift["added"] + result["only_on_host"]
    if checkout is not None:
        checkout.judge(view, result)
    _find_sources(view)
    result["missing"] = sorted(view.missing)
    result["missing_bytes"] = sum(view.missing.values())
    result["space"] = _space(view)
    return view, result


def _demand_shared(target: Target) -> None:
    """A shared file cannot be made up; a directory (with a slash at its end) can."""
    for path in target["shared"]:
        file = os.path.join(target["path"], "shared", path)
        if not path.endswith("/") and not os.path.lexists(file):
            raise NotManageable(
                "the shared file %s is not there" % file,
                "create it, or write %r with a slash at the end if it is a directory" % path,
            )


def retained_trees(record: Optional[Dict[str, Any]]) -> Iterator[Tuple[str, Manifest]]:
    """The older trees that still stand on the host, newest first, with their manifests."""
    for older in (record or {}).get("previous", []):
        if os.path.isdir(older["tree"]) and os.path.exists(older["manifest"]):
            yield older["tree"], load_manifest(older["manifest"])


def _find_sources(view: View) -> None:
    """Older trees are read only while something is missing: each manifest costs milliseconds.

    For a version from the host's own history all are, because nobody else can send what a source
    loses while it is copied.
    """
    assert view.wanted is not None
    history = view.target["source"]["kind"] == "history"
    if view.placement.root is not None and view.before is not None:
        view.sources.append((view.placement.root, view.before))
    view.missing = staging.missing(view.wanted, [source for _, source in view.sources])
    older = retained_trees(view.record)
    while view.missing or history:
        tree = next(older, None)
        if tree is None:
            return
        view.sources.append(tree)
        view.missing = staging.missing(view.wanted, [source for _, source in view.sources])


def stat_cache(state: State, path: str, committed: Manifest) -> StatCache:
    """What the last commit noted of the tree it left behind."""
    try:
        with open(os.path.join(state.live(path), "stat.cache"), "rb") as file:
            return StatCache.from_bytes(file.read(), committed)
    except FileNotFoundError:
        return StatCache()


def _from_history(view: View, version: str) -> Manifest:
    record = view.record or {}
    for older in record.get("previous", []):
        if older["version"] == version and os.path.isdir(older["tree"]):
            view.target["files"] = _files_then(view.target["files"], older["files"])
            return load_manifest(older["manifest"])
    there = ", ".join(older["version"] for older in record.get("previous", [])) or "none"
    raise NotManageable(
        "%s has no version %s to go back to" % (view.target["path"], version),
        "versions kept there: " + there,
    )


def _files_then(
    files: Sequence[Dict[str, Any]], then: Sequence[Dict[str, Any]]
) -> List[Dict[str, Any]]:
    """The managed files as they were with an older version; what is not known of then stays."""
    older = {file["path"]: file for file in then}
    found = []
    for file in files:
        path = os.path.expanduser(file["path"])
        was = older.get(path)
        if was is None or (was["exists"] and "content" not in was):
            continue
        if was["exists"]:
            found.append(dict(file, **was))
        elif os.path.lexists(path):
            found.append(dict(file, path=path, absent=True))
    return found


def _without_kept(
    manifest: Manifest, target: Target, root: Optional[str], before: Optional[Manifest]
) -> Manifest:
    """The new tree without what the host keeps: the live one wins over the release's default.

    The directories that lead to it belong to the new tree, whether the release has them or not.
    """
    if root is None or before is None or not target["keep"]:
        return manifest
    kept = matches(root, target["keep"])
    entries = {
        entry.path: entry
        for entry in manifest
        if not any(entry.path == path or entry.path.startswith(path + "/") for path in kept)
    }
    for path in kept:
        if os.path.ismount(os.path.join(root, path)):
            raise NotManageable(
                "%s/%s is a mount point and cannot be moved" % (root, path),
                "mount it elsewhere and link to it, or use layout: releases with `shared`",
            )
        parts = path.split("/")
        for parent in ("/".join(parts[:depth]) for depth in range(1, len(parts))):
            if os.path.islink(os.path.join(root, parent)):
                raise NotManageable(
                    "%s/%s is a symbolic link, and %s is behind it" % (root, parent, path),
                    "what lies behind a link is not in the tree; take it out of `keep`",
                )
            live = before.get(parent) or Entry(parent, "d", mode=0o755)
            if entries.setdefault(parent, live).kind != "d":
                raise NotManageable(
                    "%s in the release is in the way of %s, which is kept" % (parent, path),
                    "take it out of the release, or out of `keep`",
                )
    return Manifest(entries.values())


def _live_words(view: View) -> Dict[str, Any]:
    if view.before is None:
        return {"state": "absent", "version": None}
    record = view.record
    if record is None or record.get("tree") != view.placement.root:
        return {"state": "foreign", "version": None, "tree": view.placement.root}
    return {
        "state": "managed",
        "version": record["version"],
        "transaction": record["transaction"],
        "since": record["committed_at"],
        "previous": [older["version"] for older in record.get("previous", [])],
        "tree": record["tree"],
        "migrations": _migrations_since(record, view.target["source"]),
    }


def _migrations_since(record: Dict[str, Any], source: Dict[str, Any]) -> List[Dict[str, Any]]:
    """The migrations that going back to a version goes back over, each with its version."""
    found: List[Dict[str, Any]] = []
    if source["kind"] != "history":
        return found
    for entry in [record, *record.get("previous", [])]:
        if entry["version"] == source["version"]:
            break
        found += [dict(one, version=entry["version"]) for one in entry.get("migrations", [])]
    return found


def _differences(view: View, skip: Patterns) -> Dict[str, Any]:
    before, wanted = view.before, view.wanted
    assert wanted is not None
    result: Dict[str, Any] = {
        "added": [],
        "changed": [],
        "removed": [],
        "drift": {"added": [], "changed": [], "removed": []},
        "only_on_host": [],
    }
    if before is None:
        result["added"] = [[e.path, e.size] for e in wanted if e.kind != "d"]
        result["change"] = extent(view, result)
        return result
    change = compare(before, wanted, ignore=skip, fields=("kind", "content", "target", "mode"))
    result["added"] = [[path, _size(wanted, path)] for path in change.added]
    result["changed"] = [[item.path, _size(wanted, item.path)] for item in change.changed]
    result["removed"] = [[path, _size(before, path)] for path in change.removed]
    result["change"] = extent(view, result)
    if view.target["layout"] == "git":
        # What git does in its own directory is no change by hand.
        skip = Patterns([*skip.globs, ".git"])
        change = compare(before, wanted, ignore=skip, fields=("kind",))
    if view.committed is not None:
        # Ownership is the host's choice at commit time; the manifest on record has it resolved.
        drift = compare(view.committed, before, ignore=skip, fields=DRIFT_FIELDS)
        result["drift"] = {
            "added": list(drift.added),
            "changed": [item.path for item in drift.changed],
            "removed": list(drift.removed),
        }
    else:
        result["only_on_host"] = [
            path for path in change.removed if not _is_directory(before, path)
        ]
    return result


def extent(view: View, result: Dict[str, Any]) -> Dict[str, int]:
    """How many files change, come or go, and their bytes; directories are none."""
    sizes = []
    for kind, manifest in (
        ("added", view.wanted),
        ("changed", view.wanted),
        ("removed", view.before),
    ):
        for path, size in result[kind]:
            if manifest is not None and not _is_directory(manifest, path):
                sizes.append(size)
    return {"files": len(sizes), "bytes": sum(sizes)}


def _size(manifest: Manifest, path: str) -> int:
    entry = manifest.get(path)
    return entry.size if entry is not None else 0


def _is_directory(manifest: Manifest, path: str) -> bool:
    entry = manifest.get(path)
    return entry is not None and entry.kind == "d"


def _space(view: View) -> Dict[str, Any]:
    assert view.wanted is not None
    base = view.placement.tree
    while not os.path.isdir(base):
        base = os.path.dirname(base)
    needed = space.needed(view.wanted, view.missing, reserve=RESERVE_BYTES)
    free = space.free(base)
    return {
        "path": base,
        "needed_bytes": needed.bytes,
        "needed_inodes": needed.inodes,
        "free_bytes": free.bytes,
        "free_inodes": free.inodes,
    }


def _file_state(file: Dict[str, Any], transaction: str) -> Dict[str, Any]:
    """A managed file now, against what it is to be."""
    path = file["path"]
    state: Dict[str, Any] = {"path": path, "beside": beside_file(path, transaction)}
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return dict(state, change="added")
    if file.get("absent"):
        return dict(state, change="removed")
    if not stat.S_ISREG(info.st_mode):
        raise NotManageable("%s is not a plain file" % path, "a managed file is a plain file")
    same = file_entry(path)["digest"] == file["digest"]
    if same and stat.S_IMODE(info.st_mode) == file["mode"]:
        return dict(state, change="same")
    return dict(state, change="changed")


def file_entry(path: str) -> Dict[str, Any]:
    """Everything about one managed file that a restore must bring back."""
    import hashlib

    try:
        info = os.lstat(path)
        with open(path, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
    except FileNotFoundError:
        return {"path": path, "exists": False, "digest": None}
    return {
        "path": path,
        "exists": True,
        "digest": digest,
        "mode": stat.S_IMODE(info.st_mode),
        "uid": info.st_uid,
        "gid": info.st_gid,
        "mtime_ns": info.st_mtime_ns,
    }
