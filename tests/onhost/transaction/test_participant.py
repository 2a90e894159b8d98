"""One transaction on a host: what each verb does, what it leaves behind, and what it refuses."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Iterator, List

import pytest
from hypothesis import given, settings

from deployguard.onhost import durable
from deployguard.onhost.places import NotManageable
from deployguard.onhost.request import RequestError
from deployguard.onhost.serve import Server
from deployguard.onhost.state import machine
from deployguard.onhost.transaction import assembly
from deployguard.onhost.transaction.operations import OperationFailed
from deployguard.onhost.trees import blobs
from tests.onhost.bench import COMPONENT, MEMORY, Bench, checks, claim, snapshot
from tests.onhost.sample_trees import TREES, Directory, File, write_tree

LAYOUTS = pytest.mark.parametrize("layout", ["releases", "in_place"])


@LAYOUTS
def test_a_first_deploy_and_the_next(tmp_path: Path, layout: str) -> None:
    """Each step leads to its state; what is live, served and on record is the new version."""
    bench = Bench(str(tmp_path), layout)
    deploy = bench.deploy("v1", {"bin/run": "#!"})
    seen: List[str] = []
    for step in ("begin", "look", "stage", "arm", "switch", "check", "prepare", "commit"):
        deploy.to(step)
        seen.append(deploy.participant.state)
    assert seen == [
        "begun",
        "begun",
        "staged",
        "armed",
        "switched",
        "switched",
        "prepared",
        "committed",
    ]
    assert deploy.component["live"] == {"state": "absent", "version": None}
    deploy.close()
    assert bench.served == bench.live_version() == "v1"
    assert bench.record()["previous"] == [] and bench.locks() == []
    second = bench.release("v2")
    assert second.component["live"]["state"] == "managed"
    assert second.component["live"]["version"] == "v1"
    assert bench.served == bench.live_version() == "v2"
    assert [older["version"] for older in bench.record()["previous"]] == ["v1"]


@LAYOUTS
@pytest.mark.parametrize("step", ["begin", "look", "stage", "arm", "switch", "check", "prepare"])
def test_a_first_deploy_leaves_nothing(tmp_path: Path, layout: str, step: str) -> None:
    """Undone from any state, not one directory is left of it."""
    bench = Bench(str(tmp_path), layout, shared=["media/", "a/b/"] if layout == "releases" else [])
    bench.manage("app.service", "unit")
    bench.manage("new.d/app.conf", "in a directory that is not there")
    before = bench.world()
    deploy = bench.deploy("v1").to(step)
    result = deploy.restore()
    assert result["verified"] and result["healthy"]
    assert bench.world() == before and bench.locks() == []
    assert bench.served is None
    deploy.close()


def test_the_manifest_decides_and_not_the_disk(tmp_path: Path) -> None:
    """Only what the host lacks travels; the rest is copied from what is live."""
    bench = Bench(str(tmp_path), "in_place")
    bench.release("v1", {"a": "A", "b": "B"})
    deploy = bench.deploy("v2", {"a": "A", "b": "changed", "c": "A"}).to("look")
    assert len(deploy.component["missing"]) == 2  # VERSION and b
    assert deploy.component["missing_bytes"] == len("v2") + len("changed")
    assert [path for path, _ in deploy.component["added"]] == ["c"]
    assert [path for path, _ in deploy.component["changed"]] == ["VERSION", "b"]
    deploy.to("commit").close()
    assert Path(bench.live, "c").read_text() == "A"


@pytest.mark.parametrize("sent", [False, True])
def test_a_file_that_changes_while_it_is_copied(tmp_path: Path, sent: bool) -> None:
    """The look said it was there, and then it was another one: it has to be sent, or dropped."""
    bench = Bench(str(tmp_path), "releases")
    bench.release("v1", {"data": "old content"})
    before = bench.world()
    deploy = bench.deploy("v2", {"data": "old content"}).to("look")
    stamp = os.stat(bench.live + "/data").st_mtime_ns
    Path(bench.live, "data").write_text("new content")
    with pytest.raises(RequestError) as caught:
        deploy.to("stage")
    assert caught.value.kind == "mismatch"
    digest = hashlib.sha256(b"old content").hexdigest()
    assert caught.value.detail == {"component": "app", "missing": [digest]}
    if sent:
        stream = blobs.encode([(digest, 11, [b"old content"])])
        deploy.participant.blobs({"component": "app"}, stream)
        assert deploy.participant.stage({"components": ["app"]})["state"] == "staged"
    Path(bench.live, "data").write_text("old content")
    os.utime(bench.live + "/data", ns=(stamp, stamp))
    deploy.participant.abort()
    assert bench.world() == before
    deploy.close()


@LAYOUTS
def test_what_was_built_is_built_again(tmp_path: Path, layout: str) -> None:
    """When contents of another component have to be sent, this one is staged a second time."""
    bench = Bench(str(tmp_path), layout)
    bench.release("v1")
    deploy = bench.deploy("v2", {"lib/a": "a"}).to("look")
    deploy.send()
    view = deploy.participant._trees.views["app"]
    os.makedirs(os.path.dirname(view.placement.tree), exist_ok=True)
    blobs_of = os.path.join(deploy.participant.folder, "blobs")
    assert assembly.build_tree(deploy.participant.folder, view, blobs_of) == {}
    deploy.participant.stage({"components": ["app"]})
    deploy._done = 3
    deploy.to("commit").close()
    assert bench.served == "v2" and Path(bench.live, "lib/a").read_text() == "a"


@LAYOUTS
def test_a_file_system_without_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    """A switch that would not be atomic is refused before anything is stopped."""
    bench = Bench(str(tmp_path), layout)
    bench.release("v1")
    before = bench.world()
    monkeypatch.setattr(durable, "exchange_supported", lambda directory: False)
    deploy = bench.deploy("v2").to("look")
    with pytest.raises(NotManageable):
        deploy.to("stage")
    deploy.participant.abort()
    deploy.close()
    assert bench.world() == before and bench.served == "v1"


@LAYOUTS
def test_a_failed_check_is_restored(tmp_path: Path, layout: str) -> None:
    """The old version is back and runs, the failed tree is there until the end and then gone."""
    bench = Bench(str(tmp_path), layout)
    bench.release("v1", {"lib/old": "x"})
    before = bench.world()
    deploy = bench.deploy("v2").to("switch")
    bench.served = "sick"
    assert not deploy.participant.check({"checks": checks(deadline=0.05)})["healthy"]
    result = deploy.participant.restore()
    assert result["state"] == "restored" and result["failures"] == result["differences"] == []
    assert set(result["seconds"]) == {"undo", "verify", "check", "total"}
    failed = deploy.component["placement"]["tree"]
    assert Path(failed, "VERSION").read_text() == "v2"
    assert bench.served == "v1"
    deploy.participant.finish()
    assert not os.path.exists(failed) and bench.world() == before and bench.locks() == []
    assert deploy.participant.restore()["state"] == "restored"
    deploy.close()


def test_kept_paths_are_the_hosts_own(tmp_path: Path) -> None:
    """What the trial wrote into them is there after the restore; all else is as it was."""
    keep = ["uploads/", ".env", "var/data/", "**/*.db"]
    bench = Bench(str(tmp_path), "in_place", keep=keep)
    bench.release("v1", {"uploads/a": "a", ".env": "S=1", "lib/code": "v1"})
    # Neither a match of the pattern nor its directory is there before the trial.
    before = snapshot(bench.path, dated=bench.path)
    defaults = {".env": "S=default", "uploads/seed": "seed", "lib/code": "v2", "lib/new/x": ""}
    deploy = bench.deploy("v2", defaults).to("switch")
    live = Path(bench.live)
    assert (live / ".env").read_text() == "S=1"
    assert sorted(path.name for path in (live / "uploads").iterdir()) == ["a"]
    (live / "uploads" / "b").write_text("written in the trial")
    (live / "lib" / "trial.db").write_text("also")
    (live / "lib" / "new" / "deep.db").write_text("and this")
    (live / "var" / "data").mkdir(parents=True)
    (live / "var" / "data" / "c").write_text("and here")
    result = deploy.restore()
    assert result["state"] == "restored", result["differences"]
    assert (live / "uploads" / "b").read_text() == "written in the trial"
    assert (live / "lib" / "trial.db").read_text() == "also"
    assert (live / "lib" / "new" / "deep.db").read_text() == "and this"
    assert (live / "var" / "data" / "c").read_text() == "and here"
    after = snapshot(bench.path, dated=bench.path)
    changed = {path for path in set(before) | set(after) if before.get(path) != after.get(path)}
    directories = {"lib", "lib/new", "uploads", "var", "var/data"}
    files = {"uploads/b", "lib/trial.db", "lib/new/deep.db", "var/data/c"}
    assert changed == directories | files
    deploy.close()


def test_a_commit_carries_the_kept_paths_on(tmp_path: Path) -> None:
    """They are in the new tree, with a way to them, and are no drift at the next deploy."""
    bench = Bench(str(tmp_path), "in_place", keep=["data/uploads/", "*.log"])
    bench.release("v1", {"data/uploads/a": "a", "data/code": "x"})
    for version in ("v2", "v3"):
        deploy = bench.release(version, {"app.log": "default"})
        assert not any(deploy.component["drift"].values())
        assert Path(bench.live, "data/uploads/a").read_text() == "a"
        assert not os.path.exists(bench.live + "/data/code")
        Path(bench.live, "app.log").write_text("a line\n")
    assert Path(bench.live, "app.log").read_text() == "a line\n"
    for older in bench.record()["previous"]:
        assert not os.path.exists(older["tree"] + "/data/uploads")


def test_what_came_to_a_kept_path_after_the_look_is_not_lost(tmp_path: Path) -> None:
    """A kept file that appears late wins over the release's default, also when nothing is moved."""
    bench = Bench(str(tmp_path), "in_place", keep=["settings"])
    bench.release("v1")
    deploy = bench.deploy("v2", {"settings": "default"}).to("arm")
    Path(bench.live, "settings").write_text("by hand, just now")
    procedure = deploy.procedure()
    index = [step["id"] for step in procedure].index("app:keep")
    journal = deploy.participant._need()
    executor = deploy.participant._executor(journal)
    # As if the power went just after the intent of the carry was written.
    journal.append(
        "intent", operation=index, id="app:keep", facts=executor._facts(procedure[index])
    )
    deploy.die()
    heir = deploy.taken_over()
    heir.restore()
    heir.close()
    assert Path(bench.live, "settings").read_text() == "by hand, just now"


def test_shared_paths_outlive_every_release(tmp_path: Path) -> None:
    """They are made once and linked from each release; what is in them stays through a restore."""
    bench = Bench(str(tmp_path), "releases", shared=["media/", "deep/er/"])
    link = {"media": os.path.join("..", "..", "shared", "media")}
    _linked(bench, "v1", link)
    bench.release("v1")
    media = Path(bench.path, "shared", "media")
    Path(bench.live, "media", "picture").write_text("from v1")
    assert (media / "picture").read_text() == "from v1"
    assert Path(bench.path, "shared", "deep", "er").is_dir()
    _linked(bench, "v2", link)
    deploy = bench.deploy("v2").to("switch")
    Path(bench.live, "media", "trial").write_text("from the trial")
    assert deploy.restore()["state"] == "restored"
    assert (media / "picture").exists() and (media / "trial").exists()
    deploy.close()


def _linked(bench: Bench, version: str, links: Any) -> None:
    source = Path(bench.root, "build", version)
    source.mkdir(parents=True)
    (source / "VERSION").write_text(version)
    for name, target in links.items():
        (source / name).symlink_to(target)


@LAYOUTS
def test_managed_files_come_back_exactly(tmp_path: Path, layout: str) -> None:
    """Added, changed and unchanged ones: content, mode, owner, time, and being absent."""
    bench = Bench(str(tmp_path), layout)
    changed = bench.manage("app.service", "v1", 0o640)
    same = bench.manage("app.env", "KEY=1", 0o600)
    bench.release("v1")
    os.utime(changed, ns=(10**18, 10**18 + 7))
    if os.geteuid() == 0:
        os.chown(changed, 12, 34)
    before = bench.world()
    bench.manage("app.service", "v2", 0o644)
    added = bench.manage("conf.d/app.conf", "new", 0o755)
    deploy = bench.deploy("v2").to("switch")
    assert {os.path.basename(f["path"]): f["change"] for f in deploy.component["files"]} == {
        "app.service": "changed",
        "app.env": "same",
        "app.conf": "added",
    }
    assert Path(changed).read_text() == "v2" and Path(same).read_text() == "KEY=1"
    assert Path(added).read_text() == "new" and os.stat(added).st_mode & 0o7777 == 0o755
    assert deploy.restore()["state"] == "restored"
    assert bench.world() == before
    deploy.close()


def test_no_content_of_a_managed_file_in_the_journal(tmp_path: Path) -> None:
    """An env file is a secret; the journal knows its hash only."""
    bench = Bench(str(tmp_path), "releases")
    bench.manage("app.env", "PASSWORD=hunter2secret", 0o600)
    deploy = bench.deploy("v1").to("prepare")
    folder = Path(bench.state.transaction(deploy.identifier))
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert b"hunter2" not in data and b"UEFTU1dPUkQ9aHVudGVyMnNlY3JldA" not in data
    deploy.restore()
    deploy.close()


@LAYOUTS
def test_a_step_that_fails_is_undone(tmp_path: Path, layout: str) -> None:
    """The switch names the step; the state stays armed, and the restore brings all back."""
    bench = Bench(str(tmp_path), layout)
    bench.release("v1")
    before = bench.world()
    deploy = bench.deploy("v2").to("stage")
    steps = deploy.procedure()
    steps.insert(
        len(steps) - 1,
        {
            "id": "task:no",
            "component": "task",
            "title": "run no",
            "do": [{"act": "no"}],
            "undo": [],
        },
    )
    deploy.procedure = lambda: steps  # type: ignore[method-assign]
    with pytest.raises(OperationFailed, match="run no"):
        deploy.to("switch")
    assert deploy.participant.state == "armed" and bench.live_version() == "v2"
    assert deploy.restore()["state"] == "restored"
    assert bench.world() == before and bench.served == "v1"
    deploy.close()


@LAYOUTS
def test_what_cannot_be_restored_is_stuck_and_everything_is_still_there(
    tmp_path: Path, layout: str
) -> None:
    """Somebody's change during the trial is seen by the proof; once it is mended, it goes on."""
    bench = Bench(str(tmp_path), layout)
    bench.release("v1", {"code": "right"})
    deploy = bench.deploy("v2").to("switch")
    old = deploy.component["placement"]["root"]
    if layout == "in_place":
        old = deploy.component["placement"]["beside"]
    stamp = os.stat(old + "/code").st_mtime_ns
    Path(old, "code").write_text("wrong")
    Path(old, "strange").write_text("")
    result = deploy.restore()
    assert result["state"] == "stuck" and not result["verified"] and result["healthy"]
    assert any("code differs in content" in line for line in result["differences"])
    assert any("strange was not there" in line for line in result["differences"])
    assert bench.locks() != [] and os.path.exists(deploy.component["placement"]["tree"])
    assert deploy.participant.finish()["state"] == "stuck"
    Path(bench.live, "code").write_text("right")
    os.utime(bench.live + "/code", ns=(stamp, stamp))
    Path(bench.live, "strange").unlink()
    assert deploy.restore()["state"] == "restored"
    assert bench.served == "v1" and bench.locks() == []
    deploy.close()


def test_a_service_that_does_not_come_back_is_stuck(tmp_path: Path) -> None:
    """The files are verified, and it says that the service is not healthy."""
    bench = Bench(str(tmp_path), "releases")
    bench.patience = 1.0
    bench.release("v1")
    deploy = bench.deploy("v2").to("switch")
    version = bench.live_version
    bench.live_version = lambda: None  # type: ignore[method-assign]
    result = deploy.restore()
    assert result["state"] == "stuck" and result["verified"] and not result["healthy"]
    assert [failure["title"] for failure in result["failures"]] == ["stop"]
    bench.live_version = version  # type: ignore[method-assign]
    assert deploy.restore()["state"] == "restored" and bench.served == "v1"
    deploy.close()


def test_a_swap_that_works_the_second_time_restarts_the_service(tmp_path: Path) -> None:
    """After a failed undo the service runs what it must not; the next attempt stops it first."""
    bench = Bench(str(tmp_path), "in_place")
    bench.release("v1")
    before = bench.world()
    deploy = bench.deploy("v2").to("check")
    place = deploy.component["placement"]
    os.rename(place["beside"], place["beside"] + ".away")
    assert deploy.restore()["state"] == "stuck"
    assert bench.served == "v2"
    os.rename(place["beside"] + ".away", place["beside"])
    assert deploy.restore()["state"] == "restored"
    assert bench.served == "v1" and bench.world() == before
    deploy.close()


def test_held_for_a_person(tmp_path: Path) -> None:
    """Everything stays as it is, the lock too, until somebody restores."""
    bench = Bench(str(tmp_path), "releases")
    bench.release("v1")
    deploy = bench.deploy("v2").to("switch")
    assert deploy.participant.hold() == {"state": "stuck"}
    assert bench.served == "v2" and bench.locks() != []
    assert deploy.restore()["state"] == "restored" and bench.served == "v1"
    deploy.close()


def test_a_baseline_that_was_not_healthy_is_no_demand(tmp_path: Path) -> None:
    """A service that was down before the deploy may be down after the restore."""
    bench = Bench(str(tmp_path), "releases")
    bench.release("v1")
    bench.served = None
    deploy = bench.deploy("v2").to("switch")
    assert deploy.participant.describe()["state"] == "switched"
    assert deploy.restore()["state"] == "restored"
    assert bench.served is None
    deploy.close()


ORDER = ("stage", "arm", "switch", "prepare", "commit", "restore", "abort", "hold")


@pytest.mark.parametrize("step", ["begin", "stage", "arm", "switch", "prepare", "commit"])
def test_what_is_not_possible_changes_nothing(tmp_path: Path, step: str) -> None:
    """Every verb that the state does not allow is refused with kind ``state``."""
    bench = Bench(str(tmp_path), "releases")
    bench.release("v1")
    deploy = bench.deploy("v2").to("look").to(step)
    mine = deploy.participant
    allowed = {
        "begin": {"stage", "restore", "abort"},
        "stage": {"arm", "restore", "abort"},
        "arm": {"switch", "restore", "hold"},
        "switch": {"prepare", "restore", "hold"},
        "prepare": {"commit", "restore", "hold"},
        "commit": {"commit", "restore"},
    }[step]
    verbs = {
        "stage": lambda: mine.stage({"components": [COMPONENT]}),
        "arm": deploy.arm,
        "switch": mine.switch,
        "prepare": mine.prepare,
        "commit": mine.commit,
        "abort": mine.abort,
        "hold": mine.hold,
    }
    before, records = bench.world(), len(deploy.journal().records)
    for verb, call in verbs.items():
        if verb in allowed:
            continue
        with pytest.raises((RequestError, machine.IllegalEvent)) as caught:
            call()
        assert Server._describe(caught.value)["kind"] == "state", verb
    assert bench.world() == before and len(deploy.journal().records) == records
    if step == "commit":
        assert mine.restore()["state"] == "committed" and bench.live_version() == "v2"
    else:
        mine.restore()
        mine.finish()
    deploy.close()


def test_nothing_works_before_the_beginning(tmp_path: Path) -> None:
    """Without a transaction there is nothing to stage, switch, restore or describe."""
    mine = Bench(str(tmp_path)).participant()
    assert mine.state == "idle" and not mine.fenced()
    for call in (mine.describe, mine.switch, mine.prepare, mine.commit, mine.restore, mine.abort):
        with pytest.raises(RequestError, match="no transaction has begun"):
            call()


def test_a_transaction_begins_once(tmp_path: Path) -> None:
    """Neither its id nor its participant can be used for another one."""
    bench = Bench(str(tmp_path))
    deploy = bench.deploy("v1").to("begin")
    for mine, identifier in ((bench.participant(), deploy.identifier), (deploy.participant, "b")):
        with pytest.raises(RequestError, match="already known"):
            mine.begin(claim(identifier, [bench.path]))
    assert deploy.participant.folder == bench.state.transaction(deploy.identifier)
    deploy.restore()
    deploy.close()


@LAYOUTS
def test_rollback_to_a_version_that_the_host_kept(tmp_path: Path, layout: str) -> None:
    """Tree and managed files are as they were then; nothing travels; kept paths stay."""
    keep = ["uploads/"] if layout == "in_place" else []
    bench = Bench(str(tmp_path), layout, keep=keep)
    unit = bench.manage("app.service", "unit of v1", 0o640)
    bench.release("v1", {"lib/one": "1", **({"uploads/a": "a"} if keep else {})})
    then = snapshot(os.path.realpath(bench.live))
    bench.manage("app.service", "unit of v2", 0o600)
    added = bench.manage("app.conf", "came with v2")
    bench.release("v2", {"lib/two": "2"})
    bench.release("v3")
    if keep:
        Path(bench.live, "uploads", "b").write_text("since")
    deploy = bench.rollback("v1").to("look")
    assert deploy.component["missing"] == []
    changes = {os.path.basename(f["path"]): f["change"] for f in deploy.component["files"]}
    assert changes == {"app.service": "changed", "app.conf": "removed"}
    before = bench.world()
    deploy.to("switch")
    assert Path(unit).read_text() == "unit of v1" and os.stat(unit).st_mode & 0o777 == 0o640
    assert not os.path.exists(added)
    assert deploy.restore()["state"] == "restored"
    assert bench.world() == before
    deploy.close()
    again = bench.rollback("v1").to("commit")
    again.close()
    assert bench.served == bench.live_version() == bench.record()["version"] == "v1"
    now = snapshot(os.path.realpath(bench.live))
    if keep:
        assert Path(bench.live, "uploads", "b").read_text() == "since"
        now = {path: row for path, row in now.items() if not path.startswith("uploads")}
        then = {path: row for path, row in then.items() if not path.startswith("uploads")}
    assert now == then
    assert os.listdir(os.path.join(bench.root, "etc")) == ["app.service"]
    # And forward again: what the rollback took away comes back.
    bench.rollback("v3").to("commit").close()
    assert Path(added).read_text() == "came with v2" and bench.live_version() == "v3"


def test_a_managed_file_too_large_to_keep_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollback does not touch a file whose old content nobody has."""
    monkeypatch.setattr("deployguard.onhost.transaction.settlement.KEPT_FILE_BYTES", 8)
    bench = Bench(str(tmp_path), "releases")
    bench.manage("small", "v1")
    large = bench.manage("large", "much too large, v1")
    bench.release("v1")
    bench.manage("small", "v2")
    bench.manage("large", "much too large, v2")
    bench.release("v2")
    deploy = bench.rollback("v1").to("commit")
    deploy.close()
    assert [os.path.basename(f["path"]) for f in deploy.component["files"]] == ["small"]
    assert Path(large).read_text() == "much too large, v2"
    assert Path(bench.root, "etc", "small").read_text() == "v1"
    assert sorted(os.listdir(bench.root + "/etc")) == ["large", "small"]


def test_a_home_is_the_hosts_to_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A managed file below ``~`` goes to the home of the user the program runs as."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    bench = Bench(str(tmp_path), "releases")
    bench.manage("unit", "in the home")
    deploy = bench.deploy("v1")
    described = deploy.target

    def target(manifest: Any) -> Any:
        found = described(manifest)
        found["files"][0]["path"] = "~/.config/systemd/user/app.service"
        return found

    deploy.target = target  # type: ignore[method-assign]
    deploy.to("switch")
    unit = tmp_path / "home" / ".config" / "systemd" / "user" / "app.service"
    assert unit.read_text() == "in the home"
    deploy.restore()
    assert not (tmp_path / "home").exists()
    deploy.close()


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can make a small disk")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@LAYOUTS
@pytest.mark.parametrize("files", [False, True])
def test_a_full_disk_while_staging(full_disk: Path, layout: str, files: bool) -> None:
    """It is told as ``space``, and after the abort the disk is as it was."""
    bench = Bench(str(full_disk), layout)
    bench.release("v1")
    if files:
        bench.manage("app.conf", "x" * 3_000_000)
    source = full_disk.parent / "source"
    source.mkdir()
    size = 100 if files else 3_000_000
    (source / "large").write_bytes(os.urandom(size))
    (source / "VERSION").write_text("v2")
    before, free = bench.world(), os.statvfs(str(full_disk)).f_bavail
    deploy = bench.deploy("v2")
    deploy._source = str(source)
    deploy.to("look")
    assert deploy.component["space"]["free_bytes"] < deploy.component["space"]["needed_bytes"]
    with pytest.raises(OSError) as caught:
        deploy.to("stage")
    assert Server._describe(caught.value)["kind"] == "space"
    assert deploy.participant.state == "begun"
    assert deploy.participant.abort()["state"] == "aborted"
    deploy.close()
    assert bench.world() == before and bench.locks() == []
    # The journal of the failed attempt is all that is more.
    assert free - os.statvfs(str(full_disk)).f_bavail < 16


@LAYOUTS
def test_a_restore_on_a_full_disk(full_disk: Path, layout: str) -> None:
    """The room that was set aside is enough for the journal of the rescue."""
    bench = Bench(str(full_disk), layout)
    bench.release("v1")
    before = bench.world()
    deploy = bench.deploy("v2").to("switch")
    filler = os.open(str(full_disk / "state" / "filler"), os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError, match="No space"):
        durable.write_all(filler, b"\0" * 3_000_000)
    os.close(filler)
    assert deploy.restore()["state"] == "restored"
    assert bench.world() == before
    deploy.close()


def test_a_disk_that_is_full_from_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction whose first record cannot be written leaves no lock behind."""
    bench = Bench(str(tmp_path))

    def full(descriptor: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "append", full)
        with pytest.raises(OSError, match="No space"):
            bench.deploy("v1").to("begin")
    assert bench.locks() == [] and bench.state.transactions() == []
    bench.release("v1")


def test_a_vote_that_was_not_written_was_not_cast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk is full at the vote, the restore that follows does not write it after all."""
    bench = Bench(str(tmp_path))
    deploy = bench.deploy("v1").to("check")

    def full(descriptor: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "append", full)
        with pytest.raises(OSError, match="No space"):
            deploy.to("prepare")
    assert deploy.participant.state == "switched"
    assert deploy.restore()["state"] == "restored"
    deploy.close()
    assert deploy.journal().last("prepared") is None


@given(TREES, TREES)
@settings(max_examples=25)
def test_any_tree_comes_back(old: Directory, new: Directory) -> None:
    """Whatever is live and whatever is deployed: after the restore the live tree is identical."""
    for layout in ("releases", "in_place"):
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            bench = Bench(folder, layout)
            source = os.path.join(folder, "build")
            os.mkdir(source)
            for version, tree in (("v1", old), ("v2", new)):
                named = dict(tree.children)
                named[b"VERSION"] = File(version.encode(), 0o644, 0)
                write_tree(os.fsencode(source + "/" + version), tree._replace(children=named))
            bench.release("v1")
            before = bench.world()
            deploy = bench.deploy("v2").to("switch")
            assert bench.live_version() == "v2"
            result = deploy.restore()
            assert result["state"] == "restored", result["differences"]
            assert bench.world() == before
            deploy.close()
