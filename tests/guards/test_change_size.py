"""`change_size`: files, bytes and commits at once."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from deployguard.guards.base import Unknown
from deployguard.guards.git import count_commits
from tests.guards.conftest import Shop


def many(shop: Shop, count: int) -> None:
    """Give v2 more files, in a directory that is no file."""
    folder = shop.site.root / "releases" / "v2" / "more"
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.txt").write_text("x" * 100)


def git(checkout: Path, *arguments: str) -> None:
    """Git, with a name for its commits."""
    who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.com"]
    subprocess.run(["git", "-C", str(checkout), *who, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A history with v1, and v2 three commits later; v0 is on a branch that left before v1."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "commit", "--allow-empty", "-m", "first")
    for number, tag in ((1, "v1"), (3, "v2")):
        for step in range(number):
            git(folder, "commit", "--allow-empty", "-m", f"step {step}")
        git(folder, "tag", tag)
    git(folder, "checkout", "--quiet", "-b", "old", "v1~1")
    git(folder, "commit", "--allow-empty", "-m", "left behind")
    git(folder, "tag", "v0")
    return folder


def test_too_much_at_once_is_refused(shop: Shop) -> None:
    """VERSION and forty new files are 41; what they are on is named."""
    many(shop, 40)
    shop.guarded({"change_size": {"files": 40, "bytes": "4 KB"}})
    refused = shop.assert_refused("change_size", "41 files change on here, and 40 are the most")
    assert "4,002 bytes change on here, and 4,000 are the most" in refused.err


def test_as_much_as_allowed_passes(shop: Shop) -> None:
    """Exactly the bound is within it."""
    many(shop, 40)
    shop.guarded({"change_size": {"files": 41, "bytes": "4002 B"}})
    shop.assert_passes("change_size", "41 files, 4,002 bytes to change")


def test_the_first_deploy_is_as_large_as_it_is(shop: Shop) -> None:
    """Where nothing is live everything is new, and no bound applies."""
    shop.guarded({"change_size": {"files": 0}}, path=str(shop.site.root / "srv2"))
    assert shop.run("plan", shop.site.plan, "--release", "v2").code == 0


def test_too_many_commits_are_refused(shop: Shop, checkout: Path) -> None:
    """Counted in the checkout from the version that is live to the one to come."""
    shop.guarded({"change_size": {"commits": 2, "checkout": str(checkout)}})
    shop.assert_refused("change_size", "3 commits at once, and 2 are the most")


def test_few_commits_pass(shop: Shop, checkout: Path) -> None:
    """As many as allowed."""
    shop.guarded({"change_size": {"commits": 3, "checkout": str(checkout)}})
    shop.assert_passes("change_size", "3 commits to change")


def test_what_git_does_not_know_is_refused(shop: Shop, tmp_path: Path) -> None:
    """A shallow checkout, as CI makes one, has no history to count in."""
    folder = tmp_path / "shallow"
    folder.mkdir()
    git(folder, "init", "--quiet")
    shop.guarded({"change_size": {"commits": 3, "checkout": str(folder)}})
    shop.assert_refused("change_size", "has no revision v1", "fetch-depth: 0")


def test_a_branch_that_lacks_what_is_live(checkout: Path) -> None:
    """What would be taken away counts as well as what would be added."""
    assert count_commits(str(checkout), "v1", "v0") == 2


@pytest.mark.parametrize("name", ["--all", "v1..v2", "v1 v2", ""])
def test_no_version_is_an_option_of_git(checkout: Path, name: str) -> None:
    """A host may say anything is live."""
    with pytest.raises(Unknown, match="is no revision"):
        count_commits(str(checkout), name, "v2")
