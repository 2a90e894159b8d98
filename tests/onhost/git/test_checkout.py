"""A git checkout is deployed to as a tree, and comes back as the repository that it was."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, Set

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.onhost.bench import MEMORY
from tests.onhost.cuts import every_point, killed_at
from tests.onhost.gitbench import BRANCH, GitBench, GitDeploy, git
from tests.onhost.sample_trees import TREES, Directory, write_tree
from tests.onhost.transaction.test_takeover import _finish


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder in memory: syncs cost nothing there."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)


SOURCES = pytest.mark.parametrize("source", [{}, {"from": "bundle"}], ids=["remote", "bundle"])
FILES = {"lib/a": "a", "lib/gone": "only in v1", ".gitignore": "*.log\nnode_modules/\n"}
NEWER = {"lib/a": "a of v2", "lib/new": "n", ".gitignore": "*.log\nnode_modules/\n"}


def live(root: Path, **options: Any) -> GitBench:
    """v1 is checked out on its branch, by hand, with a stash; v2 is at the remote."""
    bench = GitBench(str(root), **options)
    bench.commit("v1", FILES)
    bench.clone("v1")
    Path(bench.path, "lib/a").write_text("tried and put away")
    git(bench.path, "stash")
    bench.commit("v2", NEWER)
    # Times that nothing restores by chance.
    os.utime(bench.path + "/lib/a", ns=(10**18, 10**18))
    os.utime(bench.path + "/same.txt", ns=(10**18 + 1, 10**18 + 1))
    git(bench.path, "status")
    bench.served = "v1"
    return bench


# --- forward, and back --------------------------------------------------------------------------


@SOURCES
def test_a_revision_is_deployed(tmp_path: Path, source: Dict[str, Any]) -> None:
    """Files, HEAD and index are the commit's; branches, stash and remotes are what they were."""
    bench = live(tmp_path, source=source)
    said = bench.says()
    before = git(bench.path, "rev-parse", "HEAD")
    bench.release("v2").close()
    assert bench.git("rev-parse", "HEAD") == git(bench.upstream, "rev-parse", "v2")
    assert bench.git("status", "--porcelain", "--branch") == "## HEAD (no branch)"
    assert Path(bench.path, "lib/a").read_text() == "a of v2"
    assert not os.path.exists(bench.path + "/lib/gone")
    now = bench.says()
    assert now["stash"] == said["stash"] != ""
    if source:
        assert now["branches"] == said["branches"]
    else:
        assert bench.git("rev-parse", "origin/main") == bench.git("rev-parse", "v2^{commit}")
        assert bench.git("rev-parse", "main") == before
    assert bench.git("describe", "--tags") == "v2"
    assert bench.git("fsck", "--full") == ""
    assert bench.served == bench.live_version() == "v2"
    assert bench.git("rev-parse", "deployguard/t0001") == before


@SOURCES
def test_a_branch_is_moved(tmp_path: Path, source: Dict[str, Any]) -> None:
    """With `branch` the checkout is on it afterwards, at the revision, as after a pull."""
    bench = live(tmp_path, source=dict(source, branch=BRANCH))
    deploy = bench.deploy(BRANCH).to("commit")
    deploy.close()
    assert bench.git("symbolic-ref", "HEAD") == "refs/heads/" + BRANCH
    assert bench.git("rev-parse", "HEAD") == git(bench.upstream, "rev-parse", "v2")
    behind = "" if "from" not in source else " [ahead 1]"
    assert bench.git("status", "-sb") == "## main...origin/main" + behind
    assert bench.record()["git"] == {
        "commit": git(bench.upstream, "rev-parse", "v2"),
        "branch": BRANCH,
    }


@SOURCES
@pytest.mark.parametrize("step", ["look", "stage", "arm", "switch", "prepare"])
def test_it_comes_back_as_it_was(tmp_path: Path, source: Dict[str, Any], step: str) -> None:
    """Every byte, mode, owner and time, of the repository too; git says what it said before."""
    bench = live(tmp_path, source=dict(source, branch=BRANCH))
    before, said = bench.world(), bench.says()
    deploy = bench.deploy("v2").to(step)
    result = deploy.restore()
    deploy.close()
    assert result["verified"] and result["healthy"]
    assert bench.world() == before
    assert bench.says() == said
    assert bench.served == "v1"


def test_the_emergency_tag_stays(tmp_path: Path) -> None:
    """A deploy that failed has left a name for what ran, in the repository that is live."""
    bench = live(tmp_path)
    head = bench.git("rev-parse", "HEAD")
    deploy = bench.deploy("v2").to("switch")
    deploy.restore()
    deploy.close()
    assert bench.git("rev-parse", "deployguard/%s" % deploy.identifier) == head
    # A commit keeps those of before, and the newest twenty.
    for number in range(25):
        git(bench.path, "tag", "deployguard/s%04d" % number, head)
    bench.release("v2").close()
    tags = bench.git("tag", "--list", "deployguard/*").split()
    assert len(tags) == 20 and deploy.identifier in tags[-2]


@SOURCES
def test_a_first_deploy(tmp_path: Path, source: Dict[str, Any]) -> None:
    """Where there is nothing a clone is made, and nothing stays of one that failed."""
    bench = GitBench(str(tmp_path), source=dict(source, branch=BRANCH))
    bench.commit("v1", FILES)
    before = bench.world()
    failed = bench.deploy("v1").to("switch")
    assert bench.git("status", "--porcelain") == ""
    assert failed.restore()["verified"]
    failed.close()
    assert bench.world() == before
    bench.release("v1").close()
    assert bench.git("status", "--porcelain", "--branch").startswith("## " + BRANCH)
    assert bench.git("fsck", "--full") == ""
    if "from" not in source:
        assert bench.git("remote", "get-url", "origin") == "file://" + bench.upstream
    bench.commit("v2", NEWER)
    bench.release("v2").close()
    assert bench.live_version() == "v2"


def test_the_same_again_is_no_change(tmp_path: Path) -> None:
    """What is live is found to be so; another branch on the same commit is a change."""
    bench = live(tmp_path)
    bench.release("v2").close()
    again = bench.deploy("v2").to("look")
    found = again.component
    assert found["added"] == found["changed"] == found["removed"] == []
    assert not found["git"]["moves"]
    again.participant.abort()
    again.close()
    moved = GitDeploy(bench, "v2", bench.upstream, {})
    bench.source["branch"] = "release"
    moved.to("look")
    assert moved.component["git"]["moves"] and moved.component["changed"] == []
    moved.participant.abort()
    moved.close()


def test_what_does_not_change_keeps_its_attributes(tmp_path: Path) -> None:
    """As after a checkout by git: an unchanged file keeps mode and time, a changed one its mode."""
    bench = live(tmp_path)
    for name in ("same.txt", "lib/a"):
        os.chmod(os.path.join(bench.path, name), 0o640)
    os.chmod(bench.path + "/lib", 0o2770)
    git(bench.path, "status")
    bench.release("v2").close()
    same, changed = (os.stat(os.path.join(bench.path, n)) for n in ("same.txt", "lib/a"))
    assert (same.st_mode & 0o7777, same.st_mtime_ns) == (0o640, 10**18 + 1)
    assert changed.st_mode & 0o7777 == 0o640 and changed.st_mtime_ns != 10**18
    assert os.stat(bench.path + "/lib").st_mode & 0o7777 == 0o2770
    assert os.stat(bench.path + "/lib/new").st_mode & 0o7777 == 0o644


def test_it_is_repacked_now_and_then(tmp_path: Path) -> None:
    """Every deploy brings a pack; a repository in which nobody else works would drown in them."""
    bench = live(tmp_path)
    git(bench.path, "config", "gc.autoPackLimit", "2")
    for version in ("v2", "v3", "v4"):
        bench.release(version, {"lib/a": version}).close()
    packs = [name for name in os.listdir(bench.path + "/.git/objects/pack") if ".pack" in name]
    assert len(packs) <= 3
    assert bench.git("fsck", "--full") == "" and bench.git("stash", "list") != ""


def test_a_rollback_brings_back_what_was_kept(tmp_path: Path) -> None:
    """Commit, branch, index and files as they were, changes by hand too; the stash is today's."""
    bench = live(tmp_path, source={"branch": BRANCH})
    Path(bench.path, "lib/a").write_text("changed by hand")
    git(bench.path, "add", "lib/a")
    Path(bench.path, "notes.txt").write_text("not in git")
    deploy = bench.deploy("v2").to("look")
    deploy.participant.stage({"components": ["app"], "save": True})
    deploy._done = 3
    deploy.to("commit").close()
    Path(bench.path, "lib/new").write_text("and one more")
    git(bench.path, "stash")
    back = bench.rollback("adopted").to("commit")
    back.close()
    assert bench.git("status", "--porcelain", "--branch") == (
        "## main...origin/main [behind 1]\nM  lib/a\n?? notes.txt"
    )
    assert Path(bench.path, "lib/a").read_text() == "changed by hand"
    assert len(bench.git("stash", "list").splitlines()) == 2
    assert bench.git("fsck", "--full") == ""


def test_kept_paths_go_along_and_come_back(tmp_path: Path) -> None:
    """What is in no commit and in `keep` is in the new tree, and what it wrote is in the old."""
    bench = live(tmp_path, keep=["node_modules", "var/*.db", "lib/a"])
    for name in ("node_modules/x/index.js", "var/rows.db", "web.log"):
        os.makedirs(os.path.dirname(os.path.join(bench.path, name)), exist_ok=True)
        Path(bench.path, name).write_text(name)
    Path(bench.path, "lib/a").write_text("settings of this host")
    bench.options["ignore"] = ["*.log"]
    said = bench.says()
    deploy = bench.deploy("v2").to("switch")
    assert Path(bench.path, "node_modules/x/index.js").read_text() == "node_modules/x/index.js"
    assert Path(bench.path, "lib/a").read_text() == "settings of this host"
    assert not os.path.exists(bench.path + "/web.log")
    Path(bench.path, "var/rows.db").write_text("written meanwhile")
    result = deploy.restore()
    deploy.close()
    assert result["verified"], result
    assert Path(bench.path, "var/rows.db").read_text() == "written meanwhile"
    assert Path(bench.path, "web.log").exists()
    assert bench.says() == said


def test_a_status_in_between_is_no_other_repository(tmp_path: Path) -> None:
    """Whoever looks at the checkout during the restore writes its index anew: that is no harm."""
    bench = live(tmp_path)
    deploy = bench.deploy("v2").to("switch")
    old = deploy.component["placement"]["beside"]
    Path(old, "same.txt").touch()
    index = Path(old, ".git/index").read_bytes()
    git(old, "status")
    assert Path(old, ".git/index").read_bytes() != index
    os.utime(old + "/same.txt", ns=(10**18 + 1, 10**18 + 1))
    assert deploy.restore()["verified"]
    deploy.close()


def test_an_index_of_another_meaning_is_noticed(tmp_path: Path) -> None:
    """What somebody staged meanwhile is not what was there."""
    bench = live(tmp_path)
    deploy = bench.deploy("v2").to("switch")
    old = deploy.component["placement"]["beside"]
    git(old, "rm", "-q", "--cached", "lib/a")
    result = deploy.restore()
    assert result["state"] == "stuck"
    assert result["differences"] == [bench.path + "/.git/index differs in content, mtime"]
    deploy.close()


_TREES = st.tuples(TREES, TREES, TREES)


def _committed(bench: GitBench, version: str, tree: Directory) -> None:
    bench.commit(version)
    git(bench.upstream, "tag", "-d", version)
    write_tree(os.fsencode(bench.upstream + "/tree"), tree)
    git(bench.upstream, "add", "-A", "-f")
    git(bench.upstream, "commit", "-q", "--amend", "-m", version)
    git(bench.upstream, "tag", version)


@settings(max_examples=20)
@given(trees=_TREES, data=st.data())
def test_any_checkout_comes_back(trees: Any, data: st.DataObject) -> None:
    """Any commit over any other, with anything lying about: built as git would, back as it was."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        bench = GitBench(folder, source=data.draw(st.sampled_from([{}, {"from": "bundle"}])))
        _committed(bench, "v1", trees[0])
        bench.clone("v1")
        _committed(bench, "v2", trees[1])
        write_tree(os.fsencode(bench.path + "/lying about"), trees[2])
        if data.draw(st.booleans()):
            git(bench.path, "add", "-A", "-f")
        before, said = bench.world(), bench.says()
        deploy = bench.deploy("v2").to("look")
        deploy.participant.stage({"components": ["app"], "save": True})
        deploy._done = 3
        deploy.to("switch")
        assert bench.git("status", "--porcelain", "--ignored") == ""
        assert bench.git("diff", "v2", "--stat") == ""
        assert deploy.restore()["verified"]
        deploy.close()
        assert bench.world() == before
        assert bench.says() == said


# --- killed -------------------------------------------------------------------------------------


def _struck(tmp_path: Path, every: int) -> Set[str]:
    """Deploys that are killed at every so manieth step that changes something, up to the vote.

    The states in which they were found; each time the host is wholly old again, and clean.
    """
    bench = live(tmp_path, source={"from": "bundle", "branch": BRANCH}, keep=["node_modules"])
    os.mkdir(bench.path + "/node_modules")
    before, said = bench.world(), bench.says()
    found = set()

    def attempt(number: int) -> bool:
        deploy = bench.deploy("v2")
        deploy.participant.close()

        def work() -> None:
            deploy.participant = bench.participant()
            deploy.to("prepare")

        killed = killed_at(bench, number * every, work)
        found.add(_finish(deploy, False, number + 1))
        assert bench.world() == before, number * every
        assert bench.says() == said, number * every
        bench.served = "v1"
        return killed

    for _ in every_point(attempt):
        pass
    return found


def test_killed_at_some_steps(tmp_path: Path) -> None:
    """Whatever is on its way, the host is wholly old afterwards, its repository too."""
    assert _struck(tmp_path, every=17) >= {"begun", "armed"}


@pytest.mark.slow
def test_killed_at_every_third_step(tmp_path: Path) -> None:
    """The same at a third of all steps, some of every state."""
    assert _struck(tmp_path, every=3) >= {"idle", "begun", "staged", "armed", "prepared"}


@pytest.mark.slow
def test_killed_after_the_decision(tmp_path: Path) -> None:
    """A commit that was cut short is a commit: the new checkout, with nothing beside it."""
    wanted = ""

    def attempt(number: int) -> bool:
        nonlocal wanted
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            bench = live(Path(folder), source={"branch": BRANCH})
            deploy = bench.deploy("v2").to("prepare")
            killed = killed_at(bench, number, deploy.participant.commit)
            deploy.die()
            heir = deploy.taken_over()
            heir.participant.commit()
            heir.close()
            said = bench.git("status", "--porcelain", "--branch") + bench.git("ls-files", "-s")
            wanted = wanted or said
            assert said == wanted and bench.live_version() == "v2", number
            assert os.listdir(bench.root + "/srv/.app.deployguard") == [deploy.identifier], number
            assert bench.locks() == []
            return killed

    for _ in every_point(attempt):
        pass
