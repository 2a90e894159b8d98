"""What is kept and what is cleared away when a transaction has ended.

Everything here may be repeated: a crash between any two steps is mended by doing all of it again.
Nothing old is pruned before the commit record is on disk, and the tree a rollback would go back to
is never pruned at all.
"""

from __future__ import annotations

import base64
import os
from typing import Any, Dict, List, Optional, Sequence

from deployguard.onhost import durable
from deployguard.onhost.places import KEPT_STATE, WHOLE, State, workshop, write_json
from deployguard.onhost.state import locks, machine, withheld
from deployguard.onhost.state.deadman import Deadman
from deployguard.onhost.state.journal import Journal
from deployguard.onhost.state.migrations import prune_dumps
from deployguard.onhost.state.records import JournalDamaged
from deployguard.onhost.system import System
from deployguard.onhost.transaction.operations import Executor
from deployguard.onhost.trees.inspection import file_entry, live_record, load_manifest
from deployguard.onhost.trees.scan import StatCache

#: What is known of a tree whose turn has passed.
_OF_A_TREE = ("version", "transaction", "committed_at", "tree", "manifest", "migrations")

#: Ended transactions that a host remembers, with their journals and evidence.
KEPT_TRANSACTIONS = 20

#: A managed file larger than this is restored like any other, but not kept for later rollbacks.
KEPT_FILE_BYTES = 1024 * 1024


def missing_directories(paths: Sequence[str]) -> List[str]:
    """The directories that have to be made so that each path has a parent, outermost first."""
    found: List[str] = []
    for path in paths:
        chain = []
        parent = os.path.dirname(path)
        while not os.path.isdir(parent):
            chain.append(parent)
            parent = os.path.dirname(parent)
        for directory in reversed(chain):
            if directory not in found:
                found.append(directory)
    return found


def settle(state: State, folder: str, journal: Journal, system: System) -> None:
    """Clear up after a transaction that has ended; nothing happens where that was done."""
    if journal.last("settled") is not None:
        return
    if journal.state == machine.COMMITTED:
        armed = journal.last("armed")
        if armed is not None:
            Executor(journal, system, _ignore, _ignore).settle(armed["procedure"])
        keep(state, folder, journal)
    elif journal.state == machine.RESTORED:
        drop(state, folder, journal)
    else:
        return
    journal.append("settled")


def bury(state: State, identifier: str, system: System) -> bool:
    """Settle a transaction whose process has died; whether it no longer stands in the way.

    One that touched something and is not finished does, and so does one that somebody works on.
    """
    folder = state.transaction(identifier)
    if not os.path.isdir(folder):
        return True
    alive = locks.keep_alive(folder)
    if alive is None:
        return False
    try:
        journal = Journal(os.path.join(folder, "journal"), system.now)
    except JournalDamaged:
        os.close(alive)
        return False
    try:
        if journal.state == machine.IDLE:
            durable.remove_tree(folder)
            return True
        if journal.state in machine.UNTOUCHED:
            drop(state, folder, journal)
            journal.enter(machine.ABORT, "aborted", reason="its process died")
        settle(state, folder, journal, system)
        if journal.state not in machine.TERMINAL:
            return False
        Deadman(state, folder, system).disarm()
        return True
    finally:
        journal.close()
        os.close(alive)


def sweep(state: State, system: System) -> None:
    """Give up the locks of transactions that died before their first record.

    No journal tells of them, so nobody can be asked to recover them.
    """
    for holder in locks.held(state):
        identifier = str(holder["transaction"])
        try:
            path = os.path.join(state.transaction(identifier), "journal")
            began = Journal(path, system.now).state != machine.IDLE
        except JournalDamaged:
            began = True
        if not began and bury(state, identifier, system):
            locks.release(state, str(holder["path"]), identifier)


def forget(state: State, system: System) -> None:
    """Remove the folders of the oldest transactions that have ended, evidence included."""
    for identifier in state.transactions()[:-KEPT_TRANSACTIONS]:
        folder = state.transaction(identifier)
        alive = locks.keep_alive(folder)
        if alive is None:
            continue
        try:
            journal = Journal(os.path.join(folder, "journal"), system.now)
            done = journal.state in (machine.ABORTED, machine.IDLE)
            over = done or journal.last("settled") is not None
        except JournalDamaged:
            over = False
        finally:
            os.close(alive)
        if over:
            durable.remove_tree(folder)


def drop(state: State, folder: str, journal: Journal) -> None:
    """Remove whatever the transaction put beside the live paths, and give up its locks.

    Used when the old version is (still, or again) the live one.
    """
    staging = journal.last("staging")
    begun = journal.last("begun")
    for record in journal.all("preparing"):
        durable.remove_tree(record["place"])
    if staging is not None:
        for target, placement in zip(staging["targets"], staging["placements"]):
            _drop_component(target, placement)
        for file in staging["files"]:
            _unlink(file["beside"])
    # A second attempt to stage finds the directories of the first.
    steps = [*journal.all("preparing"), *journal.all("staging")]
    made = [path for record in steps for path in record["directories"]]
    for directory in reversed(made):
        remove_directory(directory)
    _clear(folder)
    if staging is not None:
        _make_sure(folder, staging)
    if begun is not None:
        for path in begun["paths"]:
            locks.release(state, path, begun["transaction"])


def _drop_component(target: Dict[str, Any], placement: Dict[str, Any]) -> None:
    tree = placement["tree"]
    live = os.path.realpath(placement["live"])
    if os.path.realpath(tree) == live:
        raise RuntimeError("%s is live and will not be removed" % tree)
    for path in (tree, tree + ".partial"):
        if os.path.lexists(path):
            durable.remove_tree(path)
    if placement["beside"] != tree:
        _unlink(placement["beside"])
    if target["layout"] in WHOLE:
        remove_directory(workshop(target["path"]))


def keep(state: State, folder: str, journal: Journal) -> None:
    """After a commit: record what is live, retain the old tree, prune beyond the plan's number."""
    staging = journal.last("staging")
    begun = journal.last("begun")
    assert staging is not None and begun is not None
    for prepared in journal.all("preparing"):
        durable.remove_tree(prepared["place"])
    committed_at = next(r["at"] for r in journal.records if r["kind"] == "committed")
    for target, placement in zip(staging["targets"], staging["placements"]):
        record = live_record(state, target["path"])
        if record is None or record["transaction"] != begun["transaction"]:
            _record_live(
                state,
                folder,
                target,
                placement,
                record,
                begun["transaction"],
                committed_at,
                [file for file in staging["files"] if file["component"] == target["name"]],
                (journal.last("armed") or {}).get("migrations", []),
            )
        _prune_manifests(state, target["path"])
    for file in staging["files"]:
        _unlink(file["beside"])
    for target, placement in zip(staging["targets"], staging["placements"]):
        if target["layout"] in WHOLE:
            remove_directory(workshop(target["path"]))  # of a first deploy: nothing old to retain
        else:
            _unlink(placement["beside"])
    _clear(folder)
    _make_sure(folder, staging)
    prune_dumps(journal)
    for path in begun["paths"]:
        locks.release(state, path, begun["transaction"])


def _record_live(
    state: State,
    folder: str,
    target: Dict[str, Any],
    placement: Dict[str, Any],
    old: Optional[Dict[str, Any]],
    transaction: str,
    committed_at: float,
    files: Sequence[Dict[str, Any]],
    migrations: Sequence[Dict[str, Any]],
) -> None:
    directory = state.live(target["path"])
    durable.make_directory(directory, 0o700)
    durable.sweep(directory)
    manifest = _adopt(folder, "after-%s.manifest" % target["name"], directory, transaction)
    in_place = target["layout"] in WHOLE
    tree = target["path"] if in_place else placement["tree"]
    previous: List[Dict[str, Any]] = []
    if placement["root"] is not None:
        retained = placement["beside"] if in_place else placement["root"]
        was = _was(old, placement["root"])
        entry = {
            "version": was["version"],
            "transaction": was["transaction"],
            "committed_at": was["committed_at"],
            "tree": retained,
            "manifest": _adopt(
                folder, "before-%s.manifest" % target["name"], directory, transaction + ".before"
            ),
            "files": [_kept_file(file) for file in files],
            "migrations": was.get("migrations", []),
        }
        if target.get("git"):
            entry["git"] = target["git"]["before"]
        previous = [entry, *_older(old, placement["root"])]
    retain = int(target["retain"]) - 1
    record = {
        "path": target["path"],
        "name": target["name"],
        "layout": target["layout"],
        "version": target["version"],
        "transaction": transaction,
        "committed_at": committed_at,
        "tree": tree,
        "manifest": manifest,
        "migrations": list(migrations),
        "previous": previous[:retain],
    }
    if target.get("git"):
        record["git"] = {name: target["git"][name] for name in ("commit", "branch")}
    # First the trees, then the record: after a crash in between, all of it is done again.
    pruned = _prune_trees(record, previous[retain:])
    _adopt_cache(folder, target, tree, directory, manifest)
    if pruned:
        durable.sync_trees([directory, *map(_nearest, pruned)])
    else:
        durable.fsync_dir(directory)
    write_json(os.path.join(directory, "record.json"), record)


def _older(old: Optional[Dict[str, Any]], root: str) -> List[Dict[str, Any]]:
    """Every other tree on record, newest first."""
    if old is None:
        return []
    record = {name: old[name] for name in (*_OF_A_TREE, "git") if name in old}
    return [older for older in [dict(record, files=[]), *old["previous"]] if older["tree"] != root]


def _was(old: Optional[Dict[str, Any]], root: str) -> Dict[str, Any]:
    """What the tree that was live is on record as: somebody may have turned `current` by hand."""
    known: List[Dict[str, Any]] = [old, *old["previous"]] if old is not None else []
    for record in known:
        if record["tree"] == root:
            return record
    return {"version": "adopted", "transaction": "", "committed_at": None}


def _prune_trees(record: Dict[str, Any], gone: Sequence[Dict[str, Any]]) -> List[str]:
    stay = {record["tree"]} | {older["tree"] for older in record["previous"]}
    pruned = [older["tree"] for older in gone if older["tree"] not in stay]
    for tree in pruned:
        if os.path.isdir(tree):
            durable.remove_tree(tree)
    return pruned


def _prune_manifests(state: State, path: str) -> None:
    record = live_record(state, path)
    assert record is not None
    directory = state.live(path)
    manifests = {record["manifest"]} | {older["manifest"] for older in record["previous"]}
    for name in os.listdir(directory):
        manifest = os.path.join(directory, name)
        if name.endswith(".manifest") and manifest not in manifests:
            os.unlink(manifest)


def _adopt(folder: str, name: str, directory: str, new_name: str) -> str:
    """Move a manifest from the transaction's folder to where the live record keeps its own."""
    target = os.path.join(directory, new_name + ".manifest")
    source = os.path.join(folder, name)
    if os.path.exists(source):
        durable.move(source, target)
    return target


def _adopt_cache(
    folder: str, target: Dict[str, Any], tree: str, directory: str, manifest: str
) -> None:
    """What was noted of the new tree when it was staged goes where the next look expects it."""
    source = os.path.join(folder, "after-%s.cache" % target["name"])
    if not os.path.exists(source):
        return  # of another manifest, what is there now is recognised as such
    if target["layout"] in WHOLE:
        # The switch renamed the tree, and with it moved the ctime of its top.
        with open(source, "rb") as file:
            cache = StatCache.from_bytes(file.read(), load_manifest(manifest))
        cache.renew_top(tree)
        durable.put(source, cache.to_bytes())
    durable.move(source, os.path.join(directory, "stat.cache"))


def _kept_file(file: Dict[str, Any]) -> Dict[str, Any]:
    """The old content of a managed file, so that a later rollback can bring it back."""
    entry = file_entry(file["beside"])
    entry["path"] = file["path"]
    if entry["exists"] and os.path.getsize(file["beside"]) <= KEPT_FILE_BYTES:
        with open(file["beside"], "rb") as stream:
            entry["content"] = base64.b64encode(stream.read()).decode("ascii")
    return entry


def _clear(folder: str) -> None:
    durable.sweep(folder)
    _unlink(os.path.join(folder, "reserve"))
    _unlink(os.path.join(folder, withheld.NAME))
    for name in os.listdir(folder):
        if name.startswith(KEPT_STATE):
            _unlink(os.path.join(folder, name))
    blobs = os.path.join(folder, "blobs")
    if os.path.isdir(blobs):
        durable.remove_tree(blobs)


def _make_sure(folder: str, staging: Dict[str, Any]) -> None:
    """What was removed must not come back after the record by which nobody will look for it.

    Some file systems (btrfs) sync the journal without the removals that went before.
    """
    removed = [placement["tree"] for placement in staging["placements"]]
    removed += [file["beside"] for file in staging["files"]]
    try:
        durable.sync_trees([folder, *map(_nearest, removed)])
    except OSError:
        pass  # All that may be lost is that something is gone.


def _nearest(path: str) -> str:
    """The directory above ``path`` that is there."""
    path = os.path.dirname(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _ignore(_: Any) -> None:
    """Nobody listens to what is cleared away."""


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def remove_directory(path: str) -> None:
    """Remove a directory that we made, if nobody has put anything into it."""
    try:
        os.rmdir(path)
    except OSError:
        pass
