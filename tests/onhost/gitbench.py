"""A bench whose component is a git checkout, with the repository that its revisions come from."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from typing import Any, Dict, List, Optional

from deployguard.onhost.system import Completed, System
from deployguard.onhost.trees import blobs
from tests.onhost.bench import COMPONENT, Bench, Deploy, Services, operation, snapshot
from tests.onhost.sample_trees import make

BRANCH = "main"


def git(directory: str, *arguments: str, data: Optional[bytes] = None) -> str:
    """What git answers in a repository of the test's own."""
    argv = ["git", "-c", "user.name=somebody", "-c", "user.email=somebody@example.com"]
    argv += ["-c", "init.defaultBranch=" + BRANCH, "-c", "protocol.file.allow=always"]
    argv += ["-c", "safe.directory=*"]
    done = subprocess.run(
        [*argv, *arguments], cwd=directory, check=False, input=data, capture_output=True
    )
    assert done.returncode == 0, "%s: %s" % (arguments, done.stderr.decode())
    return done.stdout.decode("utf-8", "surrogateescape").strip()


class _Machine(Services):
    """The pretended service, and real programs beside it."""

    def run(self, argv: Any, **options: Any) -> Completed:
        if argv[0] == "service":
            return super().run(argv)
        return System.run(self, argv, **options)


class GitBench(Bench):
    """Revisions are tags of ``upstream``; ``source`` goes into the source of every target."""

    def __init__(self, root: str, **options: Any) -> None:
        self.source: Dict[str, Any] = dict(options.pop("source", {}))
        super().__init__(root, "git", **options)
        self.system = _Machine(self)
        self.upstream = os.path.join(root, "build", "upstream")
        os.makedirs(self.upstream)
        git(self.upstream, "init", "-q")

    def commit(
        self, version: str, files: Optional[Dict[str, Any]] = None, branch: str = BRANCH
    ) -> str:
        """A commit that has these files and no others, tagged; its name."""
        if git(self.upstream, "rev-list", "--all", "--max-count=1"):
            git(self.upstream, "checkout", "-q", branch)
        for name in os.listdir(self.upstream):
            if name != ".git":
                path = os.path.join(self.upstream, name)
                shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
        make(self.upstream, dict({"VERSION": version, "same.txt": "the same"}, **(files or {})))
        git(self.upstream, "add", "-A", "-f")
        git(self.upstream, "commit", "-q", "-m", version)
        git(self.upstream, "tag", version)
        return git(self.upstream, "rev-parse", "HEAD")

    def clone(self, revision: str, branch: str = BRANCH) -> None:
        """A checkout that somebody made by hand, with its branch at the revision."""
        options = ("-q", "--no-hardlinks", "--template=")
        git(self.root, "clone", *options, "file://" + self.upstream, self.path)
        git(self.path, "checkout", "-q", "-B", branch, revision)

    def deploy(
        self, version: str, files: Optional[Dict[str, Any]] = None, **options: Any
    ) -> GitDeploy:
        """A deploy of a revision; made first where there is none of that name."""
        tags = git(self.upstream, "tag", "--list").split()
        heads = git(self.upstream, "branch", "--format=%(refname:short)").split()
        if version not in (*tags, *heads) and len(version) != 40:
            self.commit(version, files)
        return GitDeploy(self, version, self.upstream, options)

    def rollback(self, version: str) -> GitDeploy:
        """A deploy of a version that the host still has."""
        return GitDeploy(self, version, None, {})

    def git(self, *arguments: str) -> str:
        """What git answers in the live checkout, as a person would ask it, but for its index."""
        return git(self.path, "--no-optional-locks", *arguments)

    def says(self) -> Dict[str, str]:
        """How the live checkout looks to a person."""
        questions = {
            "status": ("status", "--porcelain", "--branch", "--ignored"),
            "stash": ("stash", "list"),
            "head": ("rev-parse", "HEAD"),
            "log": ("reflog",),
            "branches": ("for-each-ref", "refs/heads", "refs/remotes", "refs/stash"),
            "index": ("ls-files", "--stage", "-v"),
        }
        return {name: self.git(*question) for name, question in questions.items()}

    def world(self) -> Dict[str, Any]:
        """Everything but the emergency tags, which stay."""
        found = snapshot(self.root, skip=("state", "build", "run"), dated=self.path)
        tags = os.path.join("srv", "app", ".git", "refs", "tags")
        found = {k: v for k, v in found.items() if not k.startswith(tags + "/deployguard")}
        for directory in (tags, os.path.dirname(tags)):
            if directory in found:
                found[directory] = found[directory][:4]
        return found


class GitDeploy(Deploy):
    """As any deploy; before the look the revision is brought to the host."""

    bench: GitBench

    def target(self, manifest: Any) -> Dict[str, Any]:
        target = super().target(manifest)
        if self._source is not None:
            target["source"] = self.source()
        return target

    def manifest(self) -> None:
        return None

    def source(self) -> Dict[str, Any]:
        """The source on the wire; from the remote unless the bench says otherwise."""
        found: Dict[str, Any] = {
            "kind": "git",
            "from": "remote",
            "revision": self.version,
            "branch": None,
            "timeout": 60.0,
            "remote": "origin",
            "url": "file://" + self.bench.upstream,
        }
        if self.bench.source.get("from") == "bundle":
            found.update(self._local())
        found.update(self.bench.source)
        return found

    def _local(self) -> Dict[str, Any]:
        upstream = self.bench.upstream
        tag = git(upstream, "tag", "--list", self.version)
        return {
            "commit": git(upstream, "rev-parse", self.version + "^{commit}"),
            "tip": git(upstream, "rev-parse", self.version),
            "ref": ("refs/tags/" if tag else "refs/heads/") + self.version,
            "format": "sha1",
            "known": [],
        }

    def look(self) -> None:
        if self._source is not None:
            self.obtain()
        super().look()

    def obtain(self) -> Dict[str, Any]:
        """Fetch the revision, or send what the host lacks of it."""
        target = self.target(None)
        asked = {"transaction": self.identifier, "component": target}
        answer: Dict[str, Any] = self.participant.revision(asked)
        if answer["lacks"]:
            data = self.bundle(target["source"]["tip"], answer["haves"])
            digest = hashlib.sha256(data).hexdigest()
            self.participant.bundle(
                {"component": COMPONENT, "digest": digest, "size": len(data)},
                blobs.encode([(digest, len(data), [data])]),
            )
        return answer

    def bundle(self, tip: str, haves: List[str]) -> bytes:
        """A bundle of what the host lacks."""
        upstream, name = self.bench.upstream, "refs/deployguard/tip"
        git(upstream, "update-ref", name, tip)
        known = [have for have in haves if self._has(have)]
        lines = "".join("%s\n" % line for line in (name, *("^" + have for have in known)))
        path = os.path.join(self.bench.root, "build", "bundle")
        git(upstream, "bundle", "create", "-q", path, "--stdin", data=lines.encode())
        git(upstream, "update-ref", "-d", name)
        with open(path, "rb") as file:
            return file.read()

    def _has(self, name: str) -> bool:
        argv = ["git", "cat-file", "-e", name]
        found = subprocess.run(argv, cwd=self.bench.upstream, check=False, capture_output=True)
        return found.returncode == 0

    def procedure(self) -> List[Dict[str, Any]]:
        found, steps = self.component["git"], super().procedure()
        if found["head"]:
            made = {"act": "tag", "path": self.bench.path, "name": found["tag"]}
            steps.insert(0, operation("tag", [dict(made, commit=found["head"])], []))
        return steps
