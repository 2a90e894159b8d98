"""Nobody is left but the host itself: its program is killed, and what it left comes to an end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from deployguard.onhost import unattended
from deployguard.onhost.places import State
from deployguard.onhost.state import deadman, lease, locks
from deployguard.onhost.system import System
from tests.onhost.wire import Program, RealBench, deadman_lives, eventually


@pytest.fixture(params=["releases", "in_place"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> RealBench:
    """v1 is live and runs; a lease is over at once."""
    bench = RealBench(str(tmp_path), request.param)
    program = Program(bench)
    bench.over(program, "v1").to("commit")
    assert program.hang_up() == 0
    bench.lease = 0.1
    return bench


@pytest.mark.parametrize(
    ("step", "state"),
    [
        ("stage", "aborted"),
        ("arm", "restored"),
        ("switch", "restored"),
        ("check", "restored"),
    ],
)
def test_killed_before_the_vote(bench: RealBench, step: str, state: str) -> None:
    """Tree, service, locks: all as before, and the dead-man is gone."""
    before = bench.world()
    program = Program(bench)
    deploy = bench.over(program, "v2").to(step)
    assert deadman_lives(bench, deploy.identifier)
    program.kill()
    assert eventually(lambda: not deadman_lives(bench, deploy.identifier))
    assert deploy.journal().state == state
    assert bench.world() == before and bench.served == "v1" and bench.locks() == []


def test_killed_after_the_vote(bench: RealBench) -> None:
    """The decision is somebody else's; the dead-man leaves everything as it is, and goes."""
    program = Program(bench)
    deploy = bench.over(program, "v2").to("prepare")
    program.kill()
    assert eventually(lambda: not deadman_lives(bench, deploy.identifier))
    assert deploy.journal().state == "prepared" and bench.served == "v2"


def test_killed_in_a_restore_that_was_decided_on(
    bench: RealBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the vote as well: the restore was begun because the decision was known."""
    before = bench.world()
    victim, stop = Path(bench.root, "etc", "victim"), Path(bench.root, "etc", "stop")
    stop.write_text(
        "#!/bin/sh\nif test -e %s; then kill -9 $(cat %s); rm %s; fi\nrm -f %s/run\n"
        % (victim, victim, victim, bench.root)
    )
    stop.chmod(0o755)
    real = bench.argv
    monkeypatch.setattr(bench, "argv", lambda verb: [str(stop)] if verb == "stop" else real(verb))
    program = Program(bench)
    deploy = bench.over(program, "v2").to("prepare")
    program.kill()
    assert eventually(lambda: not deadman_lives(bench, deploy.identifier))
    second = Program(bench)
    second.call("adopt", {"transaction": deploy.identifier, "epoch": 2, "owner": "recover"})
    victim.write_text(str(second.process.pid))
    second.send({"id": 99, "verb": "restore", "args": {}})
    assert second.process.wait(60) == -signal.SIGKILL
    assert eventually(lambda: not deadman_lives(bench, deploy.identifier))
    assert deploy.journal().state == "restored" and bench.served == "v1"
    stop.unlink()
    assert bench.world() == dict(before, etc=bench.world()["etc"])


def test_a_commit_leaves_no_dead_man(bench: RealBench) -> None:
    """Nor does a restore by the controller."""
    for step, version in (("commit", "v2"), ("switch", "v2")):
        program = Program(bench)
        deploy = bench.over(program, version).to(step)
        if step == "switch":
            program.call("restore")
            program.call("finish")
        assert eventually(lambda: not deadman_lives(bench, deploy.identifier))  # noqa: B023
        assert program.hang_up() == 0
        assert bench.served == "v2"


def test_the_controller_comes_back(bench: RealBench) -> None:
    """Whoever takes over within the lease gets the transaction as it was, not a restored one."""
    bench.lease = 60.0
    program = Program(bench)
    deploy = bench.over(program, "v2").to("switch")
    program.kill()
    second = Program(bench)
    taken = second.call("adopt", {"transaction": deploy.identifier, "epoch": 2, "owner": "recover"})
    assert taken["state"] == "switched" and bench.served == "v2"
    second.call("restore")
    second.call("finish")
    assert bench.served == "v1"
    assert eventually(lambda: not deadman_lives(bench, deploy.identifier))
    second.hang_up()


def test_a_damaged_journal_is_left_alone(bench: RealBench) -> None:
    """Nothing can be concluded from it: a person is needed, and the dead-man touches nothing."""
    bench.lease = 60.0
    program = Program(bench)
    deploy = bench.over(program, "v2").to("switch")
    journal = Path(bench.state.transaction(deploy.identifier), "journal")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([lines[0], b"0" * len(lines[1][:-1]) + b"\n", *lines[2:]]))
    program.kill()
    assert eventually(lambda: not deadman_lives(bench, deploy.identifier))
    assert bench.served == "v2"


def test_it_is_deaf(bench: RealBench) -> None:
    """The hang-up of its terminal, or a Ctrl-C there, does not end it."""
    before = bench.world()
    program = Program(bench)
    deploy = bench.over(program, "v2").to("switch")
    pid = deadman.Deadman(bench.state, bench.state.transaction(deploy.identifier), System()).pid()
    assert pid is not None and eventually(lambda: _ignores(pid, signal.SIGINT))
    for number in (signal.SIGHUP, signal.SIGINT):
        os.kill(pid, number)
    program.kill()
    assert eventually(lambda: not deadman_lives(bench, deploy.identifier))
    assert deploy.journal().state == "restored" and bench.world() == before


def _ignores(pid: int, number: int) -> bool:
    lines = Path("/proc/%d/status" % pid).read_text().splitlines()
    (mask,) = [line.split()[1] for line in lines if line.startswith("SigIgn:")]
    return bool(int(mask, 16) & (1 << (number - 1)))


def test_lease_that_cannot_be_read_is_over(tmp_path: Path) -> None:
    """No file, a torn one, one of an earlier boot."""
    system = System()
    folder = str(tmp_path)
    assert lease.left(folder, system) == 0.0
    lease.renew(folder, 60.0, system)
    assert 59.0 < lease.left(folder, system) < 60.01
    lease.renew(folder, 5.0, system)
    assert 4.0 < lease.left(folder, system) < 5.01
    Path(folder, "lease").write_text("1e9 another-boot")
    assert lease.left(folder, system) == 0.0
    Path(folder, "lease").write_bytes(b"")
    assert lease.left(folder, system) == 0.0
    lease.renew(folder, 60.0, system)
    lease.end(folder)
    assert lease.left(folder, system) == 0.0


def test_only_the_program_of_a_controller_attends(bench: RealBench) -> None:
    """The dead-man holds the same lock for a moment while the lease of a dead controller lasts."""
    bench.lease = 60.0
    program = Program(bench)
    deploy = bench.over(program, "v2").to("prepare")
    folder = bench.state.transaction(deploy.identifier)
    other = Program(bench)
    assert other.call("status")["unfinished"][0]["attended"]
    program.kill()
    held: list[int | None] = [None]
    assert eventually(lambda: held.append(locks.keep_alive(folder)) or held[-1] is not None)
    (unfinished,) = other.call("status")["unfinished"]
    assert unfinished["alive"] and not unfinished["attended"]
    os.close(held[-1] or -1)
    assert other.call("adopt", {"transaction": deploy.identifier, "epoch": 2, "owner": "other"})
    assert other.call("restore")["verified"]
    other.call("finish")


def test_unit_words() -> None:
    """A path may hold whatever a path may hold; systemd expands none of it."""
    words = deadman._unit_words(["/usr/bin/python3", "a b", 'q"uo', "100%", "$HOME", "back\\"])
    assert words == '"/usr/bin/python3" "a b" "q\\"uo" "100%%" "$$HOME" "back\\\\"'


def test_a_transaction_that_is_not_there(tmp_path: Path) -> None:
    """Somebody cleared it away: nothing to do, and that is a good end."""
    assert unattended.main(str(tmp_path), "t1") == 0


def test_the_command_survives_a_daemon_reload(tmp_path: Path) -> None:
    """systemd reads a transient unit back from its file, where some characters come back changed.

    A semicolon does; the dead-man then ends with a syntax error, five times, and is given up.
    """
    state = State(str(tmp_path))
    man = deadman.Deadman(state, state.transaction("t1"), System())
    assert not set(" ".join(man._command())) & set(';$%\\"')
    compile(deadman._START, "dead-man", "eval")


def test_a_program_that_is_frozen_is_ended(bench: RealBench) -> None:
    """It holds its lock and does nothing; the lease would never come to its end."""
    before = bench.world()
    program = Program(bench)
    deploy = bench.over(program, "v2").to("switch")
    os.kill(program.process.pid, signal.SIGSTOP)
    assert eventually(lambda: not deadman_lives(bench, deploy.identifier))
    assert program.process.wait(60) == -signal.SIGKILL
    assert deploy.journal().state == "restored"
    assert bench.world() == before and bench.served == "v1" and bench.locks() == []


def test_the_boot_unit_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its own name, so that disarming finds it whatever happened; a later one is replaced."""
    state = State(str(tmp_path))
    man = deadman.Deadman(state, state.transaction("t1"), System())
    monkeypatch.setattr(deadman, "UNITS", str(tmp_path))
    monkeypatch.setattr(deadman.durable, "write_file", lambda *_: pytest.fail("another name"))
    man._install_boot_unit()
    man._install_boot_unit()
    unit = tmp_path / "deployguard-boot-t1.service"
    assert "deployguard.onhost.unattended" in unit.read_text()
    man._remove_boot_unit()
    assert [path.name for path in tmp_path.iterdir()] == ["multi-user.target.wants"]
