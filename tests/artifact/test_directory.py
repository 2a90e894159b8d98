"""Directories as artifacts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deployguard.artifact.release import ArtifactInvalid, Limits, open_artifact
from deployguard.errors import UsageError
from tests.onhost.sample_trees import make


def test_a_directory_is_a_release(tmp_path: Path) -> None:
    """Its tree is the manifest, without owners unless they are asked for."""
    root = make(str(tmp_path / "dist"), {"a": "1", "d/b": "2", "empty": None})
    os.symlink("a", os.path.join(root, "link"))
    with open_artifact(root) as release:
        kinds = {entry.path: entry.kind for entry in release.manifest}
        assert kinds == {".": "d", "a": "f", "d": "d", "d/b": "f", "empty": "d", "link": "l"}
        assert {entry.uid for entry in release.manifest} == {-1}
        for digest in release.manifest.blobs():
            assert release.read(digest) in (b"1", b"2")
    with open_artifact(tmp_path / "dist", owner_from_artifact=True) as release:
        assert {entry.uid for entry in release.manifest} == {os.geteuid()}


def test_a_directory_reached_by_a_link_is_a_release(tmp_path: Path) -> None:
    """``dist/current`` may be the path in the plan."""
    make(str(tmp_path / "dist"), {"a": "1"})
    os.symlink("dist", tmp_path / "current")
    with open_artifact(tmp_path / "current") as release:
        assert release.manifest.get("a") is not None


def test_what_cannot_be_deployed_is_refused(tmp_path: Path) -> None:
    """Special files and links that leave the tree, all of them named."""
    root = make(str(tmp_path / "dist"), {"a": "1"})
    os.mkfifo(os.path.join(root, "fifo"))
    os.symlink("/etc/passwd", os.path.join(root, "absolute"))
    os.symlink("../x", os.path.join(root, "climbing"))
    with pytest.raises(ArtifactInvalid) as caught:
        open_artifact(root)
    text = "\n".join(caught.value.problems)
    assert all(f"'{name}'" in text for name in ("fifo", "absolute", "climbing"))
    assert len(caught.value.problems) == 3


def test_limits_hold_for_directories(tmp_path: Path) -> None:
    """As for archives."""
    root = make(str(tmp_path / "dist"), {"a": "12345", "b": "1"})
    for limits in (Limits(total_bytes=5), Limits(entries=2)):
        with pytest.raises(ArtifactInvalid):
            open_artifact(root, limits=limits)


def test_options_of_archives_are_mistakes_here(tmp_path: Path) -> None:
    """A hash that nobody would check must not look as if it had been."""
    root = make(str(tmp_path / "dist"), {"a": "1"})
    with pytest.raises(UsageError):
        open_artifact(root, sha256="0" * 64)
    with pytest.raises(UsageError):
        open_artifact(root, strip_components=1)


@pytest.mark.parametrize("trick", ["changed", "longer", "gone", "link"])
def test_a_directory_that_changes_meanwhile_is_noticed(tmp_path: Path, trick: str) -> None:
    """What travels is what was hashed when the release was opened, or nothing."""
    root = make(str(tmp_path / "dist"), {"a": "1" * 10})
    with open_artifact(root) as release:
        digest = next(iter(release.manifest.blobs()))
        os.unlink(os.path.join(root, "a"))
        if trick == "changed":
            make(root, {"a": "2" * 10})
        elif trick == "longer":
            make(root, {"a": "1" * 11})
        elif trick == "link":
            make(str(tmp_path), {"twin": "1" * 10})
            os.symlink("../twin", os.path.join(root, "a"))
        for _ in range(2):
            with pytest.raises(ArtifactInvalid, match="changed after it was opened"):
                list(release.blob_stream([digest]))
        with pytest.raises(ArtifactInvalid):
            release.read(digest)


def test_a_directory_that_cannot_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files are named."""
    root = make(str(tmp_path / "dist"), {"secret": "1"})
    real = os.open

    def refuse(path: str, *rest: int, **options: int) -> int:
        if path == "secret":
            raise PermissionError(13, "Permission denied", path)
        return real(path, *rest, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ArtifactInvalid, match="secret"):
        open_artifact(root)
