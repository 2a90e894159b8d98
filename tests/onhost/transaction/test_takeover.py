"""A process that dies at any step is followed by one that ends the transaction.

Afterwards the tree is the whole old one or the whole new one, with nothing left beside it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, Iterator

import pytest

from deployguard.onhost import durable, unattended
from deployguard.onhost.request import RequestError
from deployguard.onhost.state import machine
from deployguard.onhost.transaction import restoration
from deployguard.onhost.transaction.participant import Participant
from tests.onhost.bench import COMPONENT, MEMORY, STEPS, Bench, Deploy, checks, claim
from tests.onhost.cuts import every_point, killed_at


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder in memory."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)


LAYOUTS = pytest.mark.parametrize("layout", ["releases", "in_place"])


def _bench(root: Path, layout: str) -> Bench:
    """v1 is live, with a managed file and, in place, something that belongs to the host."""
    keep = ["uploads/", "*.db"] if layout == "in_place" else []
    shared = [] if keep else ["media/"]
    bench = Bench(str(root), layout, keep=keep, shared=shared)
    bench.manage("app.service", "unit v1", 0o640)
    files = {"lib/a": "a", "lib/gone": "only in v1"}
    bench.release("v1", dict(files, **{"uploads/u": "u", "x.db": "d"}) if keep else files)
    bench.manage("app.service", "unit v2")
    bench.manage("app.conf", "came with v2")
    # A time that nothing restores by chance.
    os.utime(bench.live + "/lib", ns=(10**18, 10**18))
    os.utime(bench.live + "/", ns=(10**18 + 1, 10**18 + 1))
    return bench


def _finish(deploy: Deploy, decided: bool, epoch: int) -> str:
    """What ``recover`` does on a host; the state that it found."""
    try:
        heir = deploy.taken_over(epoch)
    except RequestError as error:
        if error.kind != "state":
            raise
        # What a transaction left that never began is cleared away by the next one.
        next_one = deploy.bench.participant()
        next_one.begin(claim("after-" + deploy.identifier, [deploy.bench.path]))
        next_one.abort()
        next_one.close()
        return machine.IDLE
    found = heir.participant.state
    if decided:
        heir.participant.commit()
    else:
        result = heir.restore()
        assert result["state"] in machine.TERMINAL, result
    heir.close()
    return found


def _power_cut(deploy: Deploy, power: str) -> None:
    """What else happens to the service when the process dies."""
    bench = deploy.bench
    if power == "off":
        bench.served = None
    # An enabled service comes up from what is live; and one that is not, nobody can expect to be
    # brought back if the deploy never stopped it.
    if power == "boot" or not deploy.journal().all("intent"):
        bench.served = bench.live_version()


POWER = pytest.mark.parametrize("power", ["on", "off", "boot"])


@LAYOUTS
@POWER
def test_killed_anywhere_before_the_decision(tmp_path: Path, layout: str, power: str) -> None:
    """Every file, mode, owner, time and link is as before, and the old version runs."""
    bench = _bench(tmp_path, layout)
    before = bench.world()
    states = set()

    def attempt(number: int) -> bool:
        bench.served = "v1"
        deploy = bench.deploy("v2", {"lib/a": "a", "lib/b": "new"})
        dead = killed_at(bench, number, lambda: deploy.to("prepare"))
        _power_cut(deploy, power)
        state = _finish(deploy, decided=False, epoch=2)
        states.add(state)
        assert bench.world() == before, "after a kill at point %d, found %s" % (number, state)
        assert not [name for name in bench.locks() if name.endswith(".json")]
        assert bench.served == "v1"
        return dead

    assert len(list(every_point(attempt))) > 40
    assert states == {"idle", "begun", "staged", "armed", "switched", "prepared"}


@LAYOUTS
def test_killed_anywhere_after_the_decision(tmp_path: Path, layout: str) -> None:
    """However often carrying out the commit is interrupted, it ends as if it never had been."""

    def world(name: str, kill: int) -> Any:
        bench = _bench(tmp_path / name, layout)
        for version in ("v2", "v3"):
            bench.release(version)
        deploy = bench.deploy("v4").to("prepare")
        deploy.die()
        # Taken over by the child: the lock is its own, and goes with it.
        dead = killed_at(bench, kill, lambda: deploy.taken_over(2).participant.commit())  # noqa: PLW0108
        _finish(deploy, decided=True, epoch=3)
        record = bench.record()
        assert record["version"] == "v4" and bench.live_version() == "v4"
        assert [older["version"] for older in record["previous"]] == ["v3", "v2"]
        for older in record["previous"]:
            assert os.path.isdir(older["tree"]) and os.path.exists(older["manifest"])
        assert bench.locks() == []
        folder = bench.state.live(bench.path)
        return dead, sorted(bench.world()), sorted(os.listdir(folder))

    _, *uncut = world("uncut", 10**6)

    def attempt(number: int) -> bool:
        dead, *found = world("cut%d" % number, number)
        assert found == uncut, "after a kill at point %d" % number
        return bool(dead)

    assert len(list(every_point(attempt))) > 10


@LAYOUTS
@POWER
def test_killed_anywhere_on_the_way_back(tmp_path: Path, layout: str, power: str) -> None:
    """A restore that dies half-way is done again, from the start, by the next process."""
    bench = _bench(tmp_path, layout)
    before = bench.world()

    def attempt(number: int) -> bool:
        bench.served = "v1"
        deploy = bench.deploy("v2", {"lib/b": "new"}).to("check")
        deploy.die()
        dead = killed_at(bench, number, lambda: deploy.taken_over(2).restore())
        _power_cut(deploy, power)
        state = _finish(deploy, decided=False, epoch=3)
        assert bench.world() == before, "after a kill at point %d, found %s" % (number, state)
        assert bench.locks() == []
        # What was switched off after the proof is not ours to switch on.
        assert bench.served == "v1" or (power == "off" and state == machine.RESTORED)
        return dead

    assert len(list(every_point(attempt))) > 20


@LAYOUTS
@pytest.mark.parametrize("step", [step for step in STEPS if step not in ("look", "commit")])
def test_taken_over_in_every_state(tmp_path: Path, layout: str, step: str) -> None:
    """The new process needs nothing but the folder, and says what it found."""
    bench = _bench(tmp_path, layout)
    before = bench.world()
    deploy = bench.deploy("v2").to(step)
    state = deploy.participant.state
    deploy.die()
    heir = deploy.taken_over()
    described = heir.participant.describe()
    assert described["state"] == state and described["epoch"] == 2
    result = heir.restore()
    untouched = state in machine.UNTOUCHED
    assert result["state"] == ("aborted" if untouched else "restored")
    assert result["verified"] and result["healthy"]
    assert bench.world() == before and bench.locks() == [] and bench.served == "v1"
    heir.close()


def test_a_lower_epoch_is_refused(tmp_path: Path) -> None:
    """An old controller that comes late cannot take a transaction back."""
    deploy = _bench(tmp_path, "releases").deploy("v2").to("stage")
    deploy.die()
    deploy.taken_over(5).die()
    for epoch in (1, 4, 5):
        with pytest.raises(RequestError) as caught:
            deploy.taken_over(epoch)
        assert caught.value.kind == "stale_epoch" and caught.value.detail == 5
    deploy.taken_over(6).restore()


def test_of_two_takeovers_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a higher epoch is written while one waits for its turn, that one lets go again."""
    bench = _bench(tmp_path, "releases")
    deploy = bench.deploy("v2").to("switch")
    deploy.die()
    waited = Participant._wait_for

    def overtaken(self: Participant, folder: str) -> int:
        monkeypatch.setattr(Participant, "_wait_for", waited)
        other = deploy.taken_over(7)
        assert other.restore()["state"] == "restored"
        other.close()
        return waited(self, folder)

    monkeypatch.setattr(Participant, "_wait_for", overtaken)
    with pytest.raises(RequestError) as caught:
        deploy.taken_over(2)
    assert caught.value.kind == "stale_epoch"
    deploy.taken_over(8).close()


def _verbs(deploy: Deploy) -> Dict[str, Callable[[], Any]]:
    mine = deploy.participant
    return {
        "blobs": lambda: mine.blobs({"component": COMPONENT}, []),
        "stage": lambda: mine.stage({"components": [COMPONENT]}),
        "arm": deploy.arm,
        "switch": mine.switch,
        "check": lambda: mine.check({"checks": checks()}),
        "prepare": mine.prepare,
        "commit": mine.commit,
        "restore": mine.restore,
        "abort": mine.abort,
        "hold": mine.hold,
        "finish": mine.finish,
        "describe": mine.describe,
        "run": lambda: mine.run({"argv": ["service", "stop"], "timeout": 1.0}),
    }


@pytest.mark.parametrize("step", ["begin", "look", "stage", "arm", "switch", "prepare"])
def test_a_fenced_participant_does_nothing(tmp_path: Path, step: str) -> None:
    """Once somebody took over, every verb is refused and nothing changes, whatever the state."""
    bench = _bench(tmp_path, "in_place")
    deploy = bench.deploy("v2").to("look").to(step)
    journal = Path(bench.state.transaction(deploy.identifier), "journal")
    assert not deploy.participant.fenced()
    durable.write_file(str(journal.parent / "epoch"), b'{"epoch": 2}')
    assert deploy.participant.fenced()
    before, written = bench.world(), journal.read_bytes()
    for verb, call in _verbs(deploy).items():
        with pytest.raises(RequestError) as caught:
            call()
        assert caught.value.kind == "stale_epoch", verb
    # Nor does it by itself; once it has voted there is nothing that it might do.
    assert unattended.finish(deploy.participant, bench.system) is (step == "prepare")
    assert bench.world() == before and journal.read_bytes() == written
    assert bench.asked[-1] == "status" or step not in ("begin", "look", "stage", "arm")
    deploy.close()


def test_what_never_began_is_not_taken_over(tmp_path: Path) -> None:
    """There is nothing to recover, and a message says so."""
    bench = _bench(tmp_path, "releases")
    deploy = bench.deploy("v2")
    with pytest.raises(RequestError, match="no transaction"):
        deploy.taken_over()
    os.mkdir(bench.state.transaction(deploy.identifier))
    with pytest.raises(RequestError, match="never began"):
        deploy.taken_over()


def test_a_process_at_work_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A takeover gives up, with a hint, when the old process does not end its step."""
    monkeypatch.setattr("deployguard.onhost.transaction.tenure.TAKEOVER_SECONDS", 0.0)
    deploy = _bench(tmp_path, "releases").deploy("v2").to("stage")
    with pytest.raises(RequestError) as caught:
        deploy.taken_over()
    assert caught.value.kind == "failed" and "at work" in str(caught.value)
    assert deploy.participant.fenced()
    deploy.close()


def test_a_torn_journal_tail_is_no_obstacle(tmp_path: Path) -> None:
    """Half a record at the end, as a power cut leaves it, is cut off; the rest counts."""
    bench = _bench(tmp_path, "in_place")
    before = bench.world()
    deploy = bench.deploy("v2").to("switch")
    deploy.die()
    journal = Path(bench.state.transaction(deploy.identifier), "journal")
    whole = journal.read_bytes()
    for torn in (b'deadbeef {"kind":"prepared","sta', whole.splitlines()[-1][:-3], b"\0" * 40):
        journal.write_bytes(whole + torn)
        assert deploy.journal().state == "switched"
    heir = deploy.taken_over()
    assert heir.restore()["state"] == "restored"
    heir.close()
    assert deploy.journal().state == "restored" and bench.world() == before


def test_no_commit_after_a_restore_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decision to go back was told; whoever says otherwise later comes too late."""
    bench = _bench(tmp_path, "releases")
    deploy = bench.deploy("v2").to("prepare")
    deploy.die()
    heir = deploy.taken_over()

    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(restoration.verification, "differences", broken)
    with pytest.raises(KeyboardInterrupt):
        heir.participant.restore()
    monkeypatch.undo()
    told = heir.participant.describe()
    assert told["state"] == "prepared" and told["going_back"] and told["sent_back"]
    with pytest.raises(RequestError, match="a restore has begun"):
        heir.participant.commit()
    assert heir.participant.restore()["state"] == "restored" and bench.served == "v1"
    heir.close()
