"""The proof that the old version is back exactly, from what the journal says of it."""

from __future__ import annotations

import os
from typing import Any, Dict, List

from deployguard.onhost.queries.services import observe
from deployguard.onhost.system import System
from deployguard.onhost.trees.inspection import file_entry, load_manifest, skip_patterns
from deployguard.onhost.trees.kept import matches
from deployguard.onhost.trees.scan import ALL_FIELDS, compare, scan

_INDEX = ".git/index"
#: The emergency tag of a checkout is made before anything moves, and stays.
_OUR_TAGS = ".git/refs/tags/deployguard"

#: The old program runs again by now, and may have made and removed a file of its own: that moves
#: the time of a directory and nothing else.
FIELDS = tuple(field for field in ALL_FIELDS if field != "dir_mtime")


def differences(
    folder: str, armed: Dict[str, Any], staged: Dict[str, Any], system: System
) -> List[str]:
    """Every way in which the old version is not back; empty is the proof.

    ``armed`` and ``staged`` are the journal's records, ``folder`` is where the manifests stand.
    """
    found: List[str] = []
    for target, place in zip(staged["targets"], staged["placements"]):
        manifest = os.path.join(folder, "before-%s.manifest" % target["name"])
        index = os.path.join(folder, "index-%s" % target["name"])
        found += _of_tree(manifest, target, place, armed["links"], index)
    for entry in armed["files"]:
        now = file_entry(entry["path"])
        for name in sorted(set(entry) | set(now)):
            if entry.get(name) != now.get(name):
                found.append("%s: %s differs" % (entry["path"], name))
    for component, questions in armed["observe"].items():
        answers = observe(system, questions)
        before = armed["observed"].get(component, {})
        for question in questions:
            field = question["field"]
            refused = answers.get(field, {}).get("refused")
            if refused:
                found.append("%s: %s" % (component, refused["message"]))
                continue
            for name in question.get("same", []):
                old, new = before.get(field, {}).get(name), answers.get(field, {}).get(name)
                if old != new:
                    found.append("%s: %s was %s, is %s" % (component, name, old, new))
    return found


def _of_tree(
    manifest: str, target: Dict[str, Any], place: Dict[str, Any], links: Dict[str, str], index: str
) -> List[str]:
    live, root = place["live"], place["root"]
    if root is None:
        return ["%s was absent and is there" % live] if os.path.lexists(live) else []
    if live in links and (not os.path.islink(live) or os.readlink(live) != links[live]):
        return ["%s does not lead to %s" % (live, links[live])]
    if not os.path.isdir(root):
        return ["%s is not there" % root]
    skip = skip_patterns(target)
    now = scan(root, skip=skip, rehash=True)
    change = compare(load_manifest(manifest), now, ignore=skip, fields=FIELDS)
    # What was written into a kept place during the trial came along, with the way to it.
    kept = matches(root, target["keep"])
    led = {path for path in change.added if any(name.startswith(path + "/") for name in kept)}
    if target["layout"] == "git":
        led |= {path for path in change.added if path.startswith(_OUR_TAGS)}
    found = ["%s/%s is missing" % (root, path) for path in change.removed]
    found += ["%s/%s was not there" % (root, path) for path in change.added if path not in led]
    found += [
        "%s/%s differs in %s" % (root, item.path, ", ".join(item.fields))
        for item in change.changed
        if item.path != _INDEX or target["layout"] != "git" or not _means_the_same(root, index)
    ]
    return found


def _means_the_same(root: str, before: str) -> bool:
    """Whether an index of other bytes says what that of ``before`` said."""
    from deployguard.onhost.git import index as gitindex

    try:
        with open(before, encoding="ascii") as file:
            meant = file.read()
    except OSError:
        return False
    return bool(meant) and gitindex.meaning(root) == meant
