"""A real sshd on 127.0.0.1, on a port of its own, with its own keys; no root needed.

It lets the user who runs the tests in, with a key made for the occasion. What a login shell does
is played by ``ForceCommand``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from deployguard.plan.model import Host

__all__ = ["Sshd", "free_port", "keypair", "running_sshd"]

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"

_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UseDNS no
MaxStartups 200
MaxSessions 50
LogLevel VERBOSE
{extra}
"""


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def keypair(path: Path, *, passphrase: str = "") -> Path:
    """A new ed25519 key at ``path`` and its public half beside it."""
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", path.name, "-f", str(path)]
    subprocess.run(argv, check=True)
    return path


class Sshd:
    """One running sshd."""

    def __init__(self, directory: Path, extra: str) -> None:
        self.directory = directory
        self.port = free_port()
        self.user = (
            os.environ.get("USER") or subprocess.check_output(["id", "-un"], text=True).strip()
        )
        self.key = keypair(directory / "user_key")
        keypair(directory / "host_key")
        shutil.copy(f"{self.key}.pub", directory / "authorized_keys")
        self.known_hosts = directory / "known_hosts"
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {self.host_key}\n")
        # Not the tester's own ssh_config, nor what it says about 127.0.0.1.
        self.ssh_config = directory / "ssh_config"
        self.ssh_config.write_text("")
        config = directory / "sshd_config"
        config.write_text(_CONFIG.format(port=self.port, directory=directory, extra=extra))
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host_key(self) -> str:
        """Kind and key, without the comment."""
        return " ".join((self.directory / "host_key.pub").read_text().split()[:2])

    def host(self, **changes: object) -> Host:
        """How a plan names this host; ``changes`` replace fields."""
        fields: dict[str, object] = {
            "address": "127.0.0.1",
            "port": self.port,
            "user": self.user,
            "identity_file": str(self.key),
            "known_hosts": str(self.known_hosts),
            "ssh_config": str(self.ssh_config),
            "state_directory": str(self.directory / "state"),
            "connect_deadline": 5,
        }
        return Host.model_validate({**fields, **changes})

    def start(self) -> None:
        """Listen; returns when connections are taken."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with (self.directory / "sshd.log").open("ab") as errors:
            self._process = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", str(self._config)], stdin=subprocess.DEVNULL, stderr=errors
            )
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.02)
        raise RuntimeError((self.directory / "sshd.log").read_text())

    def stop(self) -> None:
        """Stop listening, and cut what is connected."""
        if self._process is not None:
            self.cut()
            self._process.terminate()
            self._process.wait()
            self._process = None

    def cut(self) -> None:
        """Kill the processes that serve connections, as a crash or an OOM killer would."""
        assert self._process is not None
        for pid in _below(self._process.pid):
            if _name(pid).startswith("sshd"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _below(pid: int) -> list[int]:
    """All descendants of ``pid``."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [int(child), *_below(int(child))]
    return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


@contextlib.contextmanager
def running_sshd(directory: Path, extra: str = "") -> Iterator[Sshd]:
    """An sshd with everything it needs in ``directory``, until the block ends."""
    directory.mkdir(parents=True, exist_ok=True)
    sshd = Sshd(directory, extra)
    sshd.start()
    try:
        yield sshd
    finally:
        sshd.stop()
