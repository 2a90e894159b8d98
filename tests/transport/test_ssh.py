"""The transport against a real sshd."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployguard.errors import ConnectionLost, Unreachable
from deployguard.plan.model import Host
from deployguard.transport import registry
from deployguard.transport.payload import Program
from deployguard.transport.session import Session
from tests.transport.sshd import Sshd, free_port, keypair, running_sshd


@pytest.fixture(autouse=True)
def _no_agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the tester's agent nor the tester's keys."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def session(sshd: Sshd, program: Program) -> Iterator[Session]:
    """A session with the fake program, over SSH."""
    with registry.connect("web1", sshd.host(), program=program) as opened:
        yield opened


def refused(host: Host, program: Program) -> Unreachable:
    """Why there is no session with ``host``."""
    with pytest.raises(Unreachable) as caught:
        registry.connect("web1", host, program=program)
    return caught.value


def test_a_call_and_an_upload(session: Session) -> None:
    """20 MB come over intact and in a moment; a quadratic send would take seconds."""
    data = os.urandom(20_000_000)
    chunks = (data[start : start + 500_000] for start in range(0, len(data), 500_000))
    started = time.monotonic()
    result = session.call("upload", stream=chunks, timeout=60)
    assert result == {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    assert time.monotonic() - started < 5


def test_events_during_an_upload(session: Session) -> None:
    """The program's progress reports do not block either side."""
    seen: list[object] = []
    data = [bytes(65_000)] * 64
    session.call("upload", {"events": 100}, stream=data, on_event=seen.append, timeout=60)
    assert len(seen) >= 6000


def test_a_download(session: Session) -> None:
    """Bytes come back whole."""
    _, pieces = session.call_stream("download", {"size": 20_000_000}, timeout=60)
    assert sum(map(len, pieces)) == 20_000_000


def test_heartbeats_during_a_long_call(session: Session) -> None:
    """The lease is renewed while the program is busy."""
    session.keep_alive(0.05)
    assert session.call("sleep", {"seconds": 0.5})["beats"] >= 5


def test_answers_are_prompt(session: Session) -> None:
    """Many small packets are not held back by Nagle and a delayed acknowledgement."""
    session.call("echo")
    started = time.monotonic()
    for number in range(50):
        session.call("upload", {"events": 3}, stream=[b"x"])
        assert session.call("echo", {"n": number}) == {"n": number}
    assert time.monotonic() - started < 1


def test_a_crash_shows_its_last_words(session: Session) -> None:
    """The end of the program's stderr and its exit status are in the error."""
    with pytest.raises(ConnectionLost, match="a bug on the host") as caught:
        session.call("crash")
    assert "exit status 1" in str(caught.value)


def test_a_connection_cut_in_the_middle(tmp_path: Path, program: Program) -> None:
    """A call that is under way when the connection breaks ends at once."""
    with running_sshd(tmp_path / "sshd") as sshd:
        session = registry.connect("web1", sshd.host(), program=program)
        threading.Timer(0.2, sshd.cut).start()
        started = time.monotonic()
        with pytest.raises(ConnectionLost, match="lost during sleep"):
            session.call("sleep", {"seconds": 30}, timeout=60)
        assert time.monotonic() - started < 5


def test_the_program_outlives_the_connection(tmp_path: Path, program: Program) -> None:
    """The host program sees the end of its input, not a signal."""
    with running_sshd(tmp_path / "sshd") as sshd:
        session = registry.connect("web1", sshd.host(), program=program)
        with pytest.raises(ConnectionLost):
            session.call("stay", timeout=0.3)
        sign = sshd.directory / "state" / "sign"
        until = time.monotonic() + 5
        while not sign.exists():
            assert time.monotonic() < until
            time.sleep(0.01)


def test_a_noisy_login_shell(tmp_path: Path, program: Program) -> None:
    """What a profile prints, with or without a newline, is skipped."""
    noise = 'echo Welcome; echo noise >&2; printf "no newline"; eval "$SSH_ORIGINAL_COMMAND"'
    with (
        running_sshd(tmp_path / "sshd", f"ForceCommand {noise}") as sshd,
        registry.connect("web1", sshd.host(), program=program) as session,
    ):
        assert session.call("echo", {"a": 1}) == {"a": 1}


@pytest.mark.parametrize(
    ("command", "match"),
    [
        ("echo This account is not available.; exit 1", "ended with exit status 1"),
        ("yes", "without an answer"),
        ("exec nowhere-python", "python3 could not be run"),
        ("echo 'sudo: a terminal is required' >&2; exit 1", "would not run without asking"),
    ],
)
def test_a_start_that_fails(tmp_path: Path, program: Program, command: str, match: str) -> None:
    """A shell that does something else is reported with what it said."""
    with running_sshd(tmp_path / "sshd", f"ForceCommand {command}") as sshd:
        error = refused(sshd.host(), program)
    assert match in str(error)
    assert error.hint


def test_a_host_key_that_changed(tmp_path: Path, sshd: Sshd, program: Program) -> None:
    """A known host with another key is refused at once, with the line and the mend."""
    other = Path(f"{keypair(tmp_path / 'other')}.pub").read_text()
    known = tmp_path / "known_hosts"
    known.write_text(f"\n[127.0.0.1]:{sshd.port} {other}")
    started = time.monotonic()
    error = refused(sshd.host(known_hosts=str(known)), program)
    assert "is not the known one" in str(error)
    assert f"{known}:2" in str(error)
    assert error.hint.endswith(f"ssh-keygen -R '[127.0.0.1]:{sshd.port}' -f {known}")
    assert time.monotonic() - started < 2


def test_an_unknown_host_key(tmp_path: Path, sshd: Sshd, program: Program) -> None:
    """The fingerprint is that of OpenSSH, and the hint, done as it says, mends it."""
    known = tmp_path / "known_hosts"
    error = refused(sshd.host(known_hosts=str(known)), program)
    argv = ["ssh-keygen", "-lf", str(sshd.directory / "host_key.pub")]
    assert subprocess.check_output(argv, text=True).split()[1] in str(error)
    subprocess.run(["sh", "-c", error.hint.partition("keyscan would: ")[2]], check=True)
    registry.connect("web1", sshd.host(known_hosts=str(known)), program=program).close()


def test_accept_new(tmp_path: Path, sshd: Sshd, program: Program) -> None:
    """The key is taken on first sight, written down, and then held to."""
    known = tmp_path / "known_hosts"
    fields = {"known_hosts": str(known), "host_key_checking": "accept_new"}
    registry.connect("web1", sshd.host(**fields), program=program).close()
    assert known.read_text() == f"[127.0.0.1]:{sshd.port} {sshd.host_key}\n"
    registry.connect("web1", sshd.host(known_hosts=str(known)), program=program).close()
    known.write_text(known.read_text().replace("AAAA", "AAAB"))
    assert "is not the known one" in str(refused(sshd.host(**fields), program))


def test_checking_off(tmp_path: Path, sshd: Sshd, program: Program) -> None:
    """Any key will do, and none is written down."""
    known = tmp_path / "known_hosts"
    fields = {"known_hosts": str(known), "host_key_checking": "off"}
    registry.connect("web1", sshd.host(**fields), program=program).close()
    assert not known.exists()


def test_hashed_known_hosts(tmp_path: Path, sshd: Sshd, program: Program) -> None:
    """A file that ssh-keygen has hashed does as well."""
    known = tmp_path / "known_hosts"
    known.write_text(sshd.known_hosts.read_text())
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(known)], check=True, capture_output=True)
    registry.connect("web1", sshd.host(known_hosts=str(known)), program=program).close()


def test_a_key_the_server_does_not_take(tmp_path: Path, sshd: Sshd, program: Program) -> None:
    """A refused login is final: who and with what, and no second try."""
    started = time.monotonic()
    key = keypair(tmp_path / "stranger")
    error = refused(sshd.host(identity_file=str(key)), program)
    assert f"login as {sshd.user} was refused: tried {key}" in str(error)
    assert time.monotonic() - started < 3


def test_a_key_that_is_not_there(tmp_path: Path, sshd: Sshd, program: Program) -> None:
    """A wrong path in the plan is named."""
    error = refused(sshd.host(identity_file=str(tmp_path / "gone")), program)
    assert f"{tmp_path / 'gone'} is not there" in str(error)


def test_a_key_with_a_passphrase(
    tmp_path: Path, sshd: Sshd, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the agent the error says so; with it the key works."""
    key = tmp_path / "locked"
    key.write_bytes(sshd.key.read_bytes())
    key.chmod(0o600)
    Path(f"{key}.pub").write_bytes(Path(f"{sshd.key}.pub").read_bytes())
    change = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret phrase", "-f", str(key)]
    subprocess.run(change, check=True, capture_output=True)
    error = refused(sshd.host(identity_file=str(key)), program)
    assert "has a passphrase and is not in the agent" in str(error)
    assert f"ssh-add {key}" in str(error)

    agent = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(agent)], stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 5
        while not agent.exists() and time.monotonic() < until:
            time.sleep(0.01)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
        subprocess.run(["ssh-add", "-q", str(sshd.key)], check=True)
        registry.connect("web1", sshd.host(identity_file=str(key)), program=program).close()
        registry.connect("web1", sshd.host(identity_file=None), program=program).close()
    finally:
        process.terminate()
        process.wait()


def test_the_default_key(sshd: Sshd, program: Program) -> None:
    """Without a word in plan or ssh_config, ``~/.ssh/id_*`` are tried."""
    assert "there was no key to try" in str(refused(sshd.host(identity_file=None), program))
    home = Path(os.environ["HOME"]) / ".ssh"
    home.mkdir(parents=True)
    (home / "id_ed25519").write_bytes(sshd.key.read_bytes())
    registry.connect("web1", sshd.host(identity_file=None), program=program).close()


def test_a_host_of_ssh_config(tmp_path: Path, sshd: Sshd, program: Program) -> None:
    """An alias gives address, port, user, key, known_hosts and the name of the host key."""
    known = tmp_path / "known_hosts"
    known.write_text(f"shop-web {sshd.host_key}\n")
    config = tmp_path / "config"
    config.write_text(
        f"Host web1\n HostName 127.0.0.1\n Port {sshd.port}\n User {sshd.user}\n"
        f" IdentityFile {sshd.key}\n UserKnownHostsFile {known}\n HostKeyAlias shop-web\n"
    )
    host = Host.model_validate(
        {"ssh_config": str(config), "state_directory": str(sshd.directory / "state")}
    )
    with registry.connect("web1", host, program=program) as session:
        assert session.call("echo") == {}


@pytest.fixture
def hidden(tmp_path: Path, program: Program) -> Iterator[tuple[Sshd, Sshd, Path]]:
    """A jump host, a host behind it, and a known_hosts file with both."""
    with (
        running_sshd(tmp_path / "jump", "AllowTcpForwarding yes") as jump,
        running_sshd(tmp_path / "inner") as inner,
    ):
        jump_keys = (jump.directory / "user_key.pub").read_text()
        with (inner.directory / "authorized_keys").open("a") as keys:
            keys.write(jump_keys)
        known = tmp_path / "known_hosts"
        known.write_text(jump.known_hosts.read_text() + inner.known_hosts.read_text())
        yield jump, inner, known


def test_a_jump_host(hidden: tuple[Sshd, Sshd, Path], program: Program) -> None:
    """The connection goes through the jump host of the plan, with the host's key."""
    jump, inner, known = hidden
    host = inner.host(
        jump=f"{jump.user}@127.0.0.1:{jump.port}",
        identity_file=str(jump.key),
        known_hosts=str(known),
    )
    with registry.connect("web1", host, program=program) as session:
        assert session.call("upload", stream=[bytes(2_000_000)])["size"] == 2_000_000
        jump.cut()
        with pytest.raises(ConnectionLost):
            session.call("sleep", {"seconds": 20})


def test_a_jump_host_of_ssh_config(
    hidden: tuple[Sshd, Sshd, Path], program: Program, tmp_path: Path
) -> None:
    """ProxyJump works, for all hosts and therefore for the jump host's own name as well."""
    jump, inner, known = hidden
    config = tmp_path / "config"
    config.write_text(
        f"Host bastion\n HostName 127.0.0.1\n Port {jump.port}\n IdentityFile {jump.key}\n"
        f"Host *\n ProxyJump bastion\n User {jump.user}\n"
    )
    host = inner.host(known_hosts=str(known), ssh_config=str(config), user=None)
    registry.connect("web1", host, program=program).close()
    assert "Accepted publickey" in (jump.directory / "sshd.log").read_text()


def test_a_jump_host_is_not_trusted_blindly(
    hidden: tuple[Sshd, Sshd, Path], program: Program
) -> None:
    """Its host key is checked like any other, and the error says whose it is."""
    jump, inner, _ = hidden
    host = inner.host(jump=f"{jump.user}@127.0.0.1:{jump.port}", identity_file=str(jump.key))
    error = refused(host, program)
    assert f"the host key of [127.0.0.1]:{jump.port} is not known" in str(error)


def test_behind_a_jump_host_nobody_listens(
    hidden: tuple[Sshd, Sshd, Path], program: Program
) -> None:
    """What the jump host could not reach is tried again, until the deadline."""
    jump, inner, known = hidden
    host = inner.host(
        jump=f"{jump.user}@127.0.0.1:{jump.port}",
        identity_file=str(jump.key),
        known_hosts=str(known),
        port=free_port(),
        connect_deadline=1,
    )
    assert "no SSH connection" in str(refused(host, program))
    assert (jump.directory / "sshd.log").read_text().count("Accepted publickey") > 1


def test_a_proxy_command(sshd: Sshd, program: Program, tmp_path: Path) -> None:
    """ProxyCommand carries the connection."""
    script = tmp_path / "carry.py"
    script.write_text(
        "import os, socket, sys, threading\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def up():\n"
        "    while d := os.read(0, 65536): s.sendall(d)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while d := s.recv(65536): os.write(1, d)\n"
    )
    config = tmp_path / "config"
    config.write_text(f"Host *\n ProxyCommand {sys.executable} {script} %h %p\n")
    host = sshd.host(ssh_config=str(config))
    with registry.connect("web1", host, program=program) as session:
        assert session.call("echo") == {}


def test_a_port_where_nobody_listens(sshd: Sshd, program: Program) -> None:
    """Refused is tried again until the deadline, then reported."""
    started = time.monotonic()
    error = refused(sshd.host(port=free_port(), connect_deadline=1), program)
    assert "Connection refused" in str(error)
    assert 0.3 < time.monotonic() - started < 2


def test_a_server_that_comes_back(tmp_path: Path, program: Program) -> None:
    """A host that is booting is waited for."""
    with running_sshd(tmp_path / "sshd") as sshd:
        sshd.stop()
        threading.Timer(0.5, sshd.start).start()
        registry.connect("web1", sshd.host(connect_deadline=10), program=program).close()


def test_a_server_that_says_nothing(sshd: Sshd, program: Program) -> None:
    """A port that takes the connection and keeps silent costs the deadline, not more."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        host = sshd.host(port=silent.getsockname()[1], connect_deadline=1)
        assert "no SSH connection" in str(refused(host, program))
        assert time.monotonic() - started < 3


def test_a_name_nobody_knows(sshd: Sshd, program: Program) -> None:
    """A typo in the address is named as such."""
    error = refused(sshd.host(address="nowhere.invalid", connect_deadline=1), program)
    assert "nowhere.invalid port" in str(error)
    assert "address" in error.hint


def test_paramiko_is_quiet(
    sshd: Sshd,
    program: Program,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No tracebacks of paramiko's threads; our own log is there for who asks."""
    with caplog.at_level(logging.DEBUG, "deployguard.transport"):
        refused(sshd.host(port=free_port(), connect_deadline=0.5), program)
    assert "connecting again" in caplog.text
    assert capfd.readouterr() == ("", "")


def test_an_idle_session_leaves_no_threads(sshd: Sshd, program: Program) -> None:
    """After closing, its threads and sockets are gone."""
    before = threading.active_count()
    with registry.connect("web1", sshd.host(), program=program) as session:
        session.keep_alive(0.1)
        session.call("echo")
    until = time.monotonic() + 5
    while threading.active_count() > before:
        assert time.monotonic() < until
        time.sleep(0.02)
