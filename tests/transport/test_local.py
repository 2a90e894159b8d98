"""The bootstrap and the host program as children of the tests."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deployguard.errors import Unreachable
from deployguard.plan.model import Host
from deployguard.transport import payload, registry
from deployguard.transport.payload import Program
from deployguard.transport.session import Session
from tests.transport.conftest import fake_program


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory that is not there yet."""
    return tmp_path / "deep" / "state"


def connect(state: Path, program: Program, **changes: object) -> Session:
    """A session with ``program`` here, its state in ``state``."""
    fields = {"transport": "local", "state_directory": str(state), **changes}
    return registry.connect("here", Host.model_validate(fields), program=program)


def versions(state: Path) -> set[str]:
    """What stands in the program directory."""
    return {path.name for path in (state / "program").iterdir()}


def test_the_archive_is_the_same_every_time(tmp_path: Path) -> None:
    """The same files give the same hash, other files another."""
    first, second = fake_program(tmp_path / "a"), fake_program(tmp_path / "b")
    assert first == second
    assert first.sha256 != fake_program(tmp_path / "c", "2").sha256


def test_the_installed_program_is_packed_once() -> None:
    """The host program comes from the package, in one piece, once per process."""
    assert payload.host_program() is payload.host_program()
    assert payload.host_program().length > 10_000


def test_the_command_line_survives_every_shell() -> None:
    """No newline, quote, backslash or exclamation mark for any shell to trip over."""
    argv = payload.command("python3", b"x" * 4000, become=True)
    assert argv[:4] == ["sudo", "-n", "--", "python3"]
    line = payload.shell_line(argv)
    assert not set(line.replace("'", "", 2)) & set("\n'\\!`$")
    assert len(line) < 200


def test_the_program_is_installed_once(state: Path, program: Program) -> None:
    """The second start finds the program compiled, in a private directory."""
    with connect(state, program) as first:
        assert first.hello["state"] == str(state)
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    home = state / "program" / program.sha256
    cached = Path(first.hello["cached"])
    assert cached.is_relative_to(home)
    written = cached.stat().st_mtime_ns
    with connect(state, program) as second:
        assert second.hello["home"] == str(home)
    assert cached.stat().st_mtime_ns == written
    assert versions(state) == {program.sha256}


@pytest.mark.parametrize("version", ["3.8", "3.13"])
def test_other_pythons_run_it(state: Path, program: Program, version: str) -> None:
    """The bootstrap runs under the oldest Python that hosts may have, and a new one."""
    found = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    if not found:
        pytest.skip(f"no Python {version} here")
    with connect(state, program, python=str(found[0])) as session:
        assert session.hello["python"] == [int(part) for part in version.split(".")]


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.7"])
def test_an_old_python_is_named(state: Path, program: Program, version: str) -> None:
    """A Python that is too old is an error that says so, not a syntax error."""
    found = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    if not found:
        pytest.skip(f"no Python {version} here")
    with pytest.raises(Unreachable, match=r"3\.8 or later is needed") as caught:
        connect(state, program, python=str(found[0]))
    assert "`python`" in caught.value.hint


def test_no_python(state: Path, program: Program) -> None:
    """A Python that is not there is named."""
    with pytest.raises(Unreachable, match="/nowhere/python3 could not be run"):
        connect(state, program, python="/nowhere/python3")


def test_the_default_state_directory(tmp_path: Path, program: Program) -> None:
    """Without a directory in the plan, XDG says where; root's place is fixed."""
    script = "src = open(0).read(); ns = {}; exec(src, ns); print(ns['state_directory'](''))"
    env = {"XDG_STATE_HOME": str(tmp_path), "HOME": "/home/none"}
    source = (Path(payload.__file__).parent / "bootstrap.py").read_text()
    for uid, expected in ((0, "/var/lib/deployguard"), (1000, f"{tmp_path}/deployguard")):
        fixed = source.replace("os.geteuid()", str(uid))
        argv = [sys.executable, "-c", script]
        done = subprocess.run(
            argv, input=fixed, env=env, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == expected


def test_a_state_directory_others_can_write(state: Path, program: Program) -> None:
    """Somebody may have put a program there, so it is refused."""
    state.mkdir(parents=True)
    state.chmod(0o770)
    with pytest.raises(Unreachable, match="others may write"):
        connect(state, program)


def test_a_state_directory_others_can_read(state: Path, program: Program) -> None:
    """Nobody can have put anything there; it is made private."""
    state.mkdir(parents=True)
    state.chmod(0o755)
    connect(state, program).close()
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_a_state_directory_that_is_a_link(state: Path, program: Program) -> None:
    """A link may lead to somebody else's directory."""
    state.parent.mkdir()
    (state.parent / "real").mkdir(mode=0o700)
    state.symlink_to("real")
    with pytest.raises(Unreachable, match="not a real directory"):
        connect(state, program)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_state_directory_of_somebody_else(state: Path, program: Program) -> None:
    """The owner of the directory owns what we would run."""
    state.mkdir(parents=True, mode=0o700)
    os.chown(state, 12345, -1)
    with pytest.raises(Unreachable, match="belongs to uid 12345"):
        connect(state, program)


def test_two_installs_at_once(state: Path, program: Program) -> None:
    """Whoever comes first, all of them run."""
    with ThreadPoolExecutor(6) as pool:
        sessions = list(pool.map(lambda _: connect(state, program), range(6)))
    assert len({session.hello["pid"] for session in sessions}) == 6
    for session in sessions:
        session.close()
    assert versions(state) == {program.sha256}


def test_old_versions_go_unless_they_run(state: Path, tmp_path: Path) -> None:
    """The three last used stay, and so does one that is running."""
    programs = [fake_program(tmp_path / f"p{n}", str(n)) for n in range(6)]
    running = connect(state, programs[0])
    for number, program in enumerate(programs[1:], start=1):
        connect(state, program).close()
        os.utime(state / "program" / program.sha256, (number, number))
        if number == 1:
            os.utime(state / "program" / programs[0].sha256, (0, 0))
    assert versions(state) == {programs[n].sha256 for n in (0, 3, 4, 5)}
    assert running.call("echo") == {}
    running.close()


def test_leftovers_of_a_crash_go(state: Path, program: Program) -> None:
    """An hour later nobody is still unpacking."""
    leftover, recent = (state / "program" / name for name in (".new-old", ".new-now"))
    for path in (leftover, recent):
        path.mkdir(parents=True)
    state.chmod(0o700)
    os.utime(leftover, (1, 1))
    connect(state, program).close()
    assert versions(state) == {program.sha256, recent.name}


def test_a_damaged_archive_is_refused(state: Path, program: Program) -> None:
    """What does not hash to its name is not run."""
    document = json.dumps({"deployguard/__init__.py": "evil"}).encode()
    other = Program("0" * 64, program.archive, len(document))
    with pytest.raises(Unreachable, match="damaged"):
        connect(state, other)
    assert versions(state) == set()


def test_a_program_that_cannot_start(state: Path, tmp_path: Path) -> None:
    """A traceback before the hello reaches the person at the controller."""
    source = tmp_path / "broken"
    source.mkdir()
    (source / "serve.py").write_text("import nonsense_module\n")
    with pytest.raises(Unreachable, match="No module named 'nonsense_module'"):
        connect(state, payload.pack(source))


def test_prints_do_not_disturb_the_frames(state: Path, program: Program) -> None:
    """What the program or its children print goes to the log."""
    with connect(state, program) as session:
        session.call("print", {"text": "hello there"})
        assert session.call("echo", {"n": 1}) == {"n": 1}


def test_it_outlives_the_connection(state: Path, program: Program) -> None:
    """Closing does not kill the program, which may have a restore to do."""
    session = connect(state, program)
    with pytest.raises(Exception, match="no answer in time"):
        session.call("stay", timeout=0.3)
    until = time.monotonic() + 5
    while not (state / "sign").exists():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_it_is_out_of_reach_of_ctrl_c(state: Path, program: Program) -> None:
    """The terminal's signals go to our session, which is not the program's."""
    with connect(state, program) as session:
        assert os.getsid(session.hello["pid"]) != os.getsid(0)


def test_nothing_is_left_behind(state: Path, program: Program) -> None:
    """A closed session has no process and no descriptor of ours."""
    connect(state, program).close()
    time.sleep(0.3)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        session = connect(state, program)
        session.close()
    until = time.monotonic() + 5
    while (
        len(os.listdir("/proc/self/fd")) > before or Path(f"/proc/{session.hello['pid']}").exists()
    ):
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("script", "match"),
    [
        ("echo 'sudo: a password is required' >&2; exit 1", "would not run without asking"),
        ("echo 'sudo: python3: command not found' >&2; exit 1", "python3 was not found"),
        ('shift 2; exec "$@"', None),
    ],
)
def test_become(
    state: Path,
    program: Program,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    script: str,
    match: str | None,
) -> None:
    """With ``become`` the program runs through ``sudo -n``, and what sudo says is understood."""
    sudo = tmp_path / "bin" / "sudo"
    sudo.parent.mkdir()
    sudo.write_text(f"#!/bin/sh\n{script}\n")
    sudo.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sudo.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("deployguard.transport.local.os.geteuid", lambda: 1000)
    if match is None:
        with connect(state, program, become=True) as session:
            assert session.call("echo") == {}
        return
    with pytest.raises(Unreachable, match=match) as caught:
        connect(state, program, become=True)
    assert caught.value.hint
