"""What stays after a commit and what goes: history is kept, and nothing is pruned early."""

from __future__ import annotations

import os
from pathlib import Path
from typing import List

import pytest

from deployguard.onhost.queries.report import status
from deployguard.onhost.request import RequestError
from deployguard.onhost.state import machine
from deployguard.onhost.transaction import settlement
from tests.onhost.bench import Bench, Deploy

LAYOUTS = pytest.mark.parametrize("layout", ["releases", "in_place"])


def _trees(bench: Bench) -> List[str]:
    """The trees that stand on the disk beside the live one, by what they say of themselves."""
    places = [bench.path + "/releases", os.path.dirname(bench.path) + "/.app.deployguard"]
    found = []
    for place in filter(os.path.isdir, places):
        for name in os.listdir(place):
            tree = os.path.join(place, name)
            if os.path.realpath(bench.live) != tree:
                found.append(Path(tree, "VERSION").read_text())
    return sorted(found)


@LAYOUTS
@pytest.mark.parametrize("retain", [2, 4])
def test_retention(tmp_path: Path, layout: str, retain: int) -> None:
    """As many trees as the plan says stay, with manifests, the newest ones; the rest is gone."""
    bench = Bench(str(tmp_path), layout, retain=retain)
    versions = ["v%d" % number for number in range(1, 7)]
    for number, version in enumerate(versions):
        bench.release(version)
        older = versions[max(number - retain + 1, 0) : number]
        record = bench.record()
        assert [entry["version"] for entry in record["previous"]] == older[::-1]
        assert _trees(bench) == older
        manifests = {entry["manifest"] for entry in [record, *record["previous"]]}
        folder = bench.state.live(bench.path)
        assert manifests == {
            os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".manifest")
        }


@LAYOUTS
def test_nothing_is_pruned_before_the_commit(tmp_path: Path, layout: str) -> None:
    """A failed deploy takes nothing from the history, however often it fails."""
    bench = Bench(str(tmp_path), layout, retain=2)
    for version in ("v1", "v2"):
        bench.release(version)
    record, trees = bench.record(), _trees(bench)
    for _ in range(3):
        deploy = bench.deploy("v3").to("prepare")
        assert deploy.restore()["state"] == "restored"
        deploy.close()
    assert bench.record() == record and _trees(bench) == trees == ["v1"]


@LAYOUTS
def test_the_same_version_again(tmp_path: Path, layout: str) -> None:
    """Deployed twice it stands twice, and a rollback finds the older one."""
    bench = Bench(str(tmp_path), layout)
    bench.release("v1")
    bench.release("v1")
    assert [older["version"] for older in bench.record()["previous"]] == ["v1"]
    assert _trees(bench) == ["v1"]
    bench.rollback("v1").to("commit").close()
    assert bench.live_version() == "v1"


@LAYOUTS
def test_commit_may_be_repeated(tmp_path: Path, layout: str) -> None:
    """The second time changes nothing; neither does a restore that comes too late."""
    bench = Bench(str(tmp_path), layout)
    bench.release("v1")
    deploy = bench.deploy("v2").to("commit")
    world, record = bench.world(), bench.record()
    assert deploy.participant.commit() == {"state": "committed"}
    assert deploy.participant.restore()["state"] == "committed"
    assert deploy.participant.finish() == {"state": "committed"}
    assert bench.world() == world and bench.record() == record
    deploy.close()


def _dead_after(deploy: Deploy, event: str, kind: str) -> None:
    """A process that died when it had written how the transaction ends, and nothing more."""
    journal = deploy.participant._need()
    journal.enter(event, kind)
    deploy.die()


@LAYOUTS
def test_the_next_one_settles_a_commit_that_was_cut_short(tmp_path: Path, layout: str) -> None:
    """Its version is on record, and what was live before it is the way back."""
    bench = Bench(str(tmp_path), layout)
    unit = bench.manage("app.service", "v1")
    bench.release("v1")
    bench.manage("app.service", "v2")
    _dead_after(bench.deploy("v2").to("prepare"), machine.COMMIT, "committed")
    assert [t["state"] for t in status(bench.state, bench.system)["unfinished"]] == ["committed"]
    deploy = bench.deploy("v3").to("look")
    assert deploy.component["live"]["version"] == "v2"
    assert deploy.component["live"]["state"] == "managed"
    deploy.to("commit").close()
    assert [older["version"] for older in bench.record()["previous"]] == ["v2", "v1"]
    assert status(bench.state, bench.system)["unfinished"] == []
    bench.rollback("v1").to("commit").close()
    assert Path(unit).read_text() == "v1"


@LAYOUTS
def test_the_next_one_settles_a_restore_that_was_cut_short(tmp_path: Path, layout: str) -> None:
    """The failed tree of a host that restored alone goes when the path is needed again."""
    bench = Bench(str(tmp_path), layout)
    bench.release("v1")
    before = bench.world()
    deploy = bench.deploy("v2").to("switch")
    deploy.participant.restore()
    deploy.die()
    assert bench.world() != before and bench.locks() != []
    probe = bench.deploy("v3").to("begin")
    assert bench.world() == before
    probe.restore()
    probe.close()
    assert bench.locks() == []


def test_a_live_tree_is_never_dropped(tmp_path: Path) -> None:
    """Not even when the journal asks for it."""
    bench = Bench(str(tmp_path), "releases")
    deploy = bench.deploy("v1").to("switch")
    with pytest.raises(RuntimeError, match="is live"):
        settlement.drop(bench.state, deploy.participant.folder, deploy.participant._need())
    assert bench.live_version() == "v1"
    deploy.restore()
    deploy.close()


def test_what_others_put_into_our_directories_stays(tmp_path: Path) -> None:
    """A directory made for the deploy goes with it only if it is empty."""
    bench = Bench(str(tmp_path), "releases", shared=["media/"])
    deploy = bench.deploy("v1").to("switch")
    upload = Path(bench.path, "shared", "media", "upload")
    upload.write_text("a user's")
    assert deploy.restore()["state"] == "restored"
    deploy.close()
    assert upload.read_text() == "a user's"
    assert os.listdir(bench.path) == ["shared"]


def test_an_unfinished_one_is_not_buried(tmp_path: Path) -> None:
    """A switch that nobody finished needs its rescue first."""
    bench = Bench(str(tmp_path), "releases")
    bench.release("v1")
    for step in ("arm", "switch", "prepare"):
        deploy = bench.deploy("v2").to(step)
        deploy.die()
        assert not settlement.bury(bench.state, deploy.identifier, bench.system)
        with pytest.raises(RequestError) as caught:
            bench.deploy("v3").to("begin")
        assert caught.value.kind == "locked"
        heir = deploy.taken_over()
        heir.restore()
        heir.close()
