"""The git checkout at a managed path, as it is found, and why one cannot be deployed to.

Everything here reads. Git runs as the owner of the checkout and takes no lock of it; the few files
that git does not read for us are opened without following a link.
"""

from __future__ import annotations

import os
import stat
from typing import List, Optional, Tuple

from deployguard.onhost.git import command as git
from deployguard.onhost.git.command import Git, GitFailed
from deployguard.onhost.places import NotManageable
from deployguard.onhost.system import System

GIT = ".git"

#: Tags of ours: what ran before each deploy, and what people had changed by hand.
TAGS = "refs/tags/deployguard"

#: What git leaves there while it is in the middle of something, and the word for it.
_UNFINISHED = {
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "BISECT_LOG": "a bisect",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase, or git am",
    "sequencer": "a sequence of commits",
}
_LOCKS = ("index.lock", "HEAD.lock", "packed-refs.lock", "shallow.lock", "config.lock")

#: Extensions of the format that change nothing for us.
_KNOWN = ("noop", "preciousobjects", "objectformat", "worktreeconfig", "relativeworktrees")

#: Settings that a fetch or a checkout of ours goes by. What names a program to run is not among
#: them, but for what reaches the remote.
_CARRIED = (
    "core.repositoryformatversion",
    "core.sshcommand",
    "core.gitproxy",
    "core.autocrlf",
    "core.eol",
    "core.safecrlf",
    "core.filemode",
    "core.symlinks",
    "core.ignorecase",
    "core.precomposeunicode",
    "core.compression",
    "core.bigfilethreshold",
    "extensions.objectformat",
)
_CARRIED_SECTIONS = ("remote.", "url.", "http.", "credential.", "ssh.", "protocol.")

#: The newest of this many branches and tags tell a bundle where to begin.
HAVES = 256

Config = List[Tuple[str, str]]


class Repository:
    """A checkout that can be deployed to.

    ``head`` is the commit, ``branch`` the branch, each ``None`` where there is none. ``config`` are
    its own settings, includes and all, by their names in lower case but for the middle part.
    """

    def __init__(self, system: System, path: str) -> None:
        """Raises :class:`NotManageable` for one that cannot be."""
        self.path = path
        self.directory = os.path.join(path, GIT)
        self.uid, self.user = _owner(path, self.directory)
        self.git = Git(system, self.directory, self.user, work_tree=path)
        try:
            self.git.run("rev-parse", "--git-dir")
            self.config = _config(self.git)
        except GitFailed as error:
            raise NotManageable(
                "%s is not a repository that git can read: %s" % (path, error),
                "look at HEAD and config in it; git -C %s fsck" % self.directory,
            ) from error
        _refuse_unusual(self)
        self.head = self.git.ask("rev-parse", "-q", "--verify", "HEAD^{commit}")
        branch = self.git.ask("symbolic-ref", "-q", "HEAD")
        self.branch = branch[len("refs/heads/") :] if branch else None
        if self.head is None:
            self._refuse_damaged(branch)

    def _refuse_damaged(self, branch: Optional[str]) -> None:
        """A repository without any commit has no file for its branch: a power cut leaves one."""
        packed = (self.own("packed-refs") or b"").splitlines()
        named = branch is None or os.path.lexists(os.path.join(self.directory, branch))
        if named or any(line.endswith(b" " + os.fsencode(str(branch))) for line in packed):
            head = os.fsdecode((self.own("HEAD") or b"").strip()[:80])
            raise NotManageable(
                'HEAD of %s is "%s", which leads to no commit' % (self.path, head),
                "the last line of %s/logs/HEAD has it: git -C %s fsck; git update-ref HEAD COMMIT"
                % (self.directory, self.path),
            )

    def setting(self, key: str) -> Optional[str]:
        """The last value of a setting of the repository's own."""
        found = [value for name, value in self.config if name == key]
        return found[-1] if found else None

    def carried(self) -> Config:
        """The settings that a fetch into another place, or a checkout there, has to know."""
        return [
            (name, value)
            for name, value in self.config
            if name in _CARRIED or name.startswith(_CARRIED_SECTIONS)
        ]

    def own(self, *parts: str) -> Optional[bytes]:
        """A small file in the ``.git``; ``None`` where there is none, or a link leads away."""
        return _own(self.directory, *parts)

    def tips(self) -> List[str]:
        """Commits that are here, the newest first: where a bundle may begin."""
        wanted = "--count=%d" % HAVES
        found = self.git.lines(
            "for-each-ref", "--sort=-committerdate", wanted, "--format=%(objectname)"
        )
        return list(dict.fromkeys(([self.head] if self.head else []) + found))

    def remote_tips(self) -> List[str]:
        """Where the branches of remotes were when somebody fetched last."""
        return self.git.lines("for-each-ref", "--format=%(objectname)", "refs/remotes")


def find(system: System, path: str) -> Optional[Repository]:
    """The checkout at ``path``; ``None`` where there is nothing, or an empty directory.

    Raises :class:`NotManageable` for anything else that cannot be deployed to, and without git.
    """
    git.demand(system)
    if not os.path.lexists(path) or (os.path.isdir(path) and not os.listdir(path)):
        return None
    return Repository(system, path)


def _owner(path: str, directory: str) -> Tuple[int, Optional[str]]:
    """Whose checkout it is: the user id, and the name of whom to become."""
    try:
        info = os.lstat(directory)
    except FileNotFoundError:
        if os.path.exists(os.path.join(path, "HEAD")) and os.path.exists(path + "/objects"):
            raise NotManageable(
                "%s is a bare repository" % path, "name the path of a checkout"
            ) from None
        raise NotManageable(
            "%s is not a git checkout: there is no .git in it" % path,
            "move it away for a first deploy, or use layout: in_place",
        ) from None
    if stat.S_ISREG(info.st_mode):
        raise NotManageable(
            "%s/.git leads to a repository elsewhere (a linked work tree, or a submodule)" % path,
            "a checkout and its .git are exchanged as one: clone the repository there instead",
        )
    if not stat.S_ISDIR(info.st_mode):
        raise NotManageable("%s is not a directory" % directory, "clone the repository there")
    uid = os.lstat(path).st_uid
    for part in ("", "config", "HEAD", "objects", "refs"):
        _trusted(os.path.join(directory, part) if part else directory, uid)
    user = git.account(path, uid)
    for part in ("refs/tags", "refs/" + TAGS.partition("/")[2]):
        _writable(path, os.path.join(directory, part), uid, user)
    return uid, user


def _writable(path: str, name: str, uid: int, user: Optional[str]) -> None:
    """Raise where the owner cannot make the emergency tag: somebody ran git there as another."""
    try:
        info = os.lstat(name)
    except FileNotFoundError:
        return
    if uid in (0, info.st_uid) or info.st_mode & stat.S_IWGRP:
        return
    raise NotManageable(
        "%s belongs to the user id %d: somebody has run git there who does not own the checkout"
        % (name, info.st_uid),
        "give it back: chown -R %s: %s/.git" % (user or uid, path),
    )


def _trusted(path: str, uid: int) -> None:
    """Raise where others than the owner have a say in what git does in that repository."""
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return  # git says what is wrong with it
    others = stat.S_IWOTH
    if uid == 0 and info.st_gid != 0:
        others |= stat.S_IWGRP
    if info.st_uid != uid or stat.S_ISLNK(info.st_mode):
        raise NotManageable(
            "%s does not belong to the owner of the checkout, uid %d" % (path, uid),
            "who can write there decides what git runs as that user: chown -R the checkout",
        )
    if info.st_mode & others:
        raise NotManageable(
            "%s can be written by others than its owner" % path,
            "who can write there decides what git runs as that user: chmod -R go-w %s"
            % os.path.dirname(path),
        )


def _config(git: Git) -> Config:
    found = _settings(git, "--local")
    if ("extensions.worktreeconfig", "true") in found:
        found += _settings(git, "--worktree")
    return found


def _settings(git: Git, scope: str) -> Config:
    found = []
    for item in git.names("config", scope, "--includes", "--list", "-z"):
        name, given, value = item.partition("\n")
        found.append((name, value if given else "true"))
    return found


def _refuse_unusual(repository: Repository) -> None:
    """What a tree of its own, exchanged as a whole, cannot be made of."""
    path, inside = repository.path, repository.directory
    for name, what in _UNFINISHED.items():
        if os.path.lexists(os.path.join(inside, name)):
            raise NotManageable(
                "%s is in the middle of %s" % (path, what), "finish it there, or abort it"
            )
    for name in _LOCKS:
        if os.path.lexists(os.path.join(inside, name)):
            raise NotManageable(
                "%s/%s is there: a git is at work in it, or one has died" % (inside, name),
                "wait for it; if there is none, remove that file",
            )
    if os.path.isdir(inside + "/worktrees") and os.listdir(inside + "/worktrees"):
        raise NotManageable(
            "%s has linked work trees, which would lose their repository" % path,
            "give them a clone of their own, and `git worktree prune`",
        )
    _refuse_settings(repository)
    for line in (repository.own("objects", "info", "alternates") or b"").splitlines():
        if line and not line.startswith((b"/", b"#")):
            raise NotManageable(
                "%s borrows objects by a relative path: %s" % (path, os.fsdecode(line)),
                "repack it there: git repack -a -d, then remove .git/objects/info/alternates",
            )


def _refuse_settings(repository: Repository) -> None:
    path = repository.path
    for name, value in repository.config:
        key = name.lower()
        if key == "core.worktree":
            raise NotManageable(
                "%s has its work tree elsewhere: core.worktree is %s" % (path, value),
                "unset it, or name that path",
            )
        if key == "core.bare" and value in ("true", "yes", "on", "1"):
            raise NotManageable("%s is a bare repository" % path, "name the path of a checkout")
        if key in ("core.sparsecheckout", "index.sparse") and value in ("true", "yes", "on", "1"):
            raise NotManageable(
                "%s is a sparse checkout, with a part of the files only" % path,
                "make it whole: git sparse-checkout disable",
            )
        if key == "extensions.partialclone" or key.endswith((".promisor", ".partialclonefilter")):
            raise NotManageable(
                "%s is a partial clone: it would ask its remote in the middle of a deploy" % path,
                "clone it anew without --filter",
            )
        if key == "extensions.refstorage" and value == "files":
            continue
        if key.startswith("extensions.") and key.partition(".")[2] not in _KNOWN:
            raise NotManageable(
                "%s has a format that deployguard does not know: %s is %s" % (path, name, value),
                "clone it anew with the defaults of git",
            )


def _own(directory: str, *parts: str) -> Optional[bytes]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(directory, flags | os.O_DIRECTORY)
        for number, part in enumerate(parts, start=1):
            kind = os.O_NONBLOCK if number == len(parts) else os.O_DIRECTORY
            try:
                below = os.open(part, flags | kind, dir_fd=descriptor)
            finally:
                os.close(descriptor)
            descriptor = below
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read() if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
