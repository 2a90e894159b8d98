"""Brings the commit that is to be deployed to the host, without a change to what is live.

A repository beside the live one borrows all of its objects, so that only what is new travels: from
a remote that the host fetches from itself, or in a bundle that the controller sends. What arrives
stays there until the new tree is built, and goes with the transaction.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional, Tuple

from deployguard.onhost import durable
from deployguard.onhost.git import repository
from deployguard.onhost.git.command import Git, GitFailed, account
from deployguard.onhost.git.remote import failed, named
from deployguard.onhost.git.repository import Config, Repository
from deployguard.onhost.places import NotManageable, workshop
from deployguard.onhost.system import System
from deployguard.onhost.trees.blobs import Blob, receive, stored
from deployguard.onhost.trees.owners import owner_of

#: What arrives is known by this name in the repository beside the live one, until it has its own.
TIP = "refs/deployguard/tip"

_FETCHED = "refs/deployguard/fetched"
_HEADS = "refs/heads/"


def place_of(path: str, transaction: str) -> str:
    """The directory beside a checkout where a transaction prepares its revision."""
    return os.path.join(workshop(path), transaction + ".checkout")


class Revision:
    """One revision on its way to one checkout.

    ``commit`` is what it leads to and ``tip`` the object that has its name, a tag or that very
    commit; both are ``None`` until they are here. ``ref`` is the full name, or ``None`` for what
    was named by its hash.
    """

    def __init__(self, system: System, target: Dict[str, Any], transaction: str) -> None:
        """Looks at what is live. Raises :class:`NotManageable`."""
        self.system = system
        self.target = target
        self.source: Dict[str, Any] = target["source"]
        self.place = place_of(target["path"], transaction)
        self.live: Optional[Repository] = repository.find(system, target["path"])
        self.uid, self.gid = _owner(target, self.live)
        #: Who owns the new tree, and who works with the objects of the live one.
        self.user = account(target["path"], self.uid)
        self.commit: Optional[str] = self.source.get("commit")
        self.tip: Optional[str] = self.source.get("tip")
        self.ref: Optional[str] = self.source.get("ref")
        #: Commits that are known to be somewhere else as well.
        self.pushed: List[str] = []
        #: Where the branches of the remote are, as far as their commits are here.
        self.branches: Dict[str, str] = {}
        self._prepared = False

    @property
    def git(self) -> Git:
        """The repository beside the live one, with a work tree of its own.

        A version that the host has kept needs no other repository than the live one.
        """
        if not self._prepared and self.live is not None:
            return self.live.git
        user = self.live.user if self.live is not None else self.user
        return Git(self.system, self.place + "/git", user, work_tree=self.place + "/work")

    def prepare(self) -> None:
        """Make the repository beside the live one; the directory above is there."""
        durable.remove_tree(self.place)
        os.mkdir(self.place, 0o711)
        uid = self.live.uid if self.live is not None else self.uid
        folder = _Folder(uid, self.gid)
        inside = self.place + "/git"
        for name in ("", "/objects", "/objects/info", "/objects/pack", "/refs", "/info"):
            os.mkdir(inside + name, 0o700)
        config, head, packed = self._first_config(), "ref: refs/heads/none\n", ""
        live = self.live
        if live is not None:
            config = live.carried()
            head = (live.head + "\n") if live.head else head
            format_ = "%(objectname) refs/live/%(refname:lstrip=1)"
            refs = live.git.lines("for-each-ref", "--format=" + format_)
            packed = "".join(line + "\n" for line in refs)
            alternates = os.fsencode(live.directory + "/objects\n")
            folder.write(inside + "/objects/info/alternates", alternates)
            for parts in (("shallow",), ("info", "attributes")):
                data = live.own(*parts)
                if data is not None:
                    folder.write("/".join((inside, *parts)), data)
        folder.write(inside + "/config", os.fsencode(config_text(config)))
        folder.write(inside + "/HEAD", head.encode("ascii"))
        folder.write(inside + "/packed-refs", os.fsencode(packed))
        os.mkdir(self.place + "/work", 0o700)
        # The top last: until then nobody else reaches in.
        for name in ("/work", *("/git" + n for n in _INSIDE)):
            folder.give(self.place + name)
        self._prepared = True

    def _first_config(self) -> Config:
        """The settings of a checkout that is not there yet."""
        found = [("core.repositoryformatversion", "0")]
        if self.source.get("format", "sha1") != "sha1":
            found = [
                ("core.repositoryformatversion", "1"),
                ("extensions.objectformat", self.source["format"]),
            ]
        url = self.source.get("url")
        if url:
            remote = "remote.%s." % self.source["remote"]
            fetch = "+refs/heads/*:refs/remotes/%s/*" % self.source["remote"]
            found += [(remote + "url", url), (remote + "fetch", fetch)]
        return found

    # -- from a remote -----------------------------------------------------------------------

    def fetch(self) -> None:
        """Fetch the revision from the remote. Raises :class:`NotManageable` with what is wrong."""
        remote, name = self.source["remote"], self.source["revision"]
        self._check_remote(remote)
        try:
            refs = self._remote_refs(remote)
            self.pushed = self.git.present(refs.values())
            self.ref = named(name, refs, remote) or None
            if self.ref is not None:
                self._fetch(remote, "+%s:%s" % (self.ref, TIP))
            else:
                self._fetch_commit(remote, name)
            self._arrived()
            self.branches = self._whole(refs)
        except GitFailed as error:
            raise failed(self.git, name, remote, error) from error

    def _whole(self, refs: Dict[str, str]) -> Dict[str, str]:
        """The branches of the remote that are here with all of their history."""
        found = {name[len(_HEADS) :]: sha for name, sha in refs.items() if name.startswith(_HEADS)}
        here = self.git.present(found.values())
        known = ("--not", TIP, "--glob=refs/live")
        try:
            data = "".join(sha + "\n" for sha in here).encode("ascii")
            self.git.run("rev-list", "--quiet", "--objects", "--stdin", *known, data=data)
        except GitFailed:
            return {}
        return {name: sha for name, sha in found.items() if sha in here}

    def _check_remote(self, remote: str) -> None:
        wanted = self.source.get("url")
        if self.live is None:
            if not wanted:
                raise NotManageable(
                    "%s is not there, and the plan does not say what to clone"
                    % self.target["path"],
                    "add git: {url: …} for a first deploy, or clone the repository there",
                )
            return
        found = self.live.setting("remote.%s.url" % remote)
        if found is None:
            raise NotManageable(
                "%s has no remote %s" % (self.target["path"], remote),
                "name another one under git: remote, or add it there: git -C %s remote add %s %s"
                % (self.target["path"], remote, wanted or "URL"),
            )
        if wanted and found != wanted:
            raise NotManageable(
                "%s of %s is %s, and the plan says %s"
                % (remote, self.target["path"], found, wanted),
                "git remote set-url there, or mend git: url",
            )

    def _remote_refs(self, remote: str) -> Dict[str, str]:
        """Branches and tags of the remote, and what annotated tags lead to as ``NAME^{}``."""
        output = self.git.run(
            "ls-remote", "--heads", "--tags", "--quiet", remote, timeout=self.source["timeout"]
        )
        lines = output.decode("utf-8", "surrogateescape").splitlines()
        return {name: sha for sha, _, name in (line.partition("\t") for line in lines) if name}

    def _fetch(self, remote: str, *refspecs: str) -> None:
        arguments = ["fetch", "--quiet", "--no-tags", "--force", remote, *refspecs]
        self.git.run(*arguments, timeout=self.source["timeout"])

    def _fetch_commit(self, remote: str, commit: str) -> None:
        """A commit that has no name there; not every server gives such a one away."""
        if not self.git.has(commit):
            try:
                self._fetch(remote, "+%s:%s" % (commit, TIP))
            except GitFailed:
                heads = "+refs/heads/*:%s/heads/*" % _FETCHED
                self._fetch(remote, heads, "+refs/tags/*:%s/tags/*" % _FETCHED)
        if not self.git.has(commit + "^{commit}"):
            raise NotManageable(
                "%s has no commit %s" % (remote, commit), "push it there, or mend the revision"
            )
        self.git.run("update-ref", TIP, commit)

    # -- from a bundle -----------------------------------------------------------------------

    def lacks(self) -> bool:
        """Whether the revision has to be sent: not all of it is on the host."""
        assert self.tip is not None and self.commit is not None
        try:
            if not (self.git.has(self.tip) and self.git.has(self.commit)):
                return True
            # A commit may be here without its files, where somebody has fetched and died.
            tips = ["--not", "--glob=refs/live"]
            self.git.run("rev-list", "--objects", "--quiet", self.commit, *tips)
            self.git.run("update-ref", TIP, self.tip)
        except GitFailed:
            return True
        return False

    def take(self, pieces: Any, digest: str, size: int) -> int:
        """Receive the bundle and what is in it; how many bytes it had."""
        store = self.place + "/blobs"
        durable.remove_tree(store)
        os.mkdir(store, 0o700)
        receive(pieces, store, {digest: size})
        bundle = self.place + "/bundle"
        durable.remove_tree(bundle)
        uid = self.live.uid if self.live is not None else self.uid
        _Folder(uid, self.gid).copy(bundle, stored(store)[digest])
        durable.remove_tree(store)
        try:
            self.git.run(
                "fetch", "--quiet", "--no-tags", "--force", bundle, "+%s:%s" % (TIP, TIP),
                settings=("protocol.file.allow=always",),
            )  # fmt: skip
        except GitFailed as error:
            raise NotManageable(
                "the bundle does not fit what is in %s: %s" % (self.target["path"], error),
                "deploy again; if it stays so, git -C %s fsck there" % self.target["path"],
            ) from error
        durable.remove_tree(bundle)
        self._arrived()
        return size

    # -- what arrived ------------------------------------------------------------------------

    def _arrived(self) -> None:
        tip = self.git.ask("rev-parse", "-q", "--verify", TIP)
        commit = self.git.ask("rev-parse", "-q", "--verify", TIP + "^{commit}")
        if commit is None:
            raise NotManageable(
                "%s is not the name of a commit" % self.source["revision"],
                "name a branch, a tag or a commit",
            )
        if self.commit is not None and self.commit != commit:
            raise NotManageable("%s arrived instead of %s" % (commit, self.commit), "deploy again")
        self.tip, self.commit = tip, commit

    def known(self) -> List[str]:
        """Commits that somebody else has too, and that a deploy cannot lose."""
        found = [*self.pushed, *self.source.get("known", [])]
        if self.live is not None:
            found += self.live.remote_tips()
        return found

    def rewritten(self, deployed: Optional[str]) -> str:
        """How the name of the revision leads somewhere it should not; empty when it does not.

        ``deployed`` is the commit that the last deploy left here.
        """
        live = self.live
        if live is None or self.ref is None or self.commit is None:
            return ""
        name = self.ref.partition("/")[2].partition("/")[2]
        if self.ref.startswith("refs/tags/"):
            here = live.git.ask("rev-parse", "-q", "--verify", self.ref + "^{commit}")
            if here is not None and here != self.commit:
                words = "the tag %s was moved: it is %s on the host, and %s now"
                return words % (name, here[:12], self.commit[:12])
            return ""
        for commit, whose in ((live.head, "is live"), (deployed, "was deployed last")):
            if commit and self.git.has(commit) and not self._contains(commit):
                words = "%s does not contain %s, which %s: it was rewritten, or never had it"
                shallow = "" if live.own("shallow") is None else " (or the clone is too shallow)"
                return words % (name, commit[:12], whose) + shallow
        return ""

    def _contains(self, commit: str) -> bool:
        assert self.commit is not None
        try:
            self.git.run("merge-base", "--is-ancestor", commit, self.commit)
        except GitFailed:
            return False
        return True

    def count_since(self, commit: str) -> int:
        """How many commits are new since the one that is live."""
        assert self.commit is not None
        return int(self.git.run("rev-list", "--count", self.commit, "^" + commit))

    def local_commits(self, deployed: Optional[str]) -> List[str]:
        """Commits of the live checkout that are nowhere else, newest first, as git logs them."""
        live = self.live
        if live is None or live.head is None:
            return []
        known = [sha for sha in (self.commit, deployed, *self.known()) if sha]
        lines = [live.head] + ["^" + sha for sha in self.git.present(known)]
        return self.git.lines(
            "log", "--no-decorate", "--no-color", "--format=%h %s", "--max-count=21", "--stdin",
            data="".join(line + "\n" for line in lines).encode("ascii"),
        )  # fmt: skip


_INSIDE = ("/objects", "/objects/info", "/objects/pack", "/refs", "/info", "")


class _Folder:
    """Files that are made for somebody else, in directories that are still ours alone."""

    def __init__(self, uid: int, gid: int) -> None:
        self._owner = (uid, gid)

    def write(self, path: str, data: bytes) -> None:
        descriptor = self._create(path)
        try:
            durable.write_all(descriptor, data)
        finally:
            os.close(descriptor)

    def copy(self, path: str, blob: Blob) -> None:
        """The content of a blob, in pieces."""
        descriptor = self._create(path)
        try:
            with open(blob.path, "rb") as source:
                source.seek(blob.offset)
                left = blob.size
                while left:
                    data = source.read(min(left, 1024 * 1024))
                    durable.write_all(descriptor, data)
                    left -= len(data)
        finally:
            os.close(descriptor)

    def give(self, path: str) -> None:
        if os.geteuid() == 0:
            os.chown(path, *self._owner, follow_symlinks=False)

    def _create(self, path: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        if os.geteuid() == 0:
            os.fchown(descriptor, *self._owner)
        return descriptor


def _owner(target: Dict[str, Any], live: Optional[Repository]) -> Tuple[int, int]:
    path = target["path"]
    # An empty directory was made for somebody: whose it is has been decided.
    found = owner_of(target, path if live is not None or os.path.isdir(path) else None)
    assert found is not None, "validation refuses `owner: artifact` for a checkout"
    return found


def config_text(settings: Config) -> str:
    """Settings as git reads them from a file."""
    lines = []
    for name, value in settings:
        section, _, rest = name.partition(".")
        middle, dotted, key = rest.rpartition(".")
        head = "[%s %s]" % (section, _quoted(middle)) if dotted else "[%s]" % section
        lines.append("%s\n\t%s = %s\n" % (head, key, _quoted(value)))
    return "".join(lines)


def _quoted(text: str) -> str:
    for plain, written in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\t", "\\t")):
        text = text.replace(plain, written)
    return '"%s"' % text
