"""What people have changed in a live checkout, in what git looks at and in what it does not.

The live repository is read and nothing is written to it, not even its index.
"""

from __future__ import annotations

import os
from typing import Dict, List, Optional, Set

from deployguard.onhost.git.command import Git
from deployguard.onhost.git.repository import Repository


def changed(live: Repository, spare: Optional[str]) -> List[str]:
    """Files of the live commit that are not as it has them, staged or not, in order.

    ``spare`` is a repository with the same objects, in which an index may be written; without one
    git is believed about what it was told not to look at.
    """
    if live.head is None:
        return []
    options = ("-z", "--untracked-files=no", "--ignore-submodules=all", "--no-renames")
    listed = live.git.names("status", "--porcelain=v2", *options)
    found = [name.split(" ", 10 if name.startswith("u") else 8)[-1] for name in listed]
    if spare is None:
        return sorted(set(found))
    # Of what was marked to be left alone git status says nothing.
    flagged = live.git.names("ls-files", "-z", "-v")
    marked = {name[2:] for name in flagged if name[0].islower() or name[0] == "S"}
    if marked:
        found += _really_changed(live, marked, spare)
    return sorted(set(found))


def _really_changed(live: Repository, marked: Set[str], spare: str) -> List[str]:
    """Of the paths that the index says not to look at: those that are not as committed."""
    assert live.head is not None
    git = Git(live.git.system, spare, live.user, work_tree=live.path)
    own = {"GIT_INDEX_FILE": spare + "/deployguard-looked"}
    git.run("read-tree", live.head, environment=own)
    git.run("update-index", "-q", "--refresh", accept=(0, 1), environment=own)
    listed = git.run("diff-files", "--name-only", "-z", environment=own).split(b"\0")
    return [name for name in map(os.fsdecode, listed) if name in marked]


def collapsed(paths: List[str], known: Set[str]) -> List[str]:
    """Paths for people: a directory in which nothing is ``known`` is named once, with its size."""
    directories: Set[str] = set()
    for path in known:
        while "/" in path:
            path = path.rpartition("/")[0]
            directories.add(path)
    found: Dict[str, int] = {}
    for path in paths:
        parts = path.split("/")
        name = path
        for depth in range(1, len(parts)):
            above = "/".join(parts[:depth])
            if above not in directories:
                name = above + "/"
                break
        found[name] = found.get(name, 0) + 1
    return [
        "%s (%d files)" % (name, count) if name.endswith("/") else name
        for name, count in found.items()
    ]
