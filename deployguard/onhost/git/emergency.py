"""Names for what ran and for what people had changed by hand, so that a person finds it again."""

from __future__ import annotations

from typing import Optional

from deployguard.onhost import durable
from deployguard.onhost.git import repository
from deployguard.onhost.git.command import Git
from deployguard.onhost.git.repository import TAGS
from deployguard.onhost.places import NotManageable
from deployguard.onhost.system import System

#: Emergency tags that a repository keeps, the newest; they cost nothing but the eye.
KEPT = 20


def tag(system: System, path: str, name: str, commit: str) -> None:
    """Name the commit that is live, before anything moves. May be repeated."""
    found = repository.Repository(system, path)
    settings = ("core.logAllRefUpdates=true",)  # `always` would make it a reflog
    found.git.run("update-ref", "refs/tags/" + name, commit, settings=settings)
    durable.sync_tree(path)  # git syncs a name since 2.36 only


def save(git: Git, live: repository.Repository, transaction: str, local: bool) -> None:
    """Name what the live tree has and its commit has not, in the new repository ``git``.

    With ``local`` commits that are nowhere else are named, though nothing else was changed.
    """
    kept = _stash(git, live) or (live.head if local else None)
    if kept is not None:
        git.run("update-ref", "%s/saved/%s" % (TAGS, transaction), kept)


def forget(git: Git) -> None:
    """Keep the newest emergency tags; those of saved changes stay until somebody removes them."""
    names = git.lines("for-each-ref", "--format=%(refname)", TAGS)
    ours = sorted(name for name in names if name.count("/") == TAGS.count("/") + 1)
    for name in ours[:-KEPT]:
        git.run("update-ref", "-d", name)


def _stash(git: Git, live: repository.Repository) -> Optional[str]:
    """A stash of what differs from HEAD in the live tree, index and files; ``None`` for nothing.

    Only the new repository gets it: the live one, its index included, is read and no more.
    """
    if live.own("index") is None:
        return None
    conflicts = sorted({line.partition("\t")[2] for line in live.git.names("ls-files", "-u", "-z")})
    if conflicts:
        raise NotManageable(
            "%s has conflicts that nobody has resolved, and git stashes none: %s"
            % (live.path, ", ".join(conflicts[:5])),
            "resolve them there: git status says how",
        )
    index = git.directory + "/deployguard-index"
    system = git.system
    system.run(["cp", "--", live.directory + "/index", index], user=git.user, timeout=60.0)
    try:
        made = git.run(
            "stash", "create", "changed by hand before a deploy",
            environment={"GIT_INDEX_FILE": index, "GIT_WORK_TREE": live.path},
        )  # fmt: skip
    finally:
        system.run(["rm", "-f", "--", index], user=git.user, timeout=60.0)
    return made.decode("ascii").strip() or None
