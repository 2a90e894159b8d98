"""A git checkout: what people did to it is named, and its name has to lead on from what is live."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployguard.guards import revision
from deployguard.guards.base import HostView, Known
from deployguard.plan.model import Component, Plan
from tests.cli.conftest import Run, Site
from tests.guards.conftest import Shop


class Repository:
    """The developers' repository, beside the plan."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.path = site.root / "repository"
        self.path.mkdir()
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str) -> str:
        """What git answers there."""
        who = ("-c", "user.name=dev", "-c", "user.email=dev@example.com")
        argv = ["git", "-C", str(self.path), *who, *arguments]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, version: str) -> None:
        """The release as a commit, and a tag."""
        shutil.copytree(self.site.root / "releases" / version, self.path, dirs_exist_ok=True)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", version)
        self.git("tag", version)

    def checkout(self, **git: Any) -> None:
        """Change the ``git`` block of the plan."""
        plan = yaml.safe_load(self.site.plan.read_text())
        component = plan["components"]["web"]
        component.pop("artifact", None)
        component["layout"] = "git"
        component["git"] = {"repository": "repository", "branch": "main", **git}
        self.site.plan.write_text(yaml.safe_dump(plan))


@pytest.fixture
def repository(site: Site) -> Repository:
    """The plan deploys a checkout; v1 and v2 are tags."""
    made = Repository(site)
    site.release("v2")
    made.commit("v1")
    made.commit("v2")
    made.checkout()
    return made


@pytest.fixture
def shop(repository: Repository, site: Site, deployguard: Run) -> Shop:
    """v1 is live."""
    done = deployguard("apply", site.plan)
    assert done.code == 0, done.err
    return Shop(site, deployguard)


def live(shop: Shop, *arguments: str) -> str:
    """What git answers in the live checkout, to somebody who may write there."""
    who = ("-c", "user.name=ops", "-c", "user.email=ops@example.com")
    argv = ["git", "-C", str(shop.root), *who, *arguments]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def test_hand_made_changes_are_refused(shop: Shop) -> None:
    """Each kind in its words: changed, in no commit, committed there; saved when that is asked."""
    server = Path(shop.root, "server.py")
    server.write_text(server.read_text() + "# at night\n")
    Path(shop.root, "node_modules").mkdir()
    for name in ("a.js", "b.js"):
        Path(shop.root, "node_modules", name).touch()
    live(shop, "commit", "-q", "--allow-empty", "-m", "a note to myself")
    short = live(shop, "rev-parse", "--short", "HEAD")
    shop.assert_refused(
        "drift",
        "changed by hand: server.py; in no commit: node_modules/ (2 files); "
        f"committed there and nowhere else: {short} a note to myself (",
    )
    saved = shop.apply("--drift", "save")
    assert saved.code == 0, saved.err
    tag = f"deployguard/saved/{saved.lines[-1]['transaction']}"
    assert live(shop, "show", f"{tag}:server.py").endswith("# at night")
    assert live(shop, "log", "--format=%s", "-1", f"{tag}^1") == "a note to myself"


def test_nothing_by_hand_passes(shop: Shop) -> None:
    """And what moves is shown by the commits."""
    shop.assert_passes("drift", "nothing in", "but its commit")
    assert live(shop, "status", "--porcelain", "--branch") == "## main"


def test_a_branch_without_what_is_live(shop: Shop, repository: Repository) -> None:
    """Refused, unless the plan or a reason accepts it."""
    repository.checkout(revision="main")
    shop.assert_passes("revision", "web: it is the commit ")
    repository.git("reset", "-q", "--hard", "v1")
    repository.git("commit", "-q", "--allow-empty", "-m", "another v2")
    shop.assert_refused("revision", "web: main does not contain ", ", which is live: it was rewri")
    reason = "the branch was cleaned of a secret"
    over = shop.apply("--override", f"revision={reason}", release="v1")
    assert over.code == 0, over.err
    (override,) = over.lines[-1]["overrides"]
    assert (override["guard"], override["reason"]) == ("revision", reason)


def test_a_tag_that_was_moved(shop: Shop, repository: Repository) -> None:
    """Refused in the plan's terms, and accepted in them."""
    repository.git("tag", "-f", "v1", "v2")
    refused = shop.apply(release="v1")
    assert refused.code == 5 and "web: the tag v1 was moved: it is " in refused.err
    repository.checkout(rewritten="accept")
    accepted = shop.apply("--drift", "save", release="v1")
    # It is accepted, deployed, and says of itself that it is v2.
    assert accepted.code == 3, accepted.err
    assert "v1" in shop.served()


def test_commits_are_counted(shop: Shop, repository: Repository) -> None:
    """`change_size` counts the commits between what is live and what is deployed."""
    for number in range(3):
        repository.git("commit", "-q", "--allow-empty", "-m", f"number {number}")
    repository.git("tag", "-f", "v2")
    shop.guarded({"change_size": {"commits": 3}})
    shop.assert_refused("change_size", "4 commits at once, and 3 are the most")
    shop.guarded({"change_size": {"commits": 4, "files": 1}})
    shop.assert_passes("change_size", "1 files, 4 commits to change")


def test_files_of_the_revision_are_known(shop: Shop) -> None:
    """A guard that reads the new release reads the commit."""
    shop.guarded({"structure": {"needs": ["server.py", "index.js"]}})
    shop.assert_refused("structure", "the release of web does not have index.js")
    shop.guarded({"structure": {"needs": ["server.py"]}})
    shop.assert_passes("structure", "web: the release has server.py")


def _known(*commits: str) -> Known:
    component = Component.model_validate({"path": "/srv/app", "layout": "git"})
    plan = Plan.model_construct(components={"app": component})
    hosts = [
        HostView(f"web{n}", {"app": component}, {"components": {"app": {"git": {"commit": c}}}})
        for n, c in enumerate(commits)
    ]
    return Known(plan=plan, version="v1", hosts=hosts, world=None)  # type: ignore[arg-type]


def test_hosts_have_to_mean_the_same() -> None:
    """One commit everywhere passes; two are named with their hosts."""
    (same,) = revision.agreement(_known("a" * 40, "a" * 40))
    assert same.passed
    (other,) = revision.agreement(_known("a" * 40, "b" * 40, "a" * 40))
    assert not other.passed
    words = "aaaaaaaaaaaa on web0, web2; bbbbbbbbbbbb on web1 ("
    assert f"app: its revision is not the same commit everywhere: {words}" in other.message
