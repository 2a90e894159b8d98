"""Locks: one transaction a path, and no lock that has to be removed by hand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import List

import pytest

from deployguard.onhost.places import read_json, write_json
from deployguard.onhost.request import RequestError
from deployguard.onhost.state import locks
from deployguard.onhost.system import System
from deployguard.onhost.transaction import settlement
from deployguard.onhost.transaction.participant import Participant
from tests.onhost.bench import Bench, claim, die


def _begin(bench: Bench, identifier: str, paths: List[str]) -> Participant:
    participant = bench.participant()
    participant.begin(claim(identifier, paths))
    return participant


@pytest.mark.parametrize(
    ("held", "wanted", "apart"),
    [
        ("/srv/a", "/srv/a", False),
        ("/srv/a", "/srv/a/b", False),
        ("/srv/a/b", "/srv/a", False),
        ("/srv/a", "/srv/ab", True),
        ("/srv/a/b", "/srv/a/c", True),
    ],
)
def test_paths_that_contain_each_other(tmp_path: Path, held: str, wanted: str, apart: bool) -> None:
    """They are the same path to a lock; the refusal names the holder."""
    bench = Bench(str(tmp_path))
    first = _begin(bench, "first", [held])
    if apart:
        _begin(bench, "second", [wanted]).close()
    else:
        with pytest.raises(RequestError) as caught:
            _begin(bench, "second", [wanted])
        assert caught.value.kind == "locked"
        assert caught.value.detail["transaction"] == "first"
        assert caught.value.detail["path"] == held and caught.value.detail["owner"] == "tests"
        assert bench.state.transactions() == ["first"]
    first.close()


def test_a_link_above_is_no_way_around(tmp_path: Path) -> None:
    """Two names for one place are one place."""
    bench = Bench(str(tmp_path))
    os.symlink(str(tmp_path / "srv"), str(tmp_path / "www"))
    first = _begin(bench, "first", [str(tmp_path / "srv" / "app")])
    with pytest.raises(RequestError, match="is locked by transaction first of tests"):
        _begin(bench, "second", [str(tmp_path / "www" / "app")])
    first.close()


def test_all_paths_or_none(tmp_path: Path) -> None:
    """One path that is taken, and none of the others is left locked."""
    bench = Bench(str(tmp_path))
    first = _begin(bench, "first", ["/srv/b"])
    with pytest.raises(RequestError):
        _begin(bench, "second", ["/srv/a", "/srv/b", "/srv/c"])
    assert [record["path"] for record in locks.held(bench.state)] == ["/srv/b"]
    first.abort()
    first.close()
    assert locks.held(bench.state) == []


@pytest.mark.parametrize("step", ["begin", "stage"])
def test_the_dead_who_touched_nothing_lose_their_lock(tmp_path: Path, step: str) -> None:
    """What they staged goes too, and their journal says why they ended."""
    bench = Bench(str(tmp_path), "in_place")
    bench.release("v1")
    before = bench.world()
    dead = bench.deploy("v2").to("look").to(step)
    dead.die()
    assert (bench.world() != before) == (step == "stage")
    successor = _begin(bench, "successor", [bench.path])
    assert bench.world() == before
    assert dead.journal().state == "aborted"
    last = dead.journal().last("aborted")
    assert last is not None and last["reason"] == "its process died"
    assert {record["transaction"] for record in locks.held(bench.state)} == {"successor"}
    with pytest.raises(RequestError):
        dead.taken_over().participant.stage({"components": ["app"]})
    successor.abort()
    successor.close()


@pytest.mark.parametrize("step", ["begin", "stage"])
def test_the_living_keep_theirs(tmp_path: Path, step: str) -> None:
    """As long as the process is there nobody else comes in."""
    bench = Bench(str(tmp_path), "in_place")
    deploy = bench.deploy("v1").to("look").to(step)
    with pytest.raises(RequestError) as caught:
        _begin(bench, "second", [bench.path])
    assert caught.value.detail["transaction"] == deploy.identifier
    deploy.to("commit").close()
    assert bench.live_version() == "v1"


def test_a_restored_transaction_is_not_disturbed_while_evidence_is_taken(tmp_path: Path) -> None:
    """The failed tree stays until the process that looks at it has finished."""
    bench = Bench(str(tmp_path), "releases")
    bench.release("v1")
    deploy = bench.deploy("v2").to("switch")
    deploy.participant.restore()
    with pytest.raises(RequestError) as caught:
        _begin(bench, "second", [bench.path])
    assert caught.value.kind == "locked"
    deploy.participant.finish()
    _begin(bench, "second", [bench.path]).close()
    deploy.close()


def test_a_damaged_journal_keeps_its_lock(tmp_path: Path) -> None:
    """Nobody can tell what that transaction touched, so nobody may go on there."""
    bench = Bench(str(tmp_path), "releases")
    deploy = bench.deploy("v1").to("stage")
    deploy.die()
    journal = Path(bench.state.transaction(deploy.identifier), "journal")
    data = journal.read_bytes()
    journal.write_bytes(b"00000000" + data[8:])
    with pytest.raises(RequestError) as caught:
        _begin(bench, "second", [bench.path])
    assert caught.value.kind == "locked"


def test_a_lock_without_a_transaction(tmp_path: Path) -> None:
    """A lock whose folder is gone holds nothing."""
    bench = Bench(str(tmp_path), "releases")
    participant = _begin(bench, "gone", [bench.path])
    die(participant)
    folder = Path(bench.state.transaction("gone"))
    for path in sorted(folder.iterdir()):
        path.unlink()
    folder.rmdir()
    _begin(bench, "second", [bench.path]).close()


def test_who_is_alive(tmp_path: Path) -> None:
    """The kernel tells whether a process is at work; a file that lies around says nothing."""
    folder = str(tmp_path)
    assert not locks.alive(folder)
    held = locks.keep_alive(folder)
    assert held is not None and locks.alive(folder)
    assert locks.keep_alive(folder) is None
    os.close(held)
    assert not locks.alive(folder)


def test_only_the_holder_gives_a_lock_up(tmp_path: Path) -> None:
    """A late release of an old transaction does not open the path of the new one."""
    bench = Bench(str(tmp_path))
    first = _begin(bench, "first", ["/srv/a"])
    locks.release(bench.state, "/srv/a", "somebody else")
    record = read_json(bench.state.lock("/srv/a"))
    assert record is not None and record["transaction"] == "first"
    locks.release(bench.state, "/srv/a", "first")
    assert not os.path.exists(bench.state.lock("/srv/a"))
    first.close()


def test_who_died_before_its_first_record_loses_its_lock_to_whoever_comes(tmp_path: Path) -> None:
    """No journal tells of it, so nobody could recover it; one that began keeps its lock."""
    bench = Bench(str(tmp_path))
    begun = _begin(bench, "t1", ["/srv/one"])
    folder = bench.state.transaction("t2")
    os.mkdir(folder)
    write_json(bench.state.lock("/srv/two"), {"transaction": "t2", "path": "/srv/two"})
    alive = locks.keep_alive(folder)
    settlement.sweep(bench.state, System())
    assert [lock["path"] for lock in locks.held(bench.state)] == ["/srv/one", "/srv/two"]
    assert alive is not None
    os.close(alive)
    begun.close()
    settlement.sweep(bench.state, System())
    assert [lock["path"] for lock in locks.held(bench.state)] == ["/srv/one"]
    assert not os.path.exists(folder)
