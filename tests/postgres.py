"""A real PostgreSQL of a test's own: a cluster in a folder, stopped as the test likes."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def programs() -> Path:
    """Where the server's programs are; skips the test where there are none, but never in CI."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        reason = "PostgreSQL is missing: apt-get install postgresql"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found[-1].parent


class Postgres:
    """One server. It refuses to run as root, so root runs it as ``postgres``."""

    def __init__(self, folder: Path) -> None:
        self._bin = programs()
        self.folder = folder
        self.data = folder / "data"
        folder.mkdir(mode=0o755)
        self._user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        # Another program may take the port before the server does; then it does not start.
        with socket.create_server(("127.0.0.1", 0)) as chosen:
            self.port = int(chosen.getsockname()[1])
        self._run("initdb", "--auth=trust", "--username=deployer", "--no-instructions")
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(f"port = {self.port}\nlisten_addresses = '127.0.0.1'\n")
            file.write(f"unix_socket_directories = '{folder}'\n")

    @property
    def url(self) -> str:
        """What ``--journal`` is given."""
        return f"postgresql://deployer@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start, and wait until it answers."""
        self._run("pg_ctl", "start", "--wait", "--timeout=300", f"--log={self.folder}/log")

    def stop(self, mode: str = "immediate") -> None:
        """Stop; ``immediate`` is a crash."""
        self._run("pg_ctl", "stop", "--wait", f"--mode={mode}")

    def running(self) -> bool:
        """Whether it runs."""
        return self._run("pg_ctl", "status", check=False) == 0

    def _run(self, program: str, *arguments: str, check: bool = True) -> int:
        argv = [str(self._bin / program), f"--pgdata={self.data}", *arguments]
        if os.geteuid() == 0:
            argv = ["setpriv", f"--reuid={self._user}", "--regid=postgres", "--init-groups", *argv]
        done = subprocess.run(
            argv,
            cwd=self.folder,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert not check or done.returncode == 0, done.stderr
        return done.returncode


@contextmanager
def a_server(configure: Callable[[Postgres], None] | None = None) -> Iterator[Postgres]:
    """A server that runs, in a folder that its own user can reach; gone at the end.

    ``configure`` is called before it starts.
    """
    programs()
    base = Path(tempfile.mkdtemp(prefix="deployguard-postgres-", dir="/var/tmp"))
    base.chmod(0o755)
    try:
        server = Postgres(base / "cluster")
        if configure is not None:
            configure(server)
        server.start()
        try:
            yield server
        finally:
            if server.running():
                server.stop()
    finally:
        shutil.rmtree(base)
