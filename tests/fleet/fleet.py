"""Many hosts at once: boot them, hand them to a test, and leave nothing behind.

A fleet belongs to the process that booted it, which holds a lock as long as it lives; the kernel
drops the lock even when that process is killed. A fleet whose lock is free is abandoned, and the
next `up` on this machine removes it. A fleet started by hand is marked as kept and has no owner.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.fleet import cgroup, machine
from tests.fleet.base import CONTROLLER, HOST_LIMIT, STATE, USER, base
from tests.fleet.container import BootFailed
from tests.fleet.host import Host, unmount_below
from tests.fleet.network import NAMESPACES, Network, Visit

FLEETS = STATE / "fleets"
LOCKS = STATE / "locks"
NSPAWN = Path("/run/systemd/nspawn/propagate")
AT_ONCE = 8  # boots under way; more only makes each of them wait for a core

PATIENCE = 3.0  # another process may hold a lock for a moment, to see whether it is free

_ordinal = itertools.count(1)


class FleetBusy(Exception):
    """The name is taken by a fleet that is alive."""


class Fleet:
    """Hosts that share a network, a client key and a fate."""

    controller = CONTROLLER

    def __init__(self, name: str, packages: Iterable[str] = ()) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", name):
            raise ValueError(f"fleet name {name!r}: lower case letters, digits and hyphens only")
        self.name = name
        self.home = FLEETS / name
        self.client_key = self.home / "client_key"
        self.known_hosts = self.home / "known_hosts"
        self.ssh_config = self.home / "ssh_config"
        self.hosts: list[Host] = []
        self.network = Network(name)
        self.kept = False
        self._packages = tuple(packages)
        self._base = Path()
        self._owned: int | None = None
        self._visit: Visit | None = None

    @classmethod
    def up(
        cls,
        count: int,
        name: str | None = None,
        *,
        kept: bool = False,
        packages: Iterable[str] = (),
    ) -> Fleet:
        """Boot `count` hosts, with extra Debian `packages` in their base; they leave with `down`.

        A `kept` fleet outlives this process.
        """
        machine.prepare()
        sweep()
        fleet = cls(name or f"p{os.getpid()}-{next(_ordinal)}", packages)
        lock = _lock(fleet.name, PATIENCE)
        if lock is None:
            raise FleetBusy(f"fleet {fleet.name} belongs to a running process")
        if (_record(fleet.name) or {}).get("kept") and cgroup.Cgroup(fleet.name).pids():
            os.close(lock)
            raise FleetBusy(f"fleet {fleet.name} is up already; take it down first")
        fleet._owned = lock
        try:
            demolish(fleet.name)
            fleet._lay_out()
            fleet.need(count)
        except BaseException:
            fleet.down()
            raise
        if kept:
            fleet.kept = True
            fleet._write_record()
            fleet._release()
        return fleet

    @classmethod
    def attach(cls, name: str) -> Fleet:
        """The fleet of that name, which another process booted and keeps."""
        record = _record(name)
        if record is None:
            raise LookupError(f"there is no fleet {name}; `python -m tests.fleet up 4` makes one")
        fleet = cls(name, record["packages"])
        fleet.kept = record["kept"]
        fleet._base = Path(record["base"])
        fleet.hosts = [fleet._host(number) for number in range(1, record["hosts"] + 1)]
        return fleet

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.kept:
            self.down()

    def __repr__(self) -> str:
        return f"<Fleet {self.name} of {len(self.hosts)}>"

    def need(self, count: int) -> list[Host]:
        """Grow to at least `count` hosts; the first `count` of them."""
        if count > HOST_LIMIT:
            raise ValueError(f"a fleet holds {HOST_LIMIT} hosts at most")
        new = [self._host(number) for number in range(len(self.hosts) + 1, count + 1)]
        if new:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                _all(pool, _make_host_key, new)
                with self.known_hosts.open("a") as file:
                    file.writelines(map(_known_host, new))
                with self.ssh_config.open("a") as file:
                    file.writelines(f"Host {host.name}\nHostName {host.address}\n" for host in new)
                _all(pool, _boot_new, new)
            self.hosts += new
            self._write_record()
        return self.hosts[:count]

    def enter(self) -> None:
        """Move the calling thread, and all it starts from now on, into the fleet's network.

        From there 192.0.2.x are the hosts, the hosts reach a server bound to `controller`, and
        127.0.0.1 is a loopback of its own. Threads that run already stay outside, so call this
        first.
        """
        if self._visit is None:
            self._visit = Visit(self.network)

    def leave(self) -> None:
        """Undo `enter`, for the calling thread."""
        if self._visit is not None:
            self._visit.end()
            self._visit = None

    def down(self) -> None:
        """Remove the hosts, the network and every file of the fleet."""
        self.leave()
        demolish(self.name)
        self.hosts = []
        self._release()

    def plan_hosts(self) -> str:
        """The `hosts:` part of a plan for this fleet."""
        lines = [
            f"  {host.name}: {{address: {host.address}, user: {host.user}}}" for host in self.hosts
        ]
        return "\n".join(["hosts:", *lines]) + "\n"

    def _host(self, number: int) -> Host:
        return Host(self.name, number, self.home, self._base, self.network)

    def _lay_out(self) -> None:
        self._base = base(self._packages)
        self.home.mkdir(parents=True)
        self.network.create()
        _make_key(self.client_key, f"fleet {self.name}")
        self.known_hosts.touch()
        self.ssh_config.write_text(
            "Host *\n"
            f"User {USER}\n"
            f"IdentityFile {self.client_key}\n"
            "IdentitiesOnly yes\n"
            f"UserKnownHostsFile {self.known_hosts}\n"
            "GlobalKnownHostsFile /dev/null\n"
            "StrictHostKeyChecking yes\n"
            "BatchMode yes\n"
        )

    def _write_record(self) -> None:
        record = {
            "hosts": len(self.hosts),
            "kept": self.kept,
            "base": str(self._base),
            "packages": list(self._packages),
        }
        draft = self.home / "fleet.json.draft"
        draft.write_text(json.dumps(record))
        draft.rename(self.home / "fleet.json")

    def _release(self) -> None:
        if self._owned is not None:
            if not self.kept:
                (LOCKS / f"{self.name}.lock").unlink(missing_ok=True)
            os.close(self._owned)
            self._owned = None


def names() -> list[str]:
    """Every fleet of which anything is left on this machine, alive or not."""
    found = {entry.name for entry in FLEETS.glob("*")}
    for space in NAMESPACES.glob("dgf.*"):
        found.add(space.name.split(".")[1])
    for group in cgroup.Cgroup().directories:
        found.update(entry.name for entry in group.glob("*") if entry.is_dir())
    return sorted(found)


def sweep() -> None:
    """Remove the fleets whose owner died without doing so."""
    for name in names():
        lock = _lock(name)
        if lock is None:
            continue
        if not (_record(name) or {}).get("kept"):
            demolish(name)
            (LOCKS / f"{name}.lock").unlink(missing_ok=True)
        os.close(lock)


def demolish(name: str) -> None:
    """Remove whatever exists under a fleet's name, in whatever state it is."""
    cgroup.Cgroup(name).kill()
    unmount_below(FLEETS / name)
    Network(name).destroy()
    shutil.rmtree(FLEETS / name, ignore_errors=True)
    for left in NSPAWN.glob(f"dgf.{name}.*"):
        shutil.rmtree(left, ignore_errors=True)


def remove(name: str, *, force: bool = False) -> None:
    """Demolish a fleet that no living process owns, or any with `force`."""
    lock = _lock(name, PATIENCE)
    if lock is None and not force:
        raise FleetBusy(f"fleet {name} belongs to a running process")
    demolish(name)
    if lock is not None:
        (LOCKS / f"{name}.lock").unlink(missing_ok=True)
        os.close(lock)


def owned(name: str) -> bool:
    """Whether a process that is alive holds the fleet."""
    lock = _lock(name)
    if lock is None:
        return True
    os.close(lock)
    return False


def _record(name: str) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads((FLEETS / name / "fleet.json").read_text())
    except FileNotFoundError:
        return None
    return record


def _lock(name: str, patience: float = 0.0) -> int | None:
    """A descriptor that holds the fleet's lock, or None when another process does."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    path = LOCKS / f"{name}.lock"
    end = time.monotonic() + patience
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            if time.monotonic() < end:
                time.sleep(0.05)
                continue
            return None
        try:
            current = os.stat(path).st_ino
        except FileNotFoundError:
            current = 0
        if current == os.fstat(handle).st_ino:
            return handle
        os.close(handle)  # its holder removed the file just now; lock the one that took its place


def _boot_new(host: Host) -> None:
    host.insert_disk()
    host.boot()


def _make_host_key(host: Host) -> None:
    host.directory.mkdir(parents=True, exist_ok=True)
    _make_key(host.directory / "host_key", host.name)


def _known_host(host: Host) -> str:
    kind, key, *_ = (host.directory / "host_key.pub").read_text().split()
    return f"{host.name},{host.address} {kind} {key}\n"


def _make_key(path: Path, comment: str) -> None:
    path.unlink(missing_ok=True)
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


def _all(pool: ThreadPoolExecutor, work: Callable[[Host], None], hosts: list[Host]) -> None:
    """Do `work` for every host; wait for all before the first failure is raised."""
    results = [pool.submit(work, host) for host in hosts]
    errors = [error for result in results if (error := result.exception())]
    if errors:
        first = errors[0]
        more = f" ({len(errors)} of {len(hosts)} hosts failed)" if len(errors) > 1 else ""
        raise BootFailed(f"{first}{more}") from first
