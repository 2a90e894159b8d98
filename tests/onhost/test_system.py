"""Processes of the real machine: small ones, with short timeouts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Iterator

import pytest

from deployguard.onhost.excerpts import Bounded, bounded, last_line, shorten
from deployguard.onhost.system import NOT_FOUND, System

system = System()


def test_a_program_gives_status_and_output() -> None:
    """Both streams, the status, and our own additions to the environment."""
    script = "import os,sys; print(os.environ['A']); print('e', file=sys.stderr); sys.exit(3)"
    result = system.run([sys.executable, "-c", script], env={"A": "b"}, timeout=30.0)
    assert (result.status, result.stdout, result.stderr) == (3, b"b\n", b"e\n")
    assert not result.timed_out and not result.ok
    assert result.describe().endswith("ended with status 3: e")


def test_arguments_never_meet_a_shell() -> None:
    """What looks like shell stays text."""
    result = system.run(["printf", "%s", "$(id); `id` > x"], timeout=10.0)
    assert result.text == "$(id); `id` > x"


@pytest.mark.parametrize("argv", [["/no/such/program"], ["a\0b"]])
def test_a_program_that_cannot_be_started_is_a_result(argv: list[str]) -> None:
    """Never an exception: what ran the check must go on."""
    result = system.run(argv, timeout=10.0)
    assert result.status in (126, 127)
    assert b"cannot run" in result.stderr


def test_a_missing_directory_and_an_unknown_user_are_results(tmp_path: Path) -> None:
    """The message names what is missing."""
    result = system.run(["true"], cwd=str(tmp_path / "gone"), timeout=10.0)
    assert result.status == NOT_FOUND and b"gone" in result.stderr
    result = system.run(["true"], user="nobody-of-that-name", timeout=10.0)
    assert result.status == NOT_FOUND and b"nobody-of-that-name" in result.stderr


def test_a_timeout_kills_the_whole_group(tmp_path: Path) -> None:
    """The child that the program started dies with it, though it ignores SIGTERM."""
    pid_file = tmp_path / "pid"
    script = 'trap "" TERM; sleep 300 & echo $! > "$0"; wait; sleep 300'
    result = system.run(["sh", "-c", script, str(pid_file)], timeout=0.5, grace=0.1)
    assert result.timed_out and result.status == -signal.SIGKILL
    assert result.seconds < 5.0
    assert gone(int(pid_file.read_text()))


def gone(pid: int) -> bool:
    """The kernel takes its time to end a process that was killed."""
    until = system.monotonic() + 10.0
    while system.process_start_time(pid) is not None and system.monotonic() < until:
        os.sched_yield()
    return system.process_start_time(pid) is None


def test_a_program_on_a_leash_dies_with_whoever_ran_it(tmp_path: Path) -> None:
    """Nobody is left to stop it, and a restore may be at work already."""
    pid_file = tmp_path / "pid"
    script = (
        "import sys; from deployguard.onhost.system import System; "
        "System().run(['sh', '-c', 'echo $$ > $0; mv $0 $1; exec sleep 300', *sys.argv[1:]],"
        " timeout=300.0, leashed=True)"
    )
    words = [sys.executable, "-c", script, str(tmp_path / "new"), str(pid_file)]
    program = subprocess.Popen(words)
    until(pid_file.exists)
    program.kill()
    program.wait()
    until(lambda: gone(int(pid_file.read_text())))


def until(condition: Callable[[], bool]) -> None:
    """Return when it holds."""
    deadline = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_output_before_a_timeout_is_kept() -> None:
    """The last words of what hangs are evidence."""
    result = system.run(["sh", "-c", "echo word; sleep 300"], timeout=0.5, grace=0.1)
    assert result.timed_out and result.stdout == b"word\n"


def test_a_daemon_left_behind_does_not_hold_us() -> None:
    """A start command returns although its daemon inherited the pipes, and the daemon lives."""
    result = system.run(["sh", "-c", "sleep 300 & echo $!"], timeout=30.0)
    pid = int(result.text)
    try:
        assert result.ok and result.seconds < 10.0
        assert system.process_start_time(pid) is not None
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_flood_is_kept_at_both_ends() -> None:
    """Head and tail, in whole lines, and how much is missing."""
    result = system.run(["seq", "100000"], timeout=30.0, max_output=60)
    lines = result.text.splitlines()
    assert lines[0] == "1" and lines[-1] == "100000"
    assert any(line.endswith("bytes left out ...]") for line in lines)
    assert len(result.stdout) < 120


def test_input_larger_than_a_pipe_arrives() -> None:
    """Reading and writing at once, or both sides would wait for ever."""
    data = b"x" * 300_000
    assert system.run(["cat"], input=data, timeout=30.0).stdout == data
    assert system.run(["true"], input=data, timeout=30.0).ok


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_program_runs_as_another_user() -> None:
    """With that user's groups and home, not ours."""
    script = 'id -un; id -G; echo "$USER"'
    result = system.run(["sh", "-c", script], user="nobody", timeout=30.0)
    name, groups, variable = result.text.splitlines()
    assert (name, variable) == ("nobody", "nobody")
    assert "0" not in groups.split()


@pytest.fixture
def spawned() -> Iterator[list[int]]:
    """Pids to end after the test."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        if system.process_start_time(pid) is not None:
            os.killpg(pid, signal.SIGKILL)


def test_a_detached_program_stands_alone(tmp_path: Path, spawned: list[int]) -> None:
    """A session of its own, a child of somebody else, nothing of ours open, output in the log."""
    log = tmp_path / "log"
    log.write_text("before\n")
    with open(os.devnull, "rb") as held:
        os.set_inheritable(held.fileno(), True)
        script = "echo word; ls /proc/$$/fd; echo end; exec sleep 300"
        pid = system.spawn_detached(["sh", "-c", script], log_path=str(log), cwd=str(tmp_path))
        spawned.append(pid)
        until = system.monotonic() + 30.0
        while "end" not in log.read_text() and system.monotonic() < until:
            os.sched_yield()
        assert str(held.fileno()) not in log.read_text().split()[2:]
    assert log.read_text().splitlines()[:2] == ["before", "word"]
    assert os.getsid(pid) == pid
    status = Path(f"/proc/{pid}/status").read_text()
    parent = next(line.split()[1] for line in status.splitlines() if line.startswith("PPid"))
    assert int(parent) != os.getpid()


def test_a_detached_program_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    """The exec is two forks away, and still it is heard of."""
    with pytest.raises(FileNotFoundError):
        system.spawn_detached(["/no/such/program"], log_path=str(tmp_path / "log"))


def test_a_pid_is_no_identity() -> None:
    """The start time is one, and a zombie has ended."""
    mine = system.process_start_time(os.getpid())
    assert mine is not None
    assert system.alive(os.getpid(), mine)
    assert not system.alive(os.getpid(), mine - 1)
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert system.process_start_time(child) is None
    os.waitpid(child, 0)
    assert system.process_start_time(2**22 + 1) is None


def test_lanes_report_results_and_exceptions_as_they_end() -> None:
    """A call that fails is a value, and an empty wait is not an error."""
    lanes = system.lanes()
    lanes.start("good", lambda: 1)
    assert lanes.wait(10.0) == ("good", 1)
    lanes.start("bad", lambda: 1 // 0)
    arrived = lanes.wait(10.0)
    assert arrived is not None and isinstance(arrived[1], ZeroDivisionError)
    assert lanes.wait(0.0) is None


def test_clocks_and_boot() -> None:
    """The monotonic clock goes on; the boot has an id."""
    first = system.monotonic()
    assert system.monotonic() >= first
    assert system.now() > 1.6e9
    assert system.boot_id() == system.boot_id() != ""


def test_a_cut_falls_between_lines() -> None:
    """Half a secret would not be recognised by the redactor."""
    data = b"".join(b"line %d of the log\n" % number for number in range(100))
    cut = bounded(data, 200)
    assert len(cut) < 300
    for line in cut.splitlines():
        assert line.startswith(b"[...") or line + b"\n" in data
    assert bounded(b"short", 200) == b"short"


def test_a_stream_is_cut_the_same_in_any_pieces() -> None:
    """Byte by byte as in one piece."""
    data = b"".join(b"%d\n" % number for number in range(1000))
    keeper = Bounded(100)
    for index in range(len(data)):
        keeper.add(data[index : index + 1])
    assert keeper.truncated
    assert keeper.value() == bounded(data, 100)


def test_a_text_is_cut_between_words_or_not_kept() -> None:
    """The start of a token is not shown when the end is lost."""
    assert shorten("short", 10) == "short"
    assert shorten("one two three", 9) == "one two ..."
    assert shorten("postgres://user:secret@host", 20) == " ..."
    assert last_line("a\n\n b \n", 10) == "b"
