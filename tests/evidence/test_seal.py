"""The seal notices every change, and sha256sum agrees with it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from deployguard.evidence.seal import SUMS, seal, verify


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small folder with an odd name in it."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.log").write_text("a")
    (tmp_path / "sub/odd\n\\name").write_text("b")
    return tmp_path


def test_a_sealed_folder_verifies(folder: Path) -> None:
    """Also against the digest that stands in the incident."""
    digest = seal(folder)
    assert verify(folder) == [] and verify(folder, digest) == []
    assert (folder / SUMS).stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum")
def test_sha256sum_checks_it_without_us(folder: Path) -> None:
    """Years later, on a machine without deployguard."""
    seal(folder)
    done = subprocess.run(
        ["sha256sum", "--strict", "-c", SUMS], cwd=folder, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_kind_of_change_shows(folder: Path) -> None:
    """Changed, missing, added, a link in place of a file, a list that was rewritten."""
    digest = seal(folder)
    (folder / "a.log").write_text("A")
    (folder / "sub/odd\n\\name").unlink()
    (folder / "sub/new").symlink_to("/etc/passwd")
    assert verify(folder) == [
        "a.log: was changed",
        "sub/odd\n\\name: is missing",
        "sub/new: was added",
    ]
    seal(folder)
    assert verify(folder) == []
    assert verify(folder, digest) == ["SHA256SUMS: is not the list that was sealed"]


def test_no_seal_is_a_problem(tmp_path: Path) -> None:
    """Not an exception: the answer is that it cannot be trusted."""
    assert verify(tmp_path) == ["SHA256SUMS: No such file or directory"]
