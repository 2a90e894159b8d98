"""A git checkout as a tree like any other: made whole beside the live one, and exchanged with it.

The ``.git`` belongs to the tree. The new one is a copy of the live one with what arrived, with its
HEAD, branch and index at the new commit; so HEAD, refs, index, stash and reflog move with the files
in the one exchange, and a restore brings back the very repository that was there, without running
git. Which files the new tree has git decides, in a work tree that nobody serves from; the tree
itself is built from that by hash, as every other tree is.
"""

from __future__ import annotations

import os
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

from deployguard.onhost.git import byhand, emergency, repository, worktree
from deployguard.onhost.git.command import Git, GitFailed, legible
from deployguard.onhost.git.repository import GIT
from deployguard.onhost.git.revision import Revision
from deployguard.onhost.places import NotManageable
from deployguard.onhost.system import System
from deployguard.onhost.trees.inspection import View, extent
from deployguard.onhost.trees.manifest import ROOT, Entry, Manifest
from deployguard.onhost.trees.scan import scan

#: How much git lets lie about before it repacks.
_PATIENCE = {"gc.auto": "6700", "gc.autopacklimit": "50"}

_INSIDE = GIT + "/"
#: What of the live ``.git`` the new one does without.
_LEFT = ("index", "index.lock", "gc.pid")


class Checkout:
    """The new tree of one component, from a revision or from what the host has kept."""

    def __init__(self, system: System, target: Dict[str, Any], transaction: str) -> None:
        """Looks at what is live. Raises :class:`NotManageable`."""
        self.target = target
        self.tag = "deployguard/" + transaction
        self.revision = Revision(system, target, transaction)
        self.branch: Optional[str] = target["source"].get("branch")
        self.commit: Optional[str] = None
        self._local: List[str] = []
        #: The files of the live commit, and those of them that somebody has changed.
        self._tracked: Dict[str, worktree.Blob] = {}
        self._changed: List[str] = []

    def retarget(self, target: Dict[str, Any]) -> None:
        """The same target, as the look has it: by then it is known what others have."""
        self.target = self.revision.target = target
        self.revision.source = target["source"]

    # -- what the tree will be ---------------------------------------------------------------

    def release(self, view: View, kept: Optional[Manifest] = None) -> Manifest:
        """The manifest of the new tree, ``.git`` included; its contents are on the host by now.

        ``kept`` is the tree that the host has of the version it goes back to.
        """
        with legible(self.target["path"]):
            if kept is not None:
                files = self._from_history(view, kept)
            else:
                files = self._from_revision(view)
            entries = {entry.path: entry for entry in self._repository(view)}
        attributes = worktree.Attributes(
            (self.revision.uid, self.revision.gid), self._given(), view.before
        )
        for entry in files:
            entries[entry.path] = attributes.of(entry)
        return Manifest(entries.values())

    def _from_revision(self, view: View) -> Iterator[Entry]:
        self.commit = self.revision.commit
        assert self.commit is not None, "the revision was obtained before"
        git, name = self.revision.git, self.target["source"]["revision"]
        files = worktree.files(git, self.commit, name)
        found = dict(self._untouched(view, files))
        there = {path: blob for path, blob in files.items() if path not in found}
        worktree.check_out(git, self.commit, name, there)
        work = self.revision.place + "/work"
        written = self._made(work)
        view.sources.append((work, written))
        found.update((entry.path, entry) for entry in written if not inside(entry.path))
        return iter(found.values())

    def _untouched(
        self, view: View, files: Dict[str, worktree.Blob]
    ) -> Iterator[Tuple[str, Entry]]:
        """What the live tree has just as the new commit has it, and the way there: as it is.

        Git would leave these files alone; to write them once more would double the work.
        """
        live, before = self.revision.live, view.before
        if live is None or live.head is None or before is None:
            return
        self._tracked = worktree.blobs(live.git, live.head)
        self._changed = byhand.changed(live, self.revision.git.directory)
        changed = set(self._changed)
        for path, blob in files.items():
            entry, old = before.get(path), self._tracked.get(path)
            if entry is None or old is None or path in changed:
                continue
            if (old.mode, old.name) != (blob.mode, blob.name) or entry.kind not in "fl":
                continue
            yield path, entry
            while "/" in path:
                path = path.rpartition("/")[0]
                above = before.get(path)
                assert above is not None
                yield path, above

    def _from_history(self, view: View, kept: Manifest) -> Iterator[Entry]:
        """Files and index as they were kept; the repository is the one of now."""
        version = self.target["source"]["version"]
        for older in (view.record or {}).get("previous", []):
            if older["version"] == version:
                self._stood(older)
        live = self.revision.live
        if self.commit is None or live is None or not live.git.has(self.commit):
            raise NotManageable(
                "%s no longer has the commit of %s" % (self.target["path"], version),
                "deploy that version by its revision",
            )
        self.revision.commit = self.commit
        return (entry for entry in kept if entry.path == GIT + "/index" or not inside(entry.path))

    def _stood(self, older: Dict[str, Any]) -> None:
        """Commit and branch of a kept tree; one that a snapshot brought says so itself."""
        if older.get("git"):
            self.commit, self.branch = older["git"]["commit"], older["git"]["branch"]
        elif os.path.isdir(os.path.join(older["tree"], GIT)):
            kept = repository.Repository(self.revision.system, older["tree"])
            self.commit, self.branch = kept.head, kept.branch

    def _history(self) -> bool:
        """Whether it goes back to a version that the host has kept."""
        return bool(self.target["source"]["kind"] == "history")

    def _given(self) -> bool:
        """Whether the plan says whose the files are."""
        return bool(self.target["owner"] or self.target["group"])

    def _repository(self, view: View) -> List[Entry]:
        """The ``.git`` of the new tree, as it is before git moves its HEAD."""
        found: List[Entry] = []
        owner = (self.revision.uid, self.revision.gid)
        given = owner if self._given() else None
        live = self.revision.live
        if live is None:
            top, below = self._first_repository()
            found += [_moved(entry, owner) for entry in below]
            view.sources.append((top, below))
        for entry in view.before or ():
            name = entry.path[len(_INSIDE) :]
            left = name in _LEFT or name.endswith(".lock") or entry.kind not in "fdl"
            if inside(entry.path) and not left:
                # What another user has left in it, git could not write to as the owner.
                mine = entry.uid == owner[0]
                found.append(worktree.owned(entry, given if mine else owner))
        if self._history():
            return found
        fresh = self.revision.place + "/git"
        arrived = self._made(fresh)
        view.sources.append((fresh, arrived))
        return _with_arrived(found, arrived, owner)

    def _first_repository(self) -> Tuple[str, Manifest]:
        """An empty ``.git`` for a host that has none, with its remote."""
        top = self.revision.place + "/work/.git"
        git = Git(self.revision.system, top, self.revision.user, self.revision.place + "/work")
        source = self.target["source"]
        init = ["init", "--quiet", "--template="]
        if source.get("format", "sha1") != "sha1":
            init.append("--object-format=" + source["format"])
        git.run(*init)
        url = source.get("url")
        if url:
            remote = source["remote"]
            git.run("config", "remote.%s.url" % remote, url)
            fetch = "+refs/heads/*:refs/remotes/%s/*" % remote
            git.run("config", "remote.%s.fetch" % remote, fetch)
        return top, self._made(top)

    def _made(self, top: str) -> Manifest:
        """What git wrote to a directory of ours; nobody else's file may have come in by a link."""
        live, found = self.revision.live, scan(top)
        uid = live.uid if live is not None else self.revision.uid
        for entry in found:
            if entry.uid != uid:
                raise NotManageable(
                    "%s/%s is not a file that git made" % (top, entry.path),
                    "somebody works there as the owner of the checkout: look who",
                )
        return found

    # -- what a person has to know -----------------------------------------------------------

    def judge(self, view: View, result: Dict[str, Any]) -> None:
        """Put into ``result`` what git knows of the live tree: what would be lost, what moves."""
        with legible(self.target["path"]):
            self._judge(view, result)

    def _judge(self, view: View, result: Dict[str, Any]) -> None:
        live, record = self.revision.live, view.record
        deployed = ((record or {}).get("git") or {}).get("commit")
        changed, extra, tracked = self._by_hand(view)
        result["drift"] = {"changed": changed, "added": extra, "removed": []}
        result["only_on_host"] = []
        for kind in ("added", "changed", "removed"):
            result[kind] = [item for item in result[kind] if not inside(item[0])]
        if live is not None:
            # What the live commit has and the new one has not; the rest is named as drift.
            result["removed"] = [item for item in result["removed"] if item[0] in tracked]
        result["change"] = extent(view, result)
        head = live.head if live is not None else None
        if head and not self._history():
            result["commits"] = self.revision.count_since(head)
        on = live.branch if live is not None else None
        result["git"] = {
            "commit": self.commit,
            "branch": self.branch,
            "head": head,
            "on": on,
            "moves": (head, on) != (self.commit, self.branch),
            "tag": self.tag,
            "extra": byhand.collapsed(extra, tracked),
            "local_commits": self.revision.local_commits(deployed),
            "rewritten": "" if self._history() else self.revision.rewritten(deployed),
        }
        view.handmade = changed + extra
        self._local = result["git"]["local_commits"]
        self.target["git"] = {
            "commit": self.commit,
            "branch": self.branch,
            "before": {"commit": head, "branch": on} if head else None,
        }

    def _by_hand(self, view: View) -> Tuple[List[str], List[str], Set[str]]:
        """Files that were changed, files that are in no commit, and those that are in the live one.

        Not those that the new tree has just as they are now, nor what the host keeps.
        """
        live = self.revision.live
        if live is None or view.before is None:
            return [], [], set()
        if self._history() and live.head is not None:
            self._tracked = worktree.blobs(live.git, live.head)
            self._changed = byhand.changed(live, None)
        tracked = set(self._tracked)
        changed = [
            name for name in self._changed if not view.skip.match(name) and not _same(view, name)
        ]
        extra = [
            entry.path
            for entry in view.before
            if not (entry.kind == "d" or inside(entry.path) or entry.path in tracked)
            and not _same(view, entry.path)
        ]
        return changed, [path for path in extra if path not in set(changed)], tracked

    # -- the tree that was built -------------------------------------------------------------

    def finish(self, tree: str, save: bool) -> None:
        """Move HEAD, branch and index of the new tree; nobody serves from it yet.

        With ``save``, what people have changed by hand goes into a stash that a tag keeps. Raises
        :class:`NotManageable` where git cannot, or does not find the files of the commit.
        """
        revision = self.revision
        git = Git(revision.system, os.path.join(tree, GIT), revision.user, work_tree=tree)
        try:
            wrong = self._finish(git, save)
        except GitFailed as error:
            raise NotManageable(
                "the repository of %s cannot be brought to %s: %s"
                % (self.target["path"], self.target["version"], error),
                "try it by hand in a clone of it",
            ) from error
        if wrong:
            raise NotManageable(
                "the new tree of %s is not what git would make of %s: %s"
                % (self.target["path"], self.commit, ", ".join(wrong[:5])),
                "look into .gitattributes and the settings of git on the host",
            )

    def _finish(self, git: Git, save: bool) -> List[str]:
        commit, live = self.commit, self.revision.live
        assert commit is not None
        name = self.tag.partition("/")[2]
        if live is not None and live.head is not None:
            git.run("update-ref", "refs/tags/" + self.tag, live.head)
            if save:
                emergency.save(git, live, name, bool(self._local))
        self._name_what_arrived(git)
        message = "deployguard: %s, deploy %s" % (self.target["version"], name)
        if self.branch:
            branch = "refs/heads/" + self.branch
            git.run("symbolic-ref", "-m", message, "HEAD", branch)
            git.run("update-ref", "-m", message, branch, commit)
        else:
            git.run("update-ref", "--no-deref", "-m", message, "HEAD", commit)
        emergency.forget(git)
        self._collect(git)
        if not self._history():
            git.run("read-tree", commit)
        # All of the tree is read and hashed by git: the proof that it is the commit's. What the
        # host keeps is not there yet.
        said = git.run("update-index", "--ignore-missing", "--refresh", accept=(0, 1))
        return [] if self._history() else os.fsdecode(said).splitlines()

    def _collect(self, git: Git) -> None:
        """Repack now and then: every deploy brings a pack, and nobody else may ever run git here.

        By the rules of git and the settings of the repository, and before anybody waits for it.
        """
        live = self.revision.live
        own = {key: live.setting(key) if live is not None else None for key in _PATIENCE}
        settings = ["%s=%s" % (key, value or _PATIENCE[key]) for key, value in own.items()]
        try:
            git.run("gc", "--auto", "--quiet", settings=[*settings, "gc.autoDetach=false"])
        except GitFailed:
            pass  # a courtesy: what it did not get to is as good as before

    def _name_what_arrived(self, git: Git) -> None:
        """The names that a fetch by hand would have moved."""
        revision, source = self.revision, self.target["source"]
        if revision.ref is None or revision.tip is None or self._history():
            return
        if revision.ref.startswith("refs/tags/"):
            git.run("update-ref", revision.ref, revision.tip)
        if source["from"] == "remote" and self._is_usual(source["remote"]):
            remote = "refs/remotes/%s/" % source["remote"]
            lines = ["update %s%s %s\n" % (remote, *item) for item in revision.branches.items()]
            git.run("update-ref", "--stdin", data=os.fsencode("".join(lines)))

    def _is_usual(self, remote: str) -> bool:
        """Whether the branches of the remote have the names that a clone gives them."""
        live, usual = self.revision.live, "+refs/heads/*:refs/remotes/%s/*" % remote
        return live is None or live.setting("remote.%s.fetch" % remote) == usual


def _with_arrived(found: List[Entry], arrived: Manifest, owner: Tuple[int, int]) -> List[Entry]:
    """The repository with the objects that are new, and with how far back it then goes."""
    there = {entry.path: entry for entry in found}
    shallow = GIT + "/shallow"
    there.pop(shallow, None)
    for entry in arrived:
        if entry.path == "shallow":
            there[shallow] = entry._replace(path=shallow, uid=owner[0], gid=owner[1])
        elif entry.path.startswith("objects/") and not entry.path.startswith("objects/info"):
            moved = entry._replace(path=_INSIDE + entry.path, uid=owner[0], gid=owner[1])
            there.setdefault(moved.path, moved)
    return list(there.values())


def _same(view: View, path: str) -> bool:
    """Whether the new tree has this path exactly as it is."""
    old = view.before.get(path) if view.before is not None else None
    new = view.wanted.get(path) if view.wanted is not None else None
    return (
        old is not None
        and new is not None
        and (old.kind, old.digest, old.mode & 0o100) == (new.kind, new.digest, new.mode & 0o100)
    )


def inside(path: str) -> bool:
    """Whether a path of the tree is the repository's own."""
    return path == GIT or path.startswith(_INSIDE)


def _moved(entry: Entry, owner: Tuple[int, int]) -> Entry:
    """An entry of a tree that becomes the ``.git`` of another one."""
    path = GIT if entry.path == ROOT else _INSIDE + entry.path
    return entry._replace(path=path, uid=owner[0], gid=owner[1])
