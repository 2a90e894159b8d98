"""Is what is live what was committed, and did a transaction leave anything behind? Read only.

For ``status --verify`` and for drills. Nothing is believed but the disk: every file is hashed anew,
and what a transaction may leave is looked for where its journal says that it was put.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, Set

from deployguard.onhost.places import NotManageable, State, read_json
from deployguard.onhost.state import locks, machine, withheld
from deployguard.onhost.state.deadman import UNITS, Deadman
from deployguard.onhost.state.journal import Journal
from deployguard.onhost.state.records import JournalDamaged
from deployguard.onhost.system import System
from deployguard.onhost.trees.inspection import (
    file_entry,
    live_record,
    load_manifest,
    skip_patterns,
)
from deployguard.onhost.trees.patterns import Patterns
from deployguard.onhost.trees.scan import DRIFT_FIELDS, compare, scan

_RUNTIME = "/run/systemd/system"
_TIMEOUT = 10.0


def verify(state: State, system: System, args: Dict[str, Any]) -> Dict[str, Any]:
    """Each component against its stored manifest, and what was left behind."""
    components = {
        target["name"]: _component(state, system, target) for target in args["components"]
    }
    return {"components": components, "left": left(state, system)}


def _component(state: State, system: System, target: Dict[str, Any]) -> Dict[str, Any]:
    files = [file_entry(os.path.expanduser(path)) for path in target["files"]]
    answer: Dict[str, Any] = {"version": None, "manifest": "", "differences": [], "files": files}
    record = live_record(state, target["path"])
    if record is None:
        return answer
    answer["version"] = record["version"]
    try:
        committed = load_manifest(record["manifest"])
    except FileNotFoundError:
        return dict(answer, differences=["the manifest of %s is not there" % record["version"]])
    answer["manifest"] = committed.digest()
    answer["differences"] = _differences(target, record, committed)
    if record.get("git"):
        answer["differences"] += _of_repository(system, record)
    return answer


def _of_repository(system: System, record: Dict[str, Any]) -> List[str]:
    """A repository may be fetched into and looked at; what counts is where it stands."""
    from deployguard.onhost.git.repository import Repository

    try:
        found = Repository(system, record["tree"])
    except (NotManageable, OSError) as error:
        return [str(error)]
    was, now = record["git"], {"commit": found.head, "branch": found.branch}
    return [
        "%s of %s is %s, was %s" % (name, record["tree"], now[name], was.get(name))
        for name in ("commit", "branch")
        if now[name] != was.get(name)
    ]


def _differences(target: Dict[str, Any], record: Dict[str, Any], committed: Any) -> List[str]:
    tree, found = record["tree"], []
    if target["layout"] == "releases":
        live = os.path.join(target["path"], "current")
        if os.path.realpath(live) != os.path.realpath(tree):
            found.append("%s does not lead to %s" % (live, tree))
    if not os.path.isdir(tree):
        return [*found, "%s is not there" % tree]
    skip = skip_patterns(target)
    now = scan(tree, skip=skip, rehash=True)
    ignored = Patterns([*skip.globs, ".git"]) if target["layout"] == "git" else skip
    change = compare(committed, now, ignore=ignored, fields=DRIFT_FIELDS)
    found += ["%s/%s is missing" % (tree, path) for path in change.removed]
    found += ["%s/%s was not deployed" % (tree, path) for path in change.added]
    found += [
        "%s/%s differs in %s" % (tree, item.path, ", ".join(item.fields)) for item in change.changed
    ]
    return found


def left(state: State, system: System) -> List[str]:
    """What transactions that have ended left behind, in words; what is unfinished may be there."""
    unfinished: Set[str] = set()
    found: List[str] = []
    placed: Dict[str, str] = {}
    for identifier in state.transactions():
        try:
            journal = Journal(os.path.join(state.transaction(identifier), "journal"), system.now)
        except JournalDamaged:
            unfinished.add(identifier)
            continue
        for record in journal.all("preparing"):
            placed[record["place"]] = identifier
        for record in journal.all("staging"):
            paths = [file["beside"] for file in record["files"]]
            for place in record["placements"]:
                paths += [place["tree"], place["tree"] + ".partial", place["beside"]]
            # A later transaction may have put its own tree under the same name.
            placed.update(dict.fromkeys(paths, identifier))
        if journal.last("settled") is None and journal.state != machine.ABORTED:
            unfinished.add(identifier)
        else:
            found += _in_folder(state, identifier, system)
    kept = _kept(state)
    for path, identifier in placed.items():
        if identifier not in unfinished and path not in kept and os.path.lexists(path):
            found.append("%s of %s" % (path, identifier))
    for lock in locks.held(state):
        if lock["transaction"] not in unfinished:
            found.append("lock of %s by %s" % (lock["path"], lock["transaction"]))
    found += [
        "unit %s" % unit
        for unit in _units(system)
        if not any(identifier in unit for identifier in unfinished)
    ]
    return found


def _in_folder(state: State, identifier: str, system: System) -> List[str]:
    folder = state.transaction(identifier)
    found = []
    if locks.alive(folder):
        found.append("process at work on %s" % identifier)
    if Deadman(state, folder, system).pid() is not None:
        found.append("dead-man process of %s" % identifier)
    for name in ("reserve", "blobs", withheld.NAME):
        if os.path.exists(os.path.join(folder, name)):
            found.append(os.path.join(folder, name))
    return found


def _kept(state: State) -> Set[str]:
    """The trees on record: what is live, and what a rollback goes back to."""
    kept: Set[str] = set()
    directory = os.path.join(state.root, "live")
    for name in os.listdir(directory):
        record = read_json(os.path.join(directory, name, "record.json"))
        if record is not None:
            kept |= {record["tree"], *(older["tree"] for older in record["previous"])}
    return kept


def _units(system: System) -> List[str]:
    """deployguard's own units that systemd knows, and those that it would start at boot."""
    if os.geteuid() != 0 or not os.path.isdir(_RUNTIME):
        return []
    argv = ["systemctl", "list-units", "--all", "--plain", "--no-legend", "deployguard-*"]
    lines = system.run(argv, timeout=_TIMEOUT).text.splitlines()
    units = {words[0] for words in (line.split() for line in lines) if words}
    units |= {name for name in os.listdir(UNITS) if name.startswith("deployguard-")}
    return sorted(units)
