"""Run one command and say what it cost: time, processor time on both sides, and memory.

The command gets a control group of its own, so that what it leaves running for later (the SSH
masters of Ansible) is counted and afterwards ended. Where the kernel offers no such group the
figures of ``wait4`` stand in: the process and its children that have been waited for.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.fleet.cgroup import Cgroup

GROUP = "deployguard-bench"
TICKS = os.sysconf("SC_CLK_TCK")
CORES = os.cpu_count() or 1
SAMPLE_SECONDS = 0.05

# The shell joins the groups before it becomes the command, so nothing escapes them.
JOIN = 'while [ "$1" != -- ]; do echo $$ > "$1" || exit; shift; done; shift; exec "$@"'


@dataclass(frozen=True)
class Run:
    """How one command went. Seconds and MiB; ``None`` is what the machine could not tell."""

    code: int
    wall: float
    #: Processor seconds of the command and of all it started.
    cpu: float
    #: Processor seconds inside the hosts, their sshd included.
    hosts_cpu: float | None
    #: Processor seconds that nobody above used: the kernel's own work, and the neighbours'.
    elsewhere: float
    #: The resident size of the largest single process, as the kernel kept it (``ru_maxrss``).
    peak_process: float
    #: The most memory of their own (anonymous) that all processes together had at one time.
    peak_total: float | None
    #: What it printed, each line with the seconds since the start.
    lines: tuple[tuple[float, str], ...] = field(repr=False)
    errors: str = field(repr=False)

    @property
    def text(self) -> str:
        """Its standard output."""
        return "\n".join(line for _, line in self.lines)


def run(
    argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], fleet: str, timeout: float = 900.0
) -> Run:
    """Run a command to its end, and end what it left behind; never raises for its exit code."""
    unified = _group(GROUP)
    memory = Path("/sys/fs/cgroup/memory")
    memory = memory / GROUP if (memory / "memory.stat").exists() else Path("/nonexistent")
    if memory.parent.exists():
        memory.mkdir(exist_ok=True)
    groups = [path for path in (unified, memory) if path is not None and path.exists()]
    joins = [str(path / "cgroup.procs") for path in groups]
    with (cwd / "stderr.txt").open("w+") as errors:
        busy, hosts, own = _machine_busy(), _hosts_cpu(fleet), _cpu_of(unified)
        process = subprocess.Popen(
            ["/bin/sh", "-c", JOIN, "sh", *joins, "--", *argv],
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        began = time.monotonic()
        watch = _Watch(process, began, memory)
        try:
            code, usage = _wait(process.pid, began + timeout)
            wall = time.monotonic() - began
            busy, hosts_now, own_now = _machine_busy() - busy, _hosts_cpu(fleet), _cpu_of(unified)
        finally:
            _end_all(groups)
        lines = watch.end()
        process.returncode = code
        errors.seek(0)
        said = errors.read()
    cpu = usage.ru_utime + usage.ru_stime if own is None else (own_now or 0.0) - own
    hosts_cpu = None if hosts is None or hosts_now is None else hosts_now - hosts
    return Run(
        code=code,
        wall=wall,
        cpu=cpu,
        hosts_cpu=hosts_cpu,
        elsewhere=max(0.0, busy - cpu - (hosts_cpu or 0.0)),
        peak_process=usage.ru_maxrss / 1024,
        peak_total=watch.peak / 2**20 if watch.peak else None,
        lines=lines,
        errors=said,
    )


def await_quiet(share: float = 0.1, patience: float = 45.0) -> None:
    """Return when the machine has little else to do for a second, or when patience ends."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        before = _machine_busy()
        time.sleep(1.0)
        if _machine_busy() - before < share * CORES:
            return


class _Watch:
    """Reads what the command prints, and samples its memory, while somebody else waits for it."""

    def __init__(self, process: subprocess.Popen[str], began: float, memory: Path) -> None:
        self.peak = 0
        self._began = began
        self._lines: list[tuple[float, str]] = []
        self._stop = threading.Event()
        self._process = process
        self._threads = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=self._sample, args=(memory / "memory.stat",), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> tuple[tuple[float, str], ...]:
        """Stop, after the last line; all lines."""
        self._stop.set()
        for thread in self._threads:
            thread.join(10)
        return tuple(self._lines)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append((time.monotonic() - self._began, line.rstrip("\n")))

    def _sample(self, stat: Path) -> None:
        while stat.exists() and not self._stop.wait(SAMPLE_SECONDS):
            for line in stat.read_text().splitlines():
                if line.startswith("rss "):
                    self.peak = max(self.peak, int(line.split()[1]))


def _wait(pid: int, deadline: float) -> tuple[int, resource.struct_rusage]:
    """``wait4`` with an end; the exit code is negative for a signal, as in ``subprocess``."""
    timer = threading.Timer(deadline - time.monotonic(), os.kill, (pid, signal.SIGKILL))
    timer.start()
    try:
        _, status, usage = os.wait4(pid, 0)
    finally:
        timer.cancel()
    return os.waitstatus_to_exitcode(status), usage


def _end_all(groups: Sequence[Path]) -> None:
    """End what the command left running: by its process ids, from its own control group."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        left = {pid for path in groups for pid in _pids(path)}
        if not left:
            return
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _pids(group: Path) -> list[int]:
    try:
        return [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def _group(*name: str) -> Path | None:
    """A control group in the unified hierarchy, the one that counts processor time."""
    group = Cgroup()
    for top in group.directories:
        path = top.parent / Path(*name)
        if (top.parent / "cgroup.controllers").exists():
            path.mkdir(parents=True, exist_ok=True)
            return path
    return None


def _cpu_of(group: Path | None) -> float | None:
    if group is None or not (group / "cpu.stat").exists():
        return None
    for line in (group / "cpu.stat").read_text().splitlines():
        if line.startswith("usage_usec "):
            return int(line.split()[1]) / 1e6
    return None


def _hosts_cpu(fleet: str) -> float | None:
    return next(
        (
            seconds
            for directory in Cgroup(fleet).directories
            if (seconds := _cpu_of(directory)) is not None
        ),
        None,
    )


def _machine_busy() -> float:
    """Processor seconds that were not idle, of all cores since the machine started."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / TICKS
