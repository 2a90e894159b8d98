"""The look: what is live, what somebody changed, what would change, and what cannot be managed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, Dict

import pytest

from deployguard.onhost.places import NotManageable
from deployguard.onhost.queries.services import observe
from deployguard.onhost.system import System
from deployguard.onhost.trees.inspection import file_entry
from deployguard.onhost.trees.owners import owner_of
from tests.onhost.bench import Bench, snapshot
from tests.onhost.sample_trees import make

LAYOUTS = pytest.mark.parametrize("layout", ["releases", "in_place"])


def _look(bench: Bench, version: str = "v2", **options: Any) -> Dict[str, Any]:
    """Look only, as ``plan`` does; nothing may have changed."""
    before = bench.world()
    deploy = bench.deploy(version, **options)
    deploy.look()
    assert bench.world() == before and bench.locks() == []
    return deploy.component


def test_adoption_lists_what_is_only_on_the_host(tmp_path: Path) -> None:
    """A foreign tree may hold what the artifact has not: listed, unless it is kept or ignored."""
    bench = Bench(str(tmp_path), "in_place", keep=[".env", "uploads/", "*.db"])
    make(
        bench.path,
        {
            "VERSION": "by hand",
            "same.txt": "the same",
            "patched.py": "x",
            "sub/mine": "y",
            ".env": "s",
            "uploads/a": "a",
            "x.db": "d",
            "lib/__pycache__/a.pyc": "c",
            "empty": None,
        },
    )
    found = _look(bench)
    assert found["live"]["state"] == "foreign" and found["live"]["version"] is None
    assert found["only_on_host"] == ["patched.py", "sub/mine"]
    assert not any(found["drift"].values())
    assert [path for path, _ in found["changed"]] == ["VERSION"]
    assert [path for path, _ in found["removed"]] == [
        "empty",
        "lib",
        "patched.py",
        "sub",
        "sub/mine",
    ]


def test_an_adopted_tree_comes_back(tmp_path: Path) -> None:
    """A first deploy over a tree nobody deployed is undone as any other; committed, it is kept."""
    bench = Bench(str(tmp_path), "in_place", keep=["uploads/"])
    make(bench.path, {"VERSION": "by hand", "own": "x", "uploads/a": "a"})
    before = bench.world()
    deploy = bench.deploy("v1").to("switch")
    assert sorted(os.listdir(bench.path)) == ["VERSION", "same.txt", "uploads"]
    assert deploy.restore()["state"] == "restored" and bench.world() == before
    deploy.close()
    bench.release("v1")
    assert [older["version"] for older in bench.record()["previous"]] == ["adopted"]
    bench.rollback("adopted").to("commit").close()
    assert Path(bench.path, "own").read_text() == "x"


def test_adoption_of_a_link_somebody_else_turns(tmp_path: Path) -> None:
    """A ``current`` that leads anywhere, absolute or not, is taken over and given back."""
    bench = Bench(str(tmp_path), "releases")
    make(bench.path, {"releases/old/VERSION": "old"})
    os.symlink(os.path.join(bench.path, "releases", "old"), bench.live)
    before = bench.world()
    deploy = bench.deploy("v1").to("switch")
    assert deploy.component["live"]["state"] == "foreign"
    assert deploy.restore()["state"] == "restored" and bench.world() == before
    deploy.close()


@LAYOUTS
def test_drift_lists_each_change_by_hand(tmp_path: Path, layout: str) -> None:
    """Added, changed (content, mode, link) and removed files; times and ignored files are none."""
    bench = Bench(str(tmp_path), layout)
    bench.release("v1", {"a": "a", "b": "b", "c": "c", "d/e": "e", "run": "#!"})
    live = Path(bench.live)
    assert not any(_look(bench)["drift"].values())
    (live / "new").write_text("by hand")
    (live / "b").write_text("changed")
    (live / "run").chmod(0o755)
    (live / "c").unlink()
    (live / "a").unlink()
    (live / "a").symlink_to("b")
    os.utime(str(live / "d" / "e"), ns=(5, 5))
    (live / "d" / "__pycache__").mkdir()
    (live / "d" / "__pycache__" / "x.pyc").write_text("")
    drift = _look(bench)["drift"]
    assert drift == {"added": ["new"], "changed": ["a", "b", "run"], "removed": ["c"]}


def test_a_release_chosen_by_hand_is_foreign(tmp_path: Path) -> None:
    """Somebody turned ``current`` back: no drift against the wrong version, no false history."""
    bench = Bench(str(tmp_path), "releases")
    bench.release("v1")
    bench.release("v2")
    os.unlink(bench.live)
    os.symlink("releases/v1", bench.live)
    found = _look(bench, "v3")
    assert found["live"]["state"] == "foreign" and not any(found["drift"].values())
    bench.release("v3")
    record = bench.record()
    assert [older["version"] for older in record["previous"]] == ["v1", "v2"]
    trees = [os.path.basename(older["tree"]) for older in record["previous"]]
    assert trees == ["v1", "v2"]
    bench.release("v4")
    assert [older["version"] for older in bench.record()["previous"]] == ["v3", "v1"]


def test_the_stat_cache_is_not_believed_too_far(tmp_path: Path) -> None:
    """A change that keeps size and mtime is drift all the same: the ctime tells."""
    bench = Bench(str(tmp_path), "in_place")
    bench.release("v1", {"code": "good"})
    code = Path(bench.live, "code")
    stamp = code.stat().st_mtime_ns
    code.write_text("evil")
    os.utime(str(code), ns=(stamp, stamp))
    assert _look(bench)["drift"]["changed"] == ["code"]


def test_kept_and_ignored_paths_are_not_even_read(tmp_path: Path) -> None:
    """Uploads may be many and large, and not ours to read."""
    bench = Bench(str(tmp_path), "in_place", keep=["uploads/"])
    bench.release("v1", {"uploads/a": "a"})
    deploy = bench.deploy("v2").to("look")
    before = deploy.participant._trees.views["app"].before
    assert before is not None and before.get("VERSION") is not None
    assert before.get("uploads") is None and before.get("uploads/a") is None


@pytest.mark.parametrize(
    ("layout", "prepare", "words"),
    [
        ("in_place", "link", "is a symbolic link"),
        ("in_place", "file", "is not a directory"),
        ("releases", "plain", "is a plain directory, not a releases layout"),
        ("releases", "current", "is not a symbolic link"),
        ("releases", "dangling", "which is not there"),
    ],
)
def test_what_cannot_be_managed(tmp_path: Path, layout: str, prepare: str, words: str) -> None:
    """A person has to decide first; the message names the path, the hint what to do."""
    bench = Bench(str(tmp_path), layout)
    if prepare == "link":
        os.mkdir(bench.path + ".real")
        os.symlink(bench.path + ".real", bench.path)
    elif prepare == "file":
        Path(bench.path).write_text("")
    elif prepare == "plain":
        make(bench.path, {"index.php": ""})
    elif prepare == "current":
        make(bench.path, {"current/x": ""})
    else:
        os.mkdir(bench.path)
        os.symlink("releases/gone", bench.live)
    with pytest.raises(NotManageable, match=words) as caught:
        _look(bench)
    assert bench.path in str(caught.value) and caught.value.hint


def test_a_mount_point_cannot_be_renamed(tmp_path: Path) -> None:
    """Neither as the managed tree nor as a kept path; it is said before anything is touched."""
    bench = Bench(str(tmp_path), "in_place")
    os.mkdir(bench.path)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs"]
    if os.geteuid() != 0 or subprocess.run([*mount, bench.path], check=False).returncode:
        pytest.skip("only root can mount")
    try:
        with pytest.raises(NotManageable, match="is a mount point"):
            _look(bench)
    finally:
        subprocess.run(["umount", bench.path], check=True)
    make(bench.path, {"VERSION": "v0", "uploads/": None})
    uploads = bench.path + "/uploads"
    subprocess.run([*mount, uploads], check=True)
    try:
        with pytest.raises(NotManageable, match="uploads is a mount point"):
            _look(bench, keep=["uploads/"])
    finally:
        subprocess.run(["umount", uploads], check=True)


def test_a_kept_path_behind_a_link_is_refused(tmp_path: Path) -> None:
    """What is behind a link is not in the tree; carrying it would take it from somewhere else."""
    bench = Bench(str(tmp_path), "in_place", keep=["data/uploads/"])
    make(bench.path, {"VERSION": "v0"})
    make(str(tmp_path / "elsewhere"), {"uploads/a": "a"})
    os.symlink(str(tmp_path / "elsewhere"), bench.path + "/data")
    with pytest.raises(NotManageable, match="data is a symbolic link"):
        _look(bench)


def test_a_file_in_the_way_of_a_kept_path(tmp_path: Path) -> None:
    """The release has a file where the kept path needs a directory."""
    bench = Bench(str(tmp_path), "in_place", keep=["data/uploads/"])
    make(bench.path, {"VERSION": "v0", "data/uploads/a": "a"})
    bench.deploy("v2", {"data": "a file"})
    with pytest.raises(NotManageable, match="in the way"):
        _look(bench, "v2")


def test_a_shared_file_cannot_be_made_up(tmp_path: Path) -> None:
    """A shared directory is made; a shared file has to be there."""
    bench = Bench(str(tmp_path), "releases", shared=[".env"])
    with pytest.raises(NotManageable, match=r"shared/\.env is not there") as caught:
        _look(bench)
    assert "slash" in caught.value.hint
    make(bench.path, {"shared/.env": "S=1"})
    assert _look(bench)["live"]["state"] == "absent"


def test_a_managed_file_is_a_plain_file(tmp_path: Path) -> None:
    """A link where the unit file should be is somebody's arrangement."""
    bench = Bench(str(tmp_path), "releases")
    path = bench.manage("app.service", "unit")
    os.symlink("/dev/null", path)
    with pytest.raises(NotManageable, match="is not a plain file"):
        _look(bench)


def test_an_unknown_version_of_the_past(tmp_path: Path) -> None:
    """The message names the versions that are kept."""
    bench = Bench(str(tmp_path), "releases")
    for version in ("v1", "v2", "v3"):
        bench.release(version)
    with pytest.raises(NotManageable) as caught:
        bench.rollback("v0").look()
    assert caught.value.hint == "versions kept there: v2, v1"


def test_an_unknown_owner(tmp_path: Path) -> None:
    """A name that the host does not know is refused, in words."""
    target = {"owner": "nobody-of-that-name", "group": None}
    with pytest.raises(NotManageable, match="nobody-of-that-name"):
        owner_of(target, None)
    assert owner_of({"owner": None, "group": None}, str(tmp_path)) == (
        tmp_path.stat().st_uid,
        tmp_path.stat().st_gid,
    )
    assert owner_of({"owner": "artifact", "group": None}, None) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@LAYOUTS
def test_the_new_tree_belongs_to_the_owner_of_the_old(tmp_path: Path, layout: str) -> None:
    """And to root only where root had it; the next look sees no drift in that."""
    bench = Bench(str(tmp_path), layout)
    bench.release("v1", {"d/f": "x"})
    root = os.path.realpath(bench.live)
    for path in [root, *(os.path.join(root, name) for name in snapshot(root))]:
        os.lchown(path, 12, 34)
    bench.release("v2", {"d/g": "y"})
    owners = {tuple(row[2:4]) for row in snapshot(os.path.realpath(bench.live)).values()}
    assert owners == {(12, 34)}
    assert not any(_look(bench, "v3")["drift"].values())


def test_questions_to_a_service(tmp_path: Path) -> None:
    """Properties come as a table, a status as a number, a process by its pid file."""
    echo = ["printf", "A=1\nB=x=y\nnoise\n"]
    answers = observe(
        System(),
        [
            {"field": "unit", "kind": "properties", "argv": echo},
            {"field": "status", "kind": "status", "argv": ["false"]},
            {"field": "process", "kind": "process", "pid_file": str(tmp_path / "none.pid")},
        ],
    )
    assert answers == {
        "unit": {"A": "1", "B": "x=y"},
        "status": {"status": 1},
        "process": {"running": False},
    }


def test_everything_about_a_file(tmp_path: Path) -> None:
    """What a restore compares; an absent file has an entry too."""
    path = tmp_path / "file"
    assert file_entry(str(path)) == {"path": str(path), "exists": False, "digest": None}
    path.write_text("x")
    path.chmod(0o640)
    os.utime(str(path), ns=(7, 7))
    entry = file_entry(str(path))
    assert entry["exists"] and entry["mode"] == 0o640 and entry["mtime_ns"] == 7
