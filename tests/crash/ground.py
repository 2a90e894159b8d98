"""Where cases are played: hosts of one's own with a service on them, and how they must end.

A ground has its hosts to itself and knows what is live there. A case deploys the other version, or
one that does not start; something dies meanwhile; and in the end each host must be *wholly* the old
one or *wholly* the new one, in agreement with the others, with nothing of ours left on it. What is
asserted is read from the hosts' disks, process tables and service managers, never from deployguard.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from deployguard.onhost.state.records import parse
from tests.crash.controllers import Controller, Controllers
from tests.fleet.cgroup import Cgroup
from tests.fleet.container import until
from tests.fleet.fleet import Fleet
from tests.fleet.host import Host
from tests.fleet.tree import Entry, tree
from tests.releases import pack, small_release

NAME = "shop"
PATH = "/srv/shop"
PORT = 7000
LAYOUTS = ("releases", "in_place")
#: With the one that needs git on both sides, and is a tree `in_place` otherwise.
ALL_LAYOUTS = (*LAYOUTS, "git")
STATE = "/var/lib/deployguard"
UNITS = "/etc/systemd/system"
#: What a wait on a host makes; there and not in /run, since it must be seen from out here.
PAUSED = "/srv/.paused"

#: Longer than anything takes; who waits that long has found something that does not end.
PATIENCE = 90.0

#: Seconds. The controller beats once a second, and this machine is busy.
LEASE = 3

UNIT = """\
[Unit]
Description={name} {version}
StartLimitIntervalSec=0

[Service]
WorkingDirectory={live}
ExecStart=/usr/bin/python3 {live}/server.py {port}
Environment=PYTHONDONTWRITEBYTECODE=1 RELEASE={version}
{service}
[Install]
WantedBy=multi-user.target
"""


class Violation(AssertionError):
    """A host is neither old nor new, or something was left there."""


@dataclass(frozen=True)
class World:
    """All of one host that a deploy can change, as it must be for one version."""

    version: str
    #: Path in the tree to kind, mode, owner, group, mtime, size, content, extended attributes.
    tree: dict[bytes, Entry] = field(repr=False)
    unit: str = field(repr=False)


def make_releases(directory: Path, layout: str, service: str = "") -> Path:
    """v1, v2 and one that does not start, each with its unit, for every ground of a layout."""
    for version, fault in (("v1", "none"), ("v2", "none"), ("bad", "exit")):
        folder = small_release(directory / version, version, fault=fault)
        (folder / "run.sh").write_text(f"#!/bin/sh\necho {version}\n")
        (folder / "run.sh").chmod(0o755)
        (folder / "latest").symlink_to(f"app/{version}")
        (folder / "app" / f"only-{version}.txt").write_text(version)
        (folder / "app" / f"only-{version}.txt").chmod(0o640)
        for path in folder.rglob("*"):
            # Whole seconds, as a tar has them for certain; another one for each version and name.
            second = 10**9 + 100 * len(path.name) + ord(version[-1])
            os.utime(path, (second, second), follow_symlinks=False)
        pack(folder, directory / f"{version}.tar.gz")
        text = UNIT.format(
            name=NAME, version=version, live=live_of(layout), port=PORT, service=service
        )
        (directory / f"{version}.service").write_text(text)
    return directory


def make_repository(releases: Path, target: Path) -> Path:
    """The releases as tags of a repository, one after the other."""
    target.mkdir()
    commit = ("-c", "user.name=shop", "-c", "user.email=shop@example.com", "commit", "-q", "-m")
    git(target, "init", "-q")
    for version in ("v1", "v2", "bad"):
        for path in target.iterdir():
            if path.name != ".git":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(releases / version, target, symlinks=True, dirs_exist_ok=True)
        git(target, "add", "-A", "-f")
        git(target, *commit, version)
        git(target, "tag", version)
    return target


def git(directory: Path, *arguments: str) -> str:
    """What git answers."""
    done = subprocess.run(
        ["git", "-C", str(directory), *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def live_of(layout: str) -> str:
    return f"{PATH}/current" if layout == "releases" else PATH


class Ground:
    """Some hosts and one service on each, in one layout."""

    #: Of the cases that are played here; the layout, where nothing else is special about it.
    kind = ""

    def __init__(
        self,
        fleet: Fleet,
        hosts: list[Host],
        directory: Path,
        layout: str,
        controllers: Controllers,
        releases: Path,
        *,
        lease: float = LEASE,
        **plan: Any,
    ) -> None:
        self.fleet = fleet
        self.hosts = hosts
        self.directory = directory
        self.layout = layout
        self.kind = self.kind or layout
        self.controllers = controllers
        self.lease = lease
        self.extra = plan
        self.component: dict[str, Any] = {}
        self.service: dict[str, Any] = {}
        self.releases = releases
        self.port = PORT
        self.name = NAME
        self.path = PATH
        self.live = live_of(layout)
        self.unit = f"{NAME}.service"
        self.number = 0
        self.worlds = {version: _wanted(releases, version, layout) for version in ("v1", "v2")}
        self.version = ""
        #: Of each host: its live tree with the repository, every time included.
        self.standing: dict[str, dict[bytes, Entry]] = {}
        self.environment = {
            "DEPLOYGUARD_STATE": str(directory / "state"),
            "HOME": str(directory),
        }
        directory.mkdir(parents=True, exist_ok=True)
        if layout == "git":
            make_repository(releases, directory / "repository")

    # -- plans and runs ----------------------------------------------------------------------

    def plan(self, version: str, **changes: Any) -> Path:
        """The plan file for one case."""
        mark = f"/srv/{self.name}.{self.number}"
        component: dict[str, Any] = {
            "artifact": f"{self.releases}/{{{{ version }}}}.tar.gz",
            "path": self.path,
            "layout": self.layout,
            "retain": 2,
            "service": self.runs_it(),
            "checks": [
                {"process": {"deadline": "20s"}},
                {
                    "http": {
                        "url": f"http://127.0.0.1:{self.port}/health",
                        "json": {"status": "healthy", "version": "{{ version }}"},
                        "interval": "0.2s",
                        "deadline": "20s",
                    }
                },
            ],
            **({"shared": ["data/"]} if self.layout == "releases" else {"keep": ["data"]}),
            **self.component,
        }
        if self.layout == "git":
            del component["artifact"]
            revision = self._commit(version)
            component["git"] = {"repository": "repository", "branch": "main", "revision": revision}
        plan = {
            "name": self.name,
            "version": version,
            "lease": f"{self.lease}s",
            "hosts": {
                host.name: {
                    "address": host.address,
                    "user": host.user,
                    "identity_file": str(host.client_key),
                    "known_hosts": str(host.known_hosts),
                    "become": True,
                    "connect_deadline": "6s",
                }
                for host in self.hosts
            },
            "components": {"backend": component},
            "tasks": [
                {
                    "name": "mark",
                    "run": ["touch", mark],
                    "undo": ["rm", "-f", mark],
                    "at": "before_start",
                }
            ],
            "rescue": {"evidence": {"directory": "forensics"}},
            **self.extra,
            **changes,
        }
        path = self.directory / "plan.yaml"
        path.write_text(yaml.safe_dump(plan, sort_keys=False))
        return path

    def runs_it(self) -> dict[str, Any]:
        """The plan's service block."""
        unit_file = f"{self.releases}/{{{{ version }}}}.service"
        unit = {"unit": self.unit, "unit_file": unit_file, "enable": True}
        return {"systemd": {**unit, **self.service}}

    def _commit(self, version: str) -> str:
        """A commit of its own for every deploy, so that each has something to send."""
        repository = self.directory / "repository"
        parent = git(repository, "rev-parse", "HEAD")
        who = ("-c", "user.name=shop", "-c", "user.email=shop@example.com")
        words = ("-p", parent, "-m", f"{version}, number {self.number}")
        made = git(repository, *who, "commit-tree", f"{version}^{{tree}}", *words)
        git(repository, "update-ref", "HEAD", made)
        return made

    def start(
        self,
        *arguments: str,
        faults: dict[str, Any] | None = None,
        name: str = "run",
        state: str = "",
    ) -> Controller:
        """Start ``deployguard``; ``state`` is another machine's memory."""
        environment = dict(self.environment)
        if faults:
            environment["DEPLOYGUARD_FAULTS"] = json.dumps(faults)
        if state:
            environment["DEPLOYGUARD_STATE"] = str(self.directory / state)
        return self.controllers.start(
            [*arguments, "plan.yaml", "--json"], self.directory, environment, name
        )

    def lines_of(self, name: str) -> list[dict[str, Any]]:
        """What a run of that name said to programs."""
        text = (self.directory / f"{name}.out").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def set_up(self) -> None:
        """v1 is live, on hosts that are new."""
        for host in self.hosts:
            self.make_new(host)
        self.version = ""
        self.deploy("v1")
        for host in self.hosts:
            self._write_data(host)
        self.version = ""  # what came before is nobody's concern
        self.standing.clear()
        self.check(["v1"])

    def make_new(self, host: Host) -> None:
        """A host on which nothing was deployed yet."""
        if host.path(STATE).exists():
            host.reset()

    def deploy(self, version: str) -> None:
        """A deploy in which nothing goes wrong, however busy the machine is."""
        self.number += 1
        self.plan(version, lease="60s")
        run = self.start("apply", name="setup")
        if run.wait() != 0:
            raise RuntimeError(f"a deploy with no fault ended with {run.wait()}:\n{run.text}")
        self.version = version
        self.standing.clear()  # Nobody has looked at what stands now.

    def _write_data(self, host: Host) -> None:
        """What belongs to the host, and must survive everything."""
        folder = f"{self.path}/shared" if self.layout == "releases" else self.live
        host.write(f"{folder}/data/orders.db", f"orders of {host.name}\n" * 100, mode=0o600)

    @property
    def other(self) -> str:
        """The good version that is not live."""
        return "v2" if self.version == "v1" else "v1"

    # -- what is on a host -------------------------------------------------------------------

    def root(self, host: Host) -> str:
        """The live tree."""
        if self.layout != "releases":
            return self.path
        return f"{self.path}/{os.readlink(host.path(self.live))}"

    def world(self, host: Host) -> World:
        """What is live on a host."""
        found = _entries(host.tree(self.root(host)))
        if self.layout == "git":
            found = _as_committed(found)
        return World(self.live_version(host), found, self.definition(host))

    def live_version(self, host: Host) -> str:
        """What the live tree says of itself."""
        return host.path(f"{self.root(host)}/VERSION").read_text().strip()

    def definition(self, host: Host) -> str:
        """What the service manager would start, beyond the tree."""
        return host.path(f"{UNITS}/{self.unit}").read_text()

    def served(self, host: Host) -> str:
        """The version that answers."""
        url = f"http://{host.address}:{self.port}/health"
        with urllib.request.urlopen(url, timeout=2) as answer:
            return str(json.loads(answer.read())["version"])

    def group(self, host: Host) -> Cgroup:
        """All processes of the host."""
        return Cgroup(self.fleet.name, host.name)

    def processes(self, host: Host, *words: bytes) -> list[int]:
        """Processes of deployguard on a host, by what stands in their command lines."""
        found = []
        for pid in self.group(host).pids():
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
                ours = b"deployguard" in line and not line.startswith(b"systemd-nspawn")
                if ours and all(word in line for word in words):
                    found.append(pid)
        return found

    def program(self, host: Host) -> list[int]:
        """The host program, without the sudo and the shell above it."""
        found = []
        for pid in self.processes(host, b"exec(open(0"):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().startswith("python"):
                    found.append(pid)
        return found

    def kill_program(self, host: Host) -> None:
        """SIGKILL."""
        for pid in self.program(host):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def transactions(self, host: Host) -> dict[str, tuple[str, bool, bool]]:
        """Of each transaction: its state, whether it is settled, whether it is being restored."""
        found = {}
        for folder in self._list(host, f"{STATE}/transactions"):
            try:
                data = host.path(f"{STATE}/transactions/{folder}/journal").read_bytes()
            except OSError:
                found[folder] = ("idle", False, False)
                continue
            records, _ = parse(data)
            state, settled, restoring = "idle", False, False
            for record in records:
                state = record.get("state", state)
                settled |= record["kind"] == "settled"
                restoring |= record["kind"] == "restoring"
            found[folder] = (state, settled, restoring)
        return found

    def _list(self, host: Host, directory: str) -> list[str]:
        try:
            return sorted(os.listdir(host.path(directory)))
        except FileNotFoundError:
            return []

    def at_rest(self, host: Host) -> str:
        """Why a host is not at its end yet; empty when it is."""
        if unended := self._unended(host):
            return ", ".join(unended)
        if locks := self._locks(host):
            return f"locks: {locks}"
        if units := [n for n in self._list(host, UNITS) if "deployguard" in n]:
            return f"units: {units}"
        wants = f"{UNITS}/multi-user.target.wants"
        if units := [n for n in self._list(host, wants) if "deployguard" in n]:
            return f"wanted units: {units}"
        if pids := self.processes(host):
            lines = [_command_line(pid) for pid in pids]
            return f"processes: {lines}"
        return ""

    def waits(self, host: Host) -> bool:
        """Whether the host waits for somebody: it has voted, or it died before it could be armed.

        There is no dead-man before there is something to undo; a lock of the dead is cleared away
        by the next who comes.
        """
        for state, _, restoring in self.transactions(host).values():
            if state == "prepared" and not restoring:
                return True
            if state in ("begun", "staged") and not self.processes(host):
                return True
        return bool(self._locks(host)) and not self.processes(host) and not self._unended(host)

    def _unended(self, host: Host) -> list[str]:
        return [
            f"{identifier} is {state}"
            for identifier, (state, settled, _) in self.transactions(host).items()
            if state not in ("aborted", "idle") and not settled
        ]

    def _locks(self, host: Host) -> list[str]:
        return [name for name in self._list(host, f"{STATE}/locks") if name.endswith(".json")]

    def staged(self, host: Host) -> list[str]:
        """Trees and files beside the live ones that nobody will need."""
        kept = set()
        for folder in self._list(host, f"{STATE}/live"):
            text = host.path(f"{STATE}/live/{folder}/record.json").read_text()
            record = json.loads(text)
            kept |= {record["tree"], *(older["tree"] for older in record["previous"])}
        found = []
        for directory in ("/srv", self.path, f"{self.path}/releases", UNITS):
            for name in self._list(host, directory):
                path = f"{directory}/{name}"
                stray = ".dg-" in name or name.startswith(".current.") or name.endswith(".partial")
                if stray or (directory.endswith("/releases") and path not in kept):
                    found.append(path)
        workshop = f"/srv/.{self.name}.deployguard"
        found += [
            f"{workshop}/{name}"
            for name in self._list(host, workshop)
            if f"{workshop}/{name}" not in kept
        ]
        for identifier in self._list(host, f"{STATE}/transactions"):
            for name in self._list(host, f"{STATE}/transactions/{identifier}"):
                if name in ("blobs", "reserve", "deadman.json"):
                    found.append(f"{STATE}/transactions/{identifier}/{name}")
        return found

    # -- the end of a case -------------------------------------------------------------------

    def end(self, controller: Controller | None, allowed: list[str]) -> str:
        """See a case to its end; the version that is live then. Raises :class:`Violation`.

        Nothing is asked of deployguard but, where hosts are in doubt, one ``recover``.
        """
        if controller is not None:
            controller.wait(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        for host in self.hosts:
            self._settle(host, deadline)
        if any(self.waits(host) for host in self.hosts):
            recover = self.start("recover", name="recover")
            if recover.wait(PATIENCE) != 0:
                code = recover.wait()
                raise Violation(f"recover ended with {code}:\n{recover.text}")
            for host in self.hosts:
                self._settle(host, deadline, doubt=False)
        return self.check(allowed)

    def settled_alone(self, host: Host) -> None:
        """Wait until a host that nobody reaches has come to its end, or waits for a decision."""
        self._settle(host, time.monotonic() + PATIENCE)

    def _settle(self, host: Host, deadline: float, *, doubt: bool = True) -> None:
        def over() -> bool:
            return (doubt and self.waits(host)) or not self.at_rest(host)

        if not until(over, deadline, 0.1):
            raise Violation(f"{host.name} comes to no end: {self.at_rest(host)}")

    def check(self, allowed: list[str]) -> str:
        """Each host one version wholly, all the same one, and nothing left."""
        with ThreadPoolExecutor(len(self.hosts)) as threads:
            versions = set(threads.map(lambda host: self._check(host, allowed), self.hosts))
        if len(versions) != 1:
            raise Violation(f"the hosts do not agree: {sorted(versions)}")
        self.version = versions.pop()
        return self.version

    def _check(self, host: Host, allowed: list[str]) -> str:
        world = self.world(host)
        if world.version not in allowed:
            raise Violation(f"{host.name}: {world.version} is live, not one of {allowed}")
        if self.worlds[world.version] != world:
            raise Violation(f"{host.name}: {_difference(self.worlds[world.version], world)}")
        if self.layout == "git":
            self._check_repository(host, same=world.version == self.version)
        folder = f"{self.root(host)}/data"
        linked = host.path(folder).is_symlink()
        orders = host.tree(folder if not linked else f"{self.path}/shared/data")[b"orders.db"]
        text = host.read(f"{folder}/orders.db").decode()
        whole = text == f"orders of {host.name}\n" * 100 and orders[1:4] == (0o600, 0, 0)
        if not whole or linked != (self.layout == "releases"):
            raise Violation(f"{host.name}: what was kept is not what it was: {orders}")
        mark = host.path(f"/srv/{self.name}.{self.number}").exists()
        if mark != (self.version != world.version or not self.version):
            words = "has run" if mark else "was undone"
            raise Violation(f"{host.name}: {world.version} is live, but its task {words}")
        deadline = time.monotonic() + PATIENCE
        if not until(lambda: self._serves(host, world.version), deadline, 0.05):
            raise Violation(f"{host.name}: {world.version} is live and does not answer")
        if not until(lambda: not self.at_rest(host), deadline, 0.1):
            raise Violation(f"{host.name}: left behind: {self.at_rest(host)}")
        if staged := self.staged(host):
            raise Violation(f"{host.name}: left behind: {staged}")

        units = ""

        def clean() -> bool:
            nonlocal units
            units = self._units(host)
            return units == "active enabled"

        if not until(clean, deadline, 0.2):
            raise Violation(f"{host.name}: its service manager says: {units}")
        return world.version

    def _check_repository(self, host: Host, *, same: bool) -> None:
        """HEAD, branch and index are of one commit; where nothing was deployed, all is as before.

        As before is every byte and every time of the tree and its repository, but for the emergency
        tags, which stay.
        """
        found = _entries(host.tree(self.path))
        tags = b".git/refs/tags/deployguard"
        found = {path: entry for path, entry in found.items() if not path.startswith(tags)}
        if same and host.name in self.standing:
            was = self.standing[host.name]
            paths = [
                os.fsdecode(p) for p in was.keys() | found.keys() if was.get(p) != found.get(p)
            ]
            if paths:
                raise Violation(f"{host.name}: not as it was: {sorted(paths)[:5]}")
        self.standing[host.name] = found
        ask = ["git", "--no-optional-locks", "-C", self.path]
        said = host.run([*ask, "status", "--porcelain", "--branch"], check=False)
        if (said.stdout, said.stderr) != (b"## main\n?? data/\n", b""):
            raise Violation(f"{host.name}: git status says {said.stdout!r} {said.stderr!r}")
        fsck = host.run([*ask, "fsck", "--connectivity-only", "--no-dangling"], check=False)
        if (fsck.returncode, fsck.stdout) != (0, b""):
            raise Violation(f"{host.name}: git fsck says {fsck.stdout!r} {fsck.stderr!r}")

    def _serves(self, host: Host, version: str) -> bool:
        try:
            return self.served(host) == version
        except (OSError, ValueError):
            return False

    @property
    def manager(self) -> str:
        """The unit whose log tells how the service fared."""
        return self.unit

    def _units(self, host: Host) -> str:
        """The service's state, and any unit of ours that systemd knows."""
        script = (
            f"systemctl show {self.unit} -p ActiveState -p UnitFileState --value; "
            "systemctl list-units --all --plain --no-legend 'deployguard*'; "
            "ls /run/systemd/transient | grep deployguard"
        )
        done = host.run(["sh", "-c", script], check=False)
        return " ".join(done.stdout.decode().split())

    def story(self, host: Host) -> str:
        """What the newest transaction of a host says for itself, for whoever looks into it."""
        newest = max(self.transactions(host), default="")
        if not newest:
            return f"{host.name}: nothing ever began"
        lines = [f"{host.name}: {newest}"]
        with contextlib.suppress(OSError):
            records, _ = parse(host.path(f"{STATE}/transactions/{newest}/journal").read_bytes())
            for record in records:
                words = {
                    k: record[k] for k in ("message", "failures", "differences") if k in record
                }
                at = record["at"] - records[0]["at"]
                lines.append(f"  {at:6.2f} {record['kind']} {record.get('id', '')} {words or ''}")
        with contextlib.suppress(Exception):
            for unit in ("deployguard-*", self.manager):
                lines += ["  " + line for line in host.journal(unit).splitlines()[-24:]]
        return "\n".join(lines)

    # -- what is done to a host --------------------------------------------------------------

    @contextlib.contextmanager
    def cut(self, host: Host) -> Iterator[None]:
        """The cable is out meanwhile."""
        host.cut_network()
        try:
            yield
        finally:
            host.heal_network()


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[-200:]
    except OSError:
        return str(pid)


def _entries(found: dict[bytes, Entry]) -> dict[bytes, Entry]:
    """Without what is no part of a version: a directory's mtime, and what is the host's own."""
    return {
        path: entry._replace(mtime_ns=0 if entry.kind == "directory" else entry.mtime_ns)
        for path, entry in found.items()
        if path != b"data" and not path.startswith(b"data/")
    }


def _as_committed(found: dict[bytes, Entry]) -> dict[bytes, Entry]:
    """What git knows of a tree: no times, and of the modes whether a file is a program."""
    committed = {}
    for path, entry in found.items():
        if path == b".git" or path.startswith(b".git/"):
            continue
        mode = 0o755 if entry.kind == "directory" or entry.mode & 0o100 else 0o644
        mode = entry.mode if entry.kind == "link" else mode
        committed[path] = entry._replace(mtime_ns=0, mode=mode)
    return committed


def _wanted(releases: Path, version: str, layout: str) -> World:
    """How a host has to look: as the release does that was packed, and nothing else."""
    unit = (releases / f"{version}.service").read_text()
    found = _entries(tree(releases / version))
    return World(version, _as_committed(found) if layout == "git" else found, unit)


def _difference(wanted: World, found: World) -> str:
    paths = [
        f"{os.fsdecode(path)}: {wanted.tree.get(path)} is now {found.tree.get(path)}"
        for path in sorted(wanted.tree.keys() | found.tree.keys())
        if wanted.tree.get(path) != found.tree.get(path)
    ]
    if wanted.unit != found.unit:
        paths.append(f"the unit file is not that of {wanted.version}")
    return "; ".join(paths[:5])


Condition = Callable[[], bool]


def wait_for(condition: Condition, what: str, seconds: float = PATIENCE) -> None:
    """Wait for something that must happen."""
    if not until(condition, time.monotonic() + seconds, 0.02):
        raise TimeoutError(f"{what} did not happen within {seconds:g} s")
