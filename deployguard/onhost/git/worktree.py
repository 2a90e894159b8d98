"""The files of a commit, as git writes them; and whose they are in the new tree."""

from __future__ import annotations

import os
from typing import Dict, Mapping, NamedTuple, Optional, Tuple

from deployguard.onhost.git.command import Git, GitFailed
from deployguard.onhost.places import NotManageable
from deployguard.onhost.trees import space
from deployguard.onhost.trees.manifest import ROOT, Entry, Manifest

_BLOCK = 4096


class Blob(NamedTuple):
    """A file of a commit as git has it."""

    mode: str
    name: str
    size: int


def files(git: Git, commit: str, name: str) -> Dict[str, Blob]:
    """Every file of a commit, which the plan calls ``name``, by its path.

    Raises :class:`NotManageable` for a commit with submodules, whose files are not in it.
    """
    found = blobs(git, commit, "-l")
    submodules = [path for path, blob in found.items() if blob.mode == "160000"]
    if submodules:
        raise NotManageable(
            "%s has submodules, whose files are not in it: %s" % (name, ", ".join(submodules[:5])),
            "deploy a build of it as an artifact, or take them in with git subtree",
        )
    return found


def blobs(git: Git, commit: str, *options: str) -> Dict[str, Blob]:
    """Every file of a commit by its path; sizes are known with ``-l`` only."""
    found: Dict[str, Blob] = {}
    for line in git.names("ls-tree", "-r", "-z", "--full-tree", *options, commit):
        facts, _, path = line.partition("\t")
        mode, _, blob, *size = facts.split()
        found[path] = Blob(mode, blob, int(size[0]) if size and size[0].isdigit() else 0)
    return found


def check_out(git: Git, commit: str, name: str, wanted: Mapping[str, Blob]) -> None:
    """Write the files of a commit that are wanted to the work tree of ``git``, where nobody looks.

    Raises :class:`NotManageable` where a file is behind a filter such as Git LFS, or there is no
    room.
    """
    assert git.work_tree is not None
    needed = sum(-(-blob.size // _BLOCK) * _BLOCK for blob in wanted.values())
    free = space.free(git.work_tree).bytes
    if needed > free:
        raise NotManageable(
            "the files of %s need %d bytes in %s, and %d are free"
            % (name, needed, git.work_tree, free),
            "make room on the host",
        )
    try:
        git.run("read-tree", commit)
        _refuse_filters(git, name)
        paths = b"".join(os.fsencode(path) + b"\0" for path in wanted)
        git.run("checkout-index", "--force", "--quiet", "-z", "--stdin", data=paths)
    except GitFailed as error:
        raise NotManageable(
            "%s cannot be checked out: %s" % (name, error),
            "try it by hand in a clone: git checkout %s" % commit,
        ) from error


def _refuse_filters(git: Git, name: str) -> None:
    """A filter is a program that the repository names; without it the files are not the files."""
    data = git.run("ls-files", "-z")
    answers = git.names("check-attr", "--cached", "-z", "--stdin", "filter", data=data)
    filtered = [
        (path, value)
        for path, value in zip(answers[::3], answers[2::3])
        if value not in ("unspecified", "unset", "set")
    ]
    if filtered:
        path, value = filtered[0]
        more = " and %d more" % (len(filtered) - 1) if len(filtered) > 1 else ""
        where = "in Git LFS" if value == "lfs" else "behind the filter " + value
        raise NotManageable(
            "%s keeps %s%s %s" % (name, path, more, where),
            "deployguard runs no filters: deploy a build of it as an artifact",
        )


class Attributes:
    """Mode, owner and times of the new files: what git would leave alone stays as it is.

    A file with the same content keeps everything, one with another content its mode and owner. With
    ``given``, the plan has said who owns them all.
    """

    def __init__(self, owner: Tuple[int, int], given: bool, before: Optional[Manifest]) -> None:
        self._owner = owner
        self._given = given
        self._before = before
        self._groups = {os.getegid(), *os.getgroups()}

    def of(self, entry: Entry) -> Entry:
        """The entry of git's work tree as it is to be."""
        old = self._before.get(entry.path) if self._before is not None else None
        entry = owned(entry, self._owner)
        if old is None or old.kind != entry.kind:
            return entry._replace(mode=0o755) if entry.path == ROOT else entry
        if entry.kind == "d" or (entry.mode ^ old.mode) & 0o100 == 0:
            entry = entry._replace(mode=old.mode)
        if entry.kind == "d" or (entry.digest, entry.size) == (old.digest, old.size):
            entry = entry._replace(mtime_ns=old.mtime_ns, xattrs=old.xattrs)
        return entry if self._given else owned(entry, self._allowed(old.uid, old.gid))

    def _allowed(self, uid: int, gid: int) -> Tuple[int, int]:
        """An owner that we may give a file to."""
        if os.geteuid() == 0:
            return uid, gid
        return os.geteuid(), gid if gid in self._groups else os.getegid()


def owned(entry: Entry, owner: Optional[Tuple[int, int]]) -> Entry:
    """The entry with another owner; with the one it has for ``None``."""
    return entry if owner is None else entry._replace(uid=owner[0], gid=owner[1])
