"""One booted systemd-nspawn container: start it, find its init, run something in it, end it.

The container's own view of itself is reached through its namespaces, never through SSH, so that
what a test asserts does not depend on what it tests.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.fleet import cgroup

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "USER": "root",
    "LOGNAME": "root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "SYSTEMD_PAGER": "",
}
RUNNING = {"running", "degraded"}


class BootFailed(Exception):
    """A host did not come up; the message ends with its console."""


def until(condition: Callable[[], bool], deadline: float, interval: float = 0.02) -> bool:
    """Poll `condition` until it holds or `deadline` (monotonic) has passed."""
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return True


class Container:
    """A machine name, the directory it boots from and the control group it runs in."""

    def __init__(self, machine: str, hostname: str, root: Path, group: cgroup.Cgroup) -> None:
        self.machine = machine
        self.hostname = hostname
        self.root = root
        self.console = root.parent / "console.log"
        self._group = group
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, namespace: Path) -> None:
        """Begin to boot, in the network namespace given."""
        self._group.create()
        # The host's network is its own, and so are the kernel's settings for it.
        own = {"SYSTEMD_NSPAWN_TMPFS_TMP": "0", "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"}
        environment = {**os.environ, **own}
        if cgroup.unified():
            environment["SYSTEMD_NSPAWN_UNIFIED_HIERARCHY"] = "1"
        # The shell joins the control group before anything can be started in the wrong one.
        groups = [str(directory / "cgroup.procs") for directory in self._group.directories]
        join = 'while [ "$1" != -- ]; do echo $$ > "$1" || exit; shift; done; shift; exec "$@"'
        nspawn = [
            "systemd-nspawn",
            "--quiet",
            f"--directory={self.root}",
            "--boot",
            f"--network-namespace-path={namespace}",
            "--capability=CAP_NET_ADMIN",
            # What a container engine on the host asks for.
            "--system-call-filter=@keyring bpf",
            "--register=no",
            "--keep-unit",
            f"--machine={self.machine}",
            f"--hostname={self.hostname}",
            "--resolv-conf=off",
            "--timezone=off",
            "--link-journal=no",
            "--console=read-only",
            "systemd.show_status=yes",
        ]
        with self.console.open("ab") as console:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", join, "sh", *groups, "--", *nspawn],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    def await_booted(self, reachable: Callable[[], bool], timeout: float) -> None:
        """Return once the host answers and its systemd has nothing left to start."""
        deadline = time.monotonic() + timeout

        def ended() -> bool:
            return self._process is not None and self._process.poll() is not None

        def settled() -> bool:
            state = self.run(["systemctl", "is-system-running", "--wait"], check=False)
            return state.stdout.decode().strip() in RUNNING

        if not until(lambda: ended() or reachable(), deadline) or ended():
            raise BootFailed(self._failure("does not answer on port 22"))
        if not until(settled, deadline):
            raise BootFailed(self._failure("answers, but its systemd does not settle"))

    def leader(self) -> int | None:
        """The process id, out here, of the container's init; None when it is not running."""
        for pid in sorted(self._group.pids()):
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            # One id per pid namespace, outermost first: init is 1 in exactly one level below.
            ids = next((line for line in status.splitlines() if line.startswith("NSpid:")), "")
            if ids.split()[2:] == ["1"]:
                return pid
        return None

    def run(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        check: bool = True,
        input: bytes | None = None,  # noqa: A002 - the name subprocess.run gives it
        timeout: float | None = 120.0,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command as root inside, in every namespace of the container."""
        leader = self.leader()
        if leader is None:
            raise ProcessLookupError(f"{self.machine} is not running")
        enter = ["nsenter", "-t", str(leader), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--"]
        return subprocess.run(
            [*enter, *argv],
            check=check,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            timeout=timeout,
            env=ENVIRONMENT,
        )

    def kill(self) -> None:
        """SIGKILL the init, with which the kernel ends everything inside, and wait for the end."""
        leader = self.leader()
        if leader is not None:
            os.kill(leader, signal.SIGKILL)
        if self._process is not None:
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        self._group.kill()
        # nspawn does not remove its own directory where /run is not a tmpfs.
        shutil.rmtree(Path("/run/systemd/nspawn/propagate", self.machine), ignore_errors=True)

    def _failure(self, what: str) -> str:
        console = self.console.read_text(errors="replace") if self.console.exists() else ""
        return f"{self.machine} {what}. Its console ({self.console}):\n{console[-4000:]}"
