"""The host program as a process: requests over pipes, errors by kind, and what it does alone."""

from __future__ import annotations

import fcntl
import io
import os
import tarfile
import zlib
from pathlib import Path
from typing import Any, Iterator

import pytest

from deployguard.onhost import durable, frames, serve
from deployguard.onhost.trees.scan import Manifest
from tests.onhost.bench import STEPS, claim
from tests.onhost.wire import (
    InProcess,
    Program,
    RealBench,
    Refusal,
    Wire,
    deadman_lives,
    eventually,
)

TOUCHED = ["arm", "switch", "check"]


@pytest.fixture(params=["releases", "in_place"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> RealBench:
    """v1 is live and runs."""
    bench = RealBench(str(tmp_path), request.param)
    program = Program(bench)
    bench.over(program, "v1").to("commit")
    assert program.hang_up() == 0
    return bench


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program in the thread looks up often, so that nobody waits for it."""
    monkeypatch.setattr(serve, "_IDLE", 0.01)


def test_a_whole_deploy_over_the_wire(bench: RealBench) -> None:
    """Hello, every verb in turn, events in between, and the status at the end."""
    program = Program(bench)
    assert program.hello["protocol"] == 1 and program.hello["state"] == bench.state.root
    assert program.hello["pid"] == program.process.pid and program.hello["uid"] == os.geteuid()
    deploy = bench.over(program, "v2")
    for step, state in zip(
        STEPS,
        [
            "begun",
            "begun",
            "staged",
            "armed",
            "switched",
            "switched",
            "prepared",
            "committed",
        ],
    ):
        deploy.to(step)
        assert program.state == state
    assert {"operation": "tree", "status": "started"} in program.events
    assert any(event.get("check") == "app/process" for event in program.events)
    status = program.call("status")
    (live,) = status["live"]
    assert live["version"] == "v2" and live["previous"][0]["version"] == "v1"
    assert status["unfinished"] == status["locks"] == []
    stored = program.call("stored_manifest", {"path": bench.path})
    assert stored["version"] == "v2"
    manifest = Manifest.from_bytes(stored["stream"])
    assert [entry.path for entry in manifest] == [".", "VERSION", "same.txt"]
    assert program.hang_up() == 0
    assert bench.served == "v2"


@pytest.mark.parametrize("step", ["begin", "look", "stage"])
def test_hung_up_before_anything_was_touched(bench: RealBench, step: str) -> None:
    """The end of the input is enough: what was staged is dropped at once, the lock too."""
    before = bench.world()
    program = Program(bench)
    deploy = bench.over(program, "v2").to(step)
    assert program.hang_up() == 0
    assert deploy.journal().state == "aborted"
    assert bench.world() == before and bench.locks() == []


@pytest.mark.parametrize("step", TOUCHED)
def test_hung_up_after_the_undo_was_armed(bench: RealBench, step: str) -> None:
    """At the end of the lease the host is as it was, the old version runs, nothing is left over."""
    before = bench.world()
    bench.lease = 0.2
    program = Program(bench)
    deploy = bench.over(program, "v2").to(step)
    assert program.hang_up() == 0
    assert deploy.journal().state == "restored" and bench.served == "v1"
    assert bench.world() == before and bench.locks() == []
    assert not deadman_lives(bench, deploy.identifier)
    # Whoever comes later finds that all is done, and may do it again.
    program = Program(bench)
    assert program.call("status")["unfinished"] == []
    program.call("adopt", {"transaction": deploy.identifier, "epoch": 2, "owner": "recover"})
    assert program.call("restore")["state"] == "restored"
    program.call("finish")
    assert program.hang_up() == 0
    assert bench.world() == before


def test_hung_up_after_the_vote(bench: RealBench) -> None:
    """It waits for the decision, which needs no process; either one can be carried out later."""
    for verb, version in (("restore", "v1"), ("commit", "v2")):
        bench.lease = 0.0
        program = Program(bench)
        deploy = bench.over(program, "v2").to("prepare")
        assert program.hang_up() == 0
        assert deploy.journal().state == "prepared" and bench.served == "v2"
        program = Program(bench)
        program.call("adopt", {"transaction": deploy.identifier, "epoch": 2, "owner": "recover"})
        program.call(verb)
        program.call("finish")
        assert program.hang_up() == 0
        assert bench.live_version() == bench.served == version and bench.locks() == []


@pytest.mark.parametrize(
    ("step", "state"),
    [("stage", "aborted"), ("arm", "restored"), ("switch", "restored"), ("prepare", "prepared")],
)
@pytest.mark.parametrize("hang_up", [True, False])
def test_handed_over(bench: RealBench, step: str, state: str, hang_up: bool) -> None:
    """A controller that has to leave need not leave the host waiting for the lease."""
    program = Program(bench)
    deploy = bench.over(program, "v2").to(step)
    program.send({"verb": "hand_over"})
    if hang_up or state == "prepared":
        assert program.hang_up() == 0
    else:
        assert program.ended() == 0
        program.writer.close()
    assert deploy.journal().state == state
    assert bench.served == ("v2" if state == "prepared" else "v1")


@pytest.mark.parametrize("step", ["switch", "prepare"])
def test_killed(bench: RealBench, step: str) -> None:
    """A program that was killed has no say; the next one finds everything in the journal."""
    before = bench.world()
    program = Program(bench)
    deploy = bench.over(program, "v2").to(step)
    state = program.state
    program.kill()
    program = Program(bench)
    (unfinished,) = program.call("status")["unfinished"]
    assert unfinished["state"] == state
    assert eventually(lambda: not program.call("status")["unfinished"][0]["attended"])
    taken = program.call(
        "adopt", {"transaction": deploy.identifier, "epoch": 2, "owner": "recover"}
    )
    assert taken["state"] == state
    assert program.call("restore")["verified"]
    program.call("finish")
    assert program.hang_up() == 0
    assert bench.world() == before and bench.served == "v1"


def test_taken_over_while_the_other_still_lives(bench: RealBench) -> None:
    """The one with the lower epoch notices that it is fenced off, and goes without a word."""
    first = Program(bench)
    deploy = bench.over(first, "v2").to("switch")
    second = Program(bench)
    taken = second.call("adopt", {"transaction": deploy.identifier, "epoch": 2, "owner": "recover"})
    assert taken == dict(taken, state="switched", epoch=2)
    assert first.ended() == 0
    first.writer.close()
    assert bench.served == "v2"
    assert second.call("restore")["state"] == "restored" and bench.served == "v1"
    second.hang_up()


def _errors(bench: RealBench, program: Wire) -> Iterator[Any]:
    """Each kind of error, how it comes about, and a part of its message."""
    other = bench.path + "/below"
    yield "usage", "nonsense", {}, "unknown verb 'nonsense'"
    yield "usage", "begin", claim("../../etc", [bench.path]), "not a transaction id"
    yield "locked", "begin", claim("other", [other]), "is locked by transaction"
    yield "state", "begin", claim("t0002", [bench.path]), "already known"
    yield "state", "prepare", {}, "not possible in state staged"
    yield "state", "hold", {}, "fail is not possible in state staged"
    yield "state", "adopt", {"transaction": "none", "epoch": 9}, "no transaction none"
    yield "stale_epoch", "adopt", {"transaction": "t0002", "epoch": 1}, "epoch 1 is not above 1"
    yield "internal", "begin", {}, "KeyError"


def test_errors_have_kinds(bench: RealBench) -> None:
    """A refusal says what kind it is; the program goes on, in the state it was in."""
    holder, program = Program(bench), Program(bench)
    bench.over(holder, "v2").to("stage")
    for kind, verb, args, words in _errors(bench, program):
        wire = program if verb in ("begin", "nonsense", "adopt") else holder
        with pytest.raises(Refusal, match=words) as caught:
            wire.call(verb, args)
        assert caught.value.kind == kind, verb
        assert holder.state == "staged"
    with pytest.raises(Refusal) as caught:
        program.call("describe")
    assert caught.value.kind == "state"
    holder.hang_up()
    program.hang_up()


def test_a_path_that_cannot_be_managed_is_refused(bench: RealBench) -> None:
    """With a hint for the person who has to decide."""
    program = Program(bench)
    deploy = bench.over(program, "v2").to("begin")
    link = bench.live if bench.layout == "releases" else bench.path
    os.rename(link, link + ".away")
    Path(link).write_text("")
    with pytest.raises(Refusal) as caught:
        deploy.to("look")
    assert caught.value.kind == "refused" and caught.value.hint
    program.hang_up()


def test_a_step_that_fails_has_a_name(bench: RealBench) -> None:
    """Kind ``failed``, with the operation in the detail; the program is ready to restore."""
    before = bench.world()
    program = Program(bench)
    deploy = bench.over(program, "v2").to("stage")
    command = {"act": "run", "argv": ["false"], "timeout": 5.0}
    deploy.procedure = lambda: [  # type: ignore[method-assign]
        {"id": "task:no", "component": "task", "title": "run no", "do": [command], "undo": []}
    ]
    with pytest.raises(Refusal, match="false ended with status 1") as caught:
        deploy.to("switch")
    assert caught.value.kind == "failed"
    assert caught.value.detail == {"operation": "task:no", "title": "run no"}
    assert deploy.restore()["state"] == "restored" and bench.world() == before
    program.hang_up()


def test_bytes_that_are_not_what_they_should_be(bench: RealBench) -> None:
    """A broken upload is refused, the rest of it is skipped, and the next request works."""
    program = Program(bench)
    deploy = bench.over(program, "v2").to("look")
    with pytest.raises(Refusal):
        program.call("blobs", {"component": "app"}, [b"not", b"zlib"] * 100)
    with pytest.raises(Refusal):
        program.call("manifest", {"digest": "x"}, [zlib.compress(b"[]")])
    assert program.state == "begun"
    deploy.to("commit")
    program.hang_up()
    assert bench.served == "v2"


def test_no_frame(bench: RealBench) -> None:
    """What is no frame ends the conversation as a hang-up does."""
    before = bench.world()
    program = Program(bench)
    deploy = bench.over(program, "v2").to("stage")
    program.writer.write(b"GET / HTTP/1.1\r\n\r\n")
    program.writer.flush()
    assert program.ended() == 0
    program.writer.close()
    assert deploy.journal().state == "aborted" and bench.world() == before


def test_hung_up_in_the_middle_of_an_upload(bench: RealBench) -> None:
    """Half a stream is no stream; nothing is left of it."""
    before = bench.world()
    program = Program(bench)
    deploy = bench.over(program, "v2").to("look")
    program.send({"id": 99, "verb": "blobs", "args": {"component": "app"}})
    program.writer.write(frames.encode_piece(b"x" * 100)[:50])
    program.writer.flush()
    assert program.hang_up() == 0
    assert deploy.journal().state == "aborted" and bench.world() == before


def test_evidence_comes_as_a_tar(bench: RealBench) -> None:
    """The folder as it was filled, gzip-compressed; an empty one where nothing was."""
    program = Program(bench)
    deploy = bench.over(program, "v2").to("switch")
    assert program.call("evidence", {"stage": "critical", "max_bytes": 9, "max_seconds": 1}) == {
        "collected": []
    }
    folder = Path(bench.state.transaction(deploy.identifier), "evidence", "app")
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text("line\n" * 50000)
    data = program.call("fetch")["stream"]
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        assert tar.getnames() == ["app/log.txt"]
    deploy.restore()
    program.hang_up()


def test_a_beat_renews_the_lease(bench: RealBench) -> None:
    """As long as beats come the host waits; a lease after the last one it restores."""
    program = InProcess(bench)
    deploy = bench.over(program, "v2").to("switch")
    for _ in range(5):
        program.clock.time += bench.lease * 0.9
        program.beat()
        while program.server.last_beat < program.clock.time:
            assert program.thread.is_alive()
        assert program.state == "switched"
    program.clock.time += bench.lease
    program.ended()
    assert deploy.journal().state == "restored" and bench.served == "v1"
    program.close()


@pytest.mark.parametrize("step", ["begin", "stage", "switch"])
def test_a_silent_controller_is_a_dead_one(bench: RealBench, step: str) -> None:
    """Behind a cut network the input does not end; the lease does."""
    before = bench.world()
    program = InProcess(bench)
    deploy = bench.over(program, "v2").to("look").to(step)
    program.clock.time += bench.lease
    program.ended()
    assert deploy.journal().state == ("restored" if step == "switch" else "aborted")
    assert bench.served == "v1" and (step == "switch" or bench.world() == before)
    program.close()


def test_nothing_stays_behind_a_cut_network(bench: RealBench) -> None:
    """Where nothing is left to do, a controller that used to beat and is silent is gone."""
    program = InProcess(bench)
    program.beat()
    deploy = bench.over(program, "v2").to("commit")
    program.clock.time += bench.lease
    program.ended()
    assert deploy.journal().state == "committed" and bench.served == "v2"
    program.close()


@pytest.mark.parametrize("verb", [None, "status"])
def test_nobody_stays_who_was_never_begun_with(bench: RealBench, verb: str | None) -> None:
    """The network was cut before the first beat: there is nothing to do, but a process to end."""
    program = InProcess(bench)
    if verb:
        program.call(verb)
    program.clock.time += 60.0
    program.ended()
    program.close()
    assert bench.locks() == []


def test_nobody_is_hurried_after_the_vote(bench: RealBench) -> None:
    """A host that has voted waits, however long the controller is silent."""
    program = InProcess(bench)
    deploy = bench.over(program, "v2").to("prepare")
    program.clock.time += bench.lease * 100
    assert program.state == "prepared"
    deploy.to("commit")
    program.close()
    assert bench.served == "v2"


def test_a_check_ends_with_the_lease(bench: RealBench) -> None:
    """A controller that dies during a long check does not have its deadline waited for."""
    program = InProcess(bench)
    deploy = bench.over(program, "v2").to("switch")
    never = {
        "id": "app/never",
        "component": "app",
        "kind": "command",
        "name": "never",
        "critical": True,
        "timeout": 1.0,
        "interval": 0.01,
        "deadline": 10.0**9,
        "min_healthy_time": 0.0,
        "argv": ["false"],
    }
    program.send({"id": 1000, "verb": "check", "args": {"checks": [never]}})
    while not any("check" in event for event in program.events):
        frame = frames.read_frame(program.reader)
        assert frame is not None
        program.events.append(frames.decode(*frame).get("event", {}))
    program.clock.time += bench.lease
    program.ended()
    assert deploy.journal().state == "restored" and bench.served == "v1"
    program.close()


def test_output_that_nobody_reads_holds_no_restore_up(bench: RealBench) -> None:
    """A full pipe behind a cut network: the restore happens all the same."""
    program = InProcess(bench)
    deploy = bench.over(program, "v2").to("switch")
    output = program._ends[1]
    flags = fcntl.fcntl(output, fcntl.F_GETFL)
    fcntl.fcntl(output, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    with pytest.raises(BlockingIOError):
        durable.write_all(output, b"\0" * 10_000_000)
    fcntl.fcntl(output, fcntl.F_SETFL, flags)
    program.send({"id": 1000, "verb": "describe"})
    while program.server._request != 1000:
        assert program.thread.is_alive()
    program.clock.time += bench.lease
    program.ended()
    assert deploy.journal().state == "restored" and bench.served == "v1"
    program.close()
