"""A revision of a repository here, and the bundles that bring it to hosts."""

from __future__ import annotations

import os
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from deployguard.artifact.base import ArtifactInvalid
from deployguard.artifact.repository import GitRevision
from deployguard.onhost.trees import blobs


def git(directory: Path, *arguments: str) -> str:
    """What git answers in a repository of the test's own."""
    who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.com"]
    done = subprocess.run(
        ["git", "-C", str(directory), *who, "-c", "init.defaultBranch=main", *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits on main: v1 with a light tag, v2 with an annotated one."""
    folder = tmp_path / "shop"
    folder.mkdir()
    git(folder, "init", "-q")
    for version in ("v1", "v2"):
        (folder / "VERSION").write_text(version)
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "-m", version)
        git(folder, "tag", *(["-a", "-m", "the second"] if version == "v2" else []), version)
    return folder


def everything(folder: Path) -> dict[str, bytes]:
    """All files of a repository: it must not change when it is sent from."""
    return {str(path): path.read_bytes() for path in (folder / ".git").rglob("*") if path.is_file()}


def received(revision: GitRevision, known: list[str], target: Path) -> Path:
    """A repository that has the known commits and gets the bundle."""
    bundle = revision.bundle(known)
    store = target / "store"
    store.mkdir(parents=True)
    blobs.receive(bundle.stream(), str(store), {bundle.digest: bundle.size})
    found = blobs.stored(str(store))[bundle.digest]
    data = Path(found.path).read_bytes()[found.offset : found.offset + found.size]
    (target / "bundle").write_bytes(data)
    git(target, "init", "-q", "--bare", "there")
    for name in known:
        git(target / "there", "fetch", "-q", str(revision.path), f"{name}:refs/heads/{name}")
    git(target / "there", "fetch", "-q", str(target / "bundle"), "+refs/*:refs/*")
    return target / "there"


def test_names(repository: Path) -> None:
    """A branch, both kinds of tag, a full name, a hash whole or short, and HEAD."""
    commit, tag = git(repository, "rev-parse", "v2^{commit}"), git(repository, "rev-parse", "v2")
    assert tag != commit
    for name, ref, tip in (
        ("v2", "refs/tags/v2", tag),
        ("main", "refs/heads/main", commit),
        ("refs/heads/main", "refs/heads/main", commit),
        (commit, None, commit),
        (commit[:10], None, commit),
        ("HEAD", None, commit),
    ):
        found = GitRevision(repository, name)
        assert (found.ref, found.tip, found.commit, found.format) == (ref, tip, commit, "sha1")


def test_the_files_of_a_revision(repository: Path) -> None:
    """What is at a path, without a checkout: its kind and size, its content, and all paths."""
    (repository / "conf").mkdir()
    (repository / "conf" / "[a] ü.yml").write_text("a: 1\n")
    (repository / "link").symlink_to("VERSION")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "more")
    revision = GitRevision(repository, "main")
    assert revision.files() == ["VERSION", "conf/[a] ü.yml", "link"]
    assert revision.entry("VERSION") == ("f", 2) and revision.read("VERSION") == b"v2"
    assert revision.entry("conf/[a] ü.yml") == ("f", 5)
    assert revision.entry("conf") == ("d", 0) and revision.entry("link") == ("l", 0)
    assert revision.entry("conf/a") is None and revision.entry("gone") is None
    revision.close()


def test_a_bundle_brings_what_is_not_known(repository: Path, tmp_path: Path) -> None:
    """All of it to a host that has nothing, the rest to one that has v1; nothing changes here."""
    before = everything(repository)
    v1 = git(repository, "rev-parse", "v1")
    revision = GitRevision(repository, "v2")
    assert revision.known([v1, "f" * 40, git(repository, "rev-parse", "v1^{tree}")]) == [v1]
    first = received(revision, [], tmp_path / "first")
    assert git(first, "rev-parse", "refs/deployguard/tip^{commit}") == revision.commit
    assert git(first, "rev-list", "--count", "refs/deployguard/tip") == "2"
    git(first, "fsck", "--full", "--strict")
    rest = revision.bundle([v1])
    assert rest.size < revision.bundle([]).size
    assert revision.bundle([v1]) is rest  # one file for all hosts that are alike
    second = received(revision, [v1], tmp_path / "second")
    assert git(second, "rev-parse", "refs/deployguard/tip") == revision.tip
    assert everything(repository) == before
    folder = rest.path.parent
    revision.close()
    assert not folder.exists()


def test_a_work_tree_and_the_variables_of_a_hook(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a linked work tree, and from a hook of another repository."""
    git(repository, "worktree", "add", "-q", str(tmp_path / "linked"), "v1")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "another"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    revision = GitRevision(tmp_path / "linked", "v2")
    monkeypatch.undo()
    there = received(revision, [], tmp_path / "host")
    assert git(there, "rev-parse", "refs/deployguard/tip") == git(repository, "rev-parse", "v2")
    revision.close()


def test_hashes_of_the_other_kind(tmp_path: Path) -> None:
    """A repository of sha256 is sent from like any other."""
    folder = tmp_path / "new"
    folder.mkdir()
    git(folder, "init", "-q", "--object-format=sha256")
    git(folder, "commit", "-q", "--allow-empty", "-m", "first")
    revision = GitRevision(folder, "main")
    assert revision.format == "sha256" and len(revision.commit) == 64
    assert revision.bundle([]).path.read_bytes().startswith(b"# v3 git bundle\n@object-format=sha")
    revision.close()


def _shallow(repository: Path, tmp_path: Path) -> Path:
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{repository}", "shallow")
    return tmp_path / "shallow"


def _ambiguous(repository: Path, tmp_path: Path) -> Path:
    git(repository, "branch", "v2", "v1")
    return repository


@pytest.mark.parametrize(
    ("prepare", "name", "option", "words"),
    [
        (lambda r, t: r, "v3", "revision", "v3 is no branch, tag or commit there"),
        (lambda r, t: r, "mian", "revision", "did you mean main?"),
        (lambda r, t: r, "abcdef", "revision", "abcdef is no branch, tag or commit there"),
        (_ambiguous, "v2", "revision", "v2 is a branch and a tag"),
        (_shallow, "main", "repository", "it is a shallow clone, and lacks what a host may need"),
        (lambda r, t: t, "main", "repository", "is not a git repository"),
    ],
)
def test_what_cannot_be_sent(
    repository: Path,
    tmp_path: Path,
    prepare: Callable[[Path, Path], Path],
    name: str,
    option: str,
    words: str,
) -> None:
    """One clear mistake, at the line of the plan that it is about."""
    with pytest.raises(ArtifactInvalid) as caught:
        GitRevision(prepare(repository, tmp_path), name)
    assert words in f"{caught.value} ({caught.value.hint})"
    assert caught.value.option == option


def test_no_git_here(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, and what else can be done."""
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(ArtifactInvalid, match="git is not installed on this machine"):
        GitRevision(repository, "v2")


def test_a_bundle_is_not_compressed_twice(repository: Path) -> None:
    """Its packs are compressed already; the stream costs a few bytes and no time."""
    revision = GitRevision(repository, "v2")
    bundle = revision.bundle([])
    stream = b"".join(bundle.stream())
    assert len(stream) < bundle.size + 200
    assert zlib.decompress(stream).endswith(bundle.path.read_bytes())
    revision.close()
