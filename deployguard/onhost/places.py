"""Where things stand on the host: the state directory, and the names beside a managed path.

``STATE/transactions/ID/`` holds a transaction's journal, manifests and evidence;
``STATE/live/KEY/`` what is committed at one managed path; ``STATE/locks/KEY.json`` who is changing
it. What is swapped with a managed path stands in the same directory as that path, because a rename
only works within one file system.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from typing import Any, Dict, List, NamedTuple, Optional

from deployguard.onhost import durable

#: Begins the names of files in which a process manager's state is kept until the end. It may hold
#: environments, and with them secrets.
KEPT_STATE = "kept-"

_TRANSACTION = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,80}$")


class BadName(ValueError):
    """A name from the wire is not one we would have made."""


class State:
    """The state directory."""

    def __init__(self, root: str) -> None:
        self.root = root

    def ensure(self) -> None:
        """Make the directories; only their owner may look in."""
        for name in ("", "transactions", "live", "locks", "services"):
            path = os.path.join(self.root, name) if name else self.root
            if not os.path.isdir(path):
                durable.make_directory(path, 0o700)

    def transaction(self, identifier: str) -> str:
        """The folder of one transaction."""
        if not _TRANSACTION.match(identifier):
            raise BadName("not a transaction id: %r" % identifier)
        return os.path.join(self.root, "transactions", identifier)

    def transactions(self) -> List[str]:
        """The ids of all transactions this host remembers, oldest first."""
        try:
            return sorted(os.listdir(os.path.join(self.root, "transactions")))
        except FileNotFoundError:
            return []

    def live(self, path: str) -> str:
        """The folder of what is committed at a managed path."""
        return os.path.join(self.root, "live", key(path))

    def lock(self, path: str) -> str:
        """The lock file of a managed path."""
        return os.path.join(self.root, "locks", key(path) + ".json")


def key(path: str) -> str:
    """A file name for a managed path."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:24]


#: Layouts in which the managed path itself is the tree, and is exchanged as one.
WHOLE = ("in_place", "git")


class Placement(NamedTuple):
    """Where one component's parts stand.

    ``live`` is the swapped name, ``beside`` its counterpart, ``tree`` where the new tree is built
    (the same as ``beside`` in place), ``root`` the live tree now or ``None`` where there is none.
    """

    live: str
    beside: str
    tree: str
    root: Optional[str]
    link: Optional[str]


class NotManageable(Exception):
    """The path cannot be managed in this layout as it stands."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def place(target: Dict[str, Any], transaction: str) -> Placement:
    """Decide where the parts of a component stand. Looks at the file system; changes nothing.

    Raises :class:`NotManageable` where a person has to make up their mind first.
    """
    path = target["path"]
    if target["layout"] in WHOLE:
        if os.path.islink(path):
            raise NotManageable(
                "%s is a symbolic link" % path, "name the directory it leads to as the path"
            )
        if os.path.lexists(path) and not os.path.isdir(path):
            raise NotManageable("%s is not a directory" % path, "a managed tree is a directory")
        if os.path.ismount(path):
            raise NotManageable(
                "%s is a mount point and cannot be renamed" % path,
                "manage a directory below it, or use layout: releases",
            )
        root = path if os.path.isdir(path) else None
        tree = os.path.join(workshop(path), transaction)
        return Placement(path, tree, tree, root, None)
    live = os.path.join(path, "current")
    if os.path.lexists(live) and not os.path.islink(live):
        raise NotManageable(
            "%s is not a symbolic link" % live, "layout: releases needs `current` to be a link"
        )
    if not os.path.lexists(live) and os.path.isdir(path):
        strange = sorted(set(os.listdir(path)) - {"releases", "shared"})
        if strange:
            raise NotManageable(
                "%s is a plain directory, not a releases layout (it holds %s)"
                % (path, ", ".join(strange[:5])),
                "use layout: in_place, or name a new directory",
            )
    current = os.path.realpath(live) if os.path.islink(live) else None
    if current is not None and not os.path.isdir(current):
        raise NotManageable(
            "%s leads to %s, which is not there" % (live, current), "mend or remove the link"
        )
    releases = os.path.join(path, "releases")
    name = _free_name(releases, target["version"])
    beside = os.path.join(path, ".current." + transaction)
    tree = os.path.join(releases, name)
    return Placement(live, beside, tree, current, "releases/" + name)


def _free_name(releases: str, version: str) -> str:
    """``v1.2.4``, or ``v1.2.4~2`` when the host has a release of that name already."""
    name = version
    number = 1
    while os.path.lexists(os.path.join(releases, name)):
        number += 1
        name = "%s~%d" % (version, number)
    return name


def workshop(path: str) -> str:
    """The directory beside an in-place tree that holds staged and retained trees."""
    parent, base = os.path.split(path)
    return os.path.join(parent, ".%s.deployguard" % base)


def beside_file(path: str, transaction: str) -> str:
    """The staged counterpart of a managed file; hidden, and with an ending nothing picks up."""
    parent, base = os.path.split(path)
    return os.path.join(parent, ".%s.dg-%s" % (base, transaction))


def read_json(path: str) -> Optional[Dict[str, Any]]:
    """A JSON object from a file, or ``None`` when it is not there or not whole."""
    try:
        with open(path, "rb") as file:
            data = json.loads(file.read())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def write_json(path: str, data: Dict[str, Any]) -> None:
    """Replace a JSON file, durably."""
    durable.write_file(path, json.dumps(data, sort_keys=True).encode("ascii"), 0o600)
