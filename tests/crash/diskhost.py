"""A host whose managed paths and state stand on one disk, and what must be true of it after a cut.

The service is a file beside the disk: what runs is gone when the power is.
"""

from __future__ import annotations

import fnmatch
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from deployguard.onhost import unattended
from deployguard.onhost.request import RequestError
from deployguard.onhost.state import locks, machine
from deployguard.onhost.state.journal import Journal
from deployguard.onhost.state.records import JournalDamaged
from deployguard.onhost.system import System
from deployguard.onhost.trees import staging
from deployguard.onhost.trees.inspection import load_manifest
from tests.onhost.bench import Deploy, claim, snapshot
from tests.onhost.sample_trees import make
from tests.onhost.wire import Program, RealBench, Wire

KEEP = ("uploads", "x.db")
_ROOT = str(Path(__file__).resolve().parents[2])

# The host program, with a dead-man that is a process and leaves this machine's systemd alone.
# ``nudged``: somebody else makes the file system commit its journal before each sync of ours, so
# that names and sizes are on the disk before what they belong to.
_START = """
import os, stat, sys
sys.path.insert(0, sys.argv[1])
from deployguard.onhost import durable, serve
from deployguard.onhost.state import deadman
deadman._RUNTIME = os.devnull
left_out, nudged = sys.argv[3], sys.argv[4]
fsync, fdatasync = os.fsync, os.fdatasync
if nudged:
    other = os.open(nudged, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    def before(sync):
        def both(descriptor):
            os.ftruncate(other, os.fstat(other).st_size + 1)
            fsync(other)
            sync(descriptor)
        return both
    os.fsync, os.fdatasync = before(fsync), before(fdatasync)
if left_out == "a tree":
    durable.sync_tree = durable.sync_trees = lambda *_: None
elif left_out == "a record":
    os.fdatasync = lambda descriptor: None
elif left_out == "a file":
    sync = os.fsync
    os.fsync = lambda fd: sync(fd) if stat.S_ISDIR(os.fstat(fd).st_mode) else None
elif left_out == "a name":
    durable.fsync_dir = lambda path: None
sys.exit(serve.main(0, 1, sys.argv[2]))
"""


class HostProgram(Program):
    """The host program as a process, with what the proof does to it."""

    def __init__(self, bench: DiskBench, left_out: str = "", nudged: str = "") -> None:
        command = [sys.executable, "-I", "-c", _START, _ROOT, bench.state.root, left_out, nudged]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        reader, writer = self.process.stdout, self.process.stdin
        Wire.__init__(self, cast(BinaryIO, reader), cast(BinaryIO, writer))


class Rebooted(System):
    """The same machine after a power cut."""

    def boot_id(self) -> str:
        return "another boot"


class DiskBench(RealBench):
    """Two releases are there, v2 is live; v3 is what the proof deploys."""

    def __init__(self, disk: Path, memory: Path, layout: str) -> None:
        self._run = str(memory / "run")
        mine: dict[str, Any] = {"keep": ["uploads/", "*.db"]}
        if layout == "releases":
            mine = {"shared": ["media/"]}
        super().__init__(str(disk / "host"), layout, retain=2, **mine)

    def argv(self, verb: str) -> list[str]:
        return [self._run if word == self.root + "/run" else word for word in super().argv(verb)]

    @property
    def served(self) -> str | None:
        try:
            return Path(self._run).read_text() or None
        except FileNotFoundError:
            return None

    @served.setter
    def served(self, version: str | None) -> None:
        Path(self._run).write_text(version or "")

    def settle_in(self) -> None:
        """Deploy v1 and v2, and build what is deployed later."""
        for number, version in enumerate(("v1", "v2", "v3", "v4")):
            build = os.path.join(self.root, "build", version)
            make(build, _release(version, self.layout))
            _decorate(build, number)
        self.manage("app.service", "unit v1", 0o640)
        for version in ("v1", "v2"):
            program = HostProgram(self)
            self.over(program, version).to("commit")
            assert program.hang_up() == 0
            self.manage("app.service", "unit " + version * 300)
        self.manage("app.conf", "came with v3")

    def world(self) -> dict[str, Any]:
        # Without the times of directories: no restore promises them.
        found = snapshot(self.root, skip=("state", "build"), dated="\0")
        for path, row in found.items():
            full = os.path.join(self.root, path)
            names = sorted(os.listxattr(full, follow_symlinks=False))
            row.append([[name, os.getxattr(full, name).hex()] for name in names])
            if os.path.isfile(full):
                row.append(os.lstat(full).st_nlink)
        return found

    def live_tree(self) -> dict[str, Any]:
        """The live tree alone, without what is the host's own, and times of directories."""
        return self._tree(self.live)

    def build_tree(self, version: str) -> dict[str, Any]:
        """The same of what was built."""
        return self._tree(os.path.join(self.root, "build", version))

    @staticmethod
    def _tree(root: str) -> dict[str, Any]:
        found = snapshot(root, dated="\0") if os.path.isdir(root) else {}
        return {
            path: row
            for path, row in found.items()
            if not any(fnmatch.fnmatch(path.split("/")[0], name) for name in KEEP)
        }

    def managed(self) -> dict[str, Any]:
        """The managed files, those that wait beside them left out."""
        found = snapshot(os.path.join(self.root, "etc"))
        return {name: row for name, row in found.items() if not name.startswith(".")}


def _release(version: str, layout: str) -> dict[str, Any]:
    files: dict[str, Any] = {"VERSION": version, "same.txt": "the same", "empty": "", "none": None}
    files.update({f"lib/{n}.py": f"{version} {n}\n" * (1 + 37 * n) for n in range(12)})
    files.update({f"static/{n}.js": f"the same in all {n}\n" * (1 + 90 * n) for n in range(12)})
    files["large"] = (version * 600_000)[: 1_100_000 + len(version)]
    files["large.same"] = "0123456789" * 120_000
    files[f"only/{version}"] = version
    if layout == "in_place" and version == "v1":
        files.update({"uploads/2023/u": "of a user", "x.db": "rows"})
    return files


def _decorate(build: str, number: int) -> None:
    """Links, modes, attributes and times that nothing sets by chance."""
    os.symlink("lib/1.py", os.path.join(build, "link"))
    os.symlink("static", os.path.join(build, "assets"))
    os.chmod(os.path.join(build, "lib/2.py"), 0o4755)
    os.chmod(os.path.join(build, "none"), 0o2770)
    os.setxattr(os.path.join(build, "same.txt"), "user.origin", b"release %d" % number)
    for base, directories, names in os.walk(build, topdown=False):
        for name in directories + names:
            when = 10**18 + number * 10**9 + len(name)
            os.utime(os.path.join(base, name), ns=(when, when), follow_symlinks=False)


class Truth(NamedTuple):
    """What a host looks like: before the deploy, or after an undisturbed commit."""

    world: dict[str, Any]
    live: dict[str, Any]
    managed: dict[str, Any]

    @classmethod
    def now(cls, bench: DiskBench) -> Truth:
        return cls(bench.world(), bench.live_tree(), bench.managed())


class Recovery:
    """What happens on a host after the power has come back, and all that is wrong then."""

    def __init__(
        self, bench: DiskBench, deploy: Deploy, old: Truth, new: Truth, decided: bool
    ) -> None:
        self.bench = bench
        self.identifier = deploy.identifier
        self.decided = decided
        self.wanted = new if decided else old
        self._either = (old, new)
        self._deploy = deploy
        self.found = ""
        self.wrong: list[str] = []

    def run(self, answered: str, alone: bool, powered: bool, onwards: bool) -> list[str]:
        """Come up and recover: ``alone`` as the dead-man, else as a controller.

        ``answered`` is the last state that a controller was told; ``powered`` whether the service
        came up with the machine; ``onwards`` whether another whole deploy follows.
        """
        self.bench.system = Rebooted()
        try:
            self._boot(answered, powered)
            if not self.wrong:
                self._recover(alone)
                self._next(onwards)
        except JournalDamaged as error:
            self.wrong.append(f"the journal is damaged: {error}")
        except Exception as error:  # noqa: BLE001 - whatever it is, the proof fails by it
            self.wrong.append(f"{type(error).__name__}: {error}")
        return self.wrong

    def _boot(self, answered: str, powered: bool) -> None:
        journal = self._deploy.journal()
        self.found = journal.state
        if not _as_far(self.found, answered):
            self.wrong.append(f"{answered} was answered, {self.found} is found")
        holders = {holder["transaction"] for holder in locks.held(self.bench.state)}
        if self.found not in _WITHOUT_LOCK and self.identifier not in holders:
            self.wrong.append(f"{self.found}, and the lock is not there")
        live = self.bench.live_tree()
        if live not in [truth.live for truth in self._either]:
            self._differs("what is live at boot is neither old nor new", live, self.wanted.live)
        for name, row in self.bench.managed().items():
            if row not in [truth.managed.get(name) for truth in self._either]:
                self.wrong.append(f"{name} is neither old nor new at boot: {row}")
        # An enabled service comes up from what is live; one that the deploy has not stopped yet
        # nobody can expect to be started by it.
        off = not powered and bool(journal.all("intent")) and not self.decided
        self.bench.served = None if off else self.bench.live_version()
        self._off = off and self.found == machine.RESTORED

    def _recover(self, alone: bool) -> None:
        folder = self.bench.state.transaction(self.identifier)
        if alone and self._deploy.journal().last("staging") is not None:
            unattended.System = Rebooted  # type: ignore[misc]
            unattended.main(self.bench.state.root, self.identifier)
        if self._deploy.journal().state in machine.TERMINAL and alone:
            return
        heir = self.bench.participant()
        try:
            heir.adopt({"transaction": self.identifier, "epoch": 2, "owner": "recover"})
        except RequestError as error:
            if error.kind != "state":
                raise
            return  # it never began; the next one clears it away
        if self.decided:
            heir.commit()
        else:
            result = heir.restore()
            if result["state"] not in machine.TERMINAL:
                self.wrong.append(f"restore: {json.dumps(result)}")
            heir.finish()
        heir.close()
        assert os.path.isdir(folder)

    def _next(self, onwards: bool) -> None:
        """A host that has recovered is one that can be deployed to."""
        bench = self.bench
        if not self._off and bench.served != bench.live_version():
            self.wrong.append(f"{bench.served} runs, {bench.live_version()} is live")
        following = bench.participant()
        following.begin(claim("next", [bench.path]))
        following.abort()
        following.close()
        world = bench.world()
        if world != self.wanted.world:
            self._differs("the host is not as it must be", world, self.wanted.world)
        self._left_over()
        record = bench.record()
        versions = [record["version"], *(older["version"] for older in record["previous"])]
        if versions != (["v3", "v2"] if self.decided else ["v2", "v1"]):
            self.wrong.append(f"on record is {versions}")
        for known in [record, *record["previous"]]:
            difference = staging.verify(known["tree"], load_manifest(known["manifest"]))
            kept = [p for p in difference.added + difference.removed if p.split("/")[0] not in KEEP]
            changed = [item.path for item in difference.changed if item.path != "."]
            if kept or changed:
                self.wrong.append(f"{known['tree']} is not its manifest: {difference}")
        if onwards and not self.wrong:
            deploy = bench.deploy("v4")
            deploy.identifier = "onwards"
            deploy.to("commit").close()
            if bench.served != "v4" or bench.record()["version"] != "v4":
                self.wrong.append("the next deploy did not go through")

    def _left_over(self) -> None:
        state = Path(self.bench.state.root)
        if sorted(os.listdir(state / "locks")) != [".guard"]:
            self.wrong.append(f"locks are left: {os.listdir(state / 'locks')}")
        for path in state.rglob("*"):
            if path.name.startswith(".deployguard-") or path.name in ("reserve", "blobs"):
                self.wrong.append(f"{path} is left")
        for identifier in self.bench.state.transactions():
            folder = self.bench.state.transaction(identifier)
            journal = Journal(folder + "/journal", lambda: 0.0)
            settled = journal.last("settled") is not None or journal.state == machine.ABORTED
            # One that never began holds nothing; it goes with the oldest.
            empty = journal.state == machine.IDLE and not journal.records
            if not settled and not (empty and set(os.listdir(folder)) <= _EMPTY):
                self.wrong.append(f"{identifier} is left, {journal.state}")
        live = Path(self.bench.state.live(self.bench.path))
        record = self.bench.record()
        names = {os.path.basename(r["manifest"]) for r in [record, *record["previous"]]}
        for name in set(os.listdir(live)) - names - {"record.json", "stat.cache"}:
            self.wrong.append(f"{name} is left in {live}")

    def _differs(self, what: str, found: dict[str, Any], wanted: dict[str, Any]) -> None:
        paths = [p for p in sorted({*found, *wanted}) if found.get(p) != wanted.get(p)]
        rows = [f"{p}: {found.get(p)}, not {wanted.get(p)}" for p in paths[:5]]
        self.wrong.append(f"{what}: {'; '.join(rows)}")


#: What may be in the folder of a transaction that never began.
_EMPTY = {"alive", "journal", "lease"}

#: Where the next transaction may begin at once.
_WITHOUT_LOCK = machine.TERMINAL | {machine.IDLE}

#: Each with those that can only follow it.
_ORDER = {
    "": machine.STATES,
    "begun": machine.STATES[1:],
    "staged": machine.STATES[2:],
    "armed": machine.STATES[3:],
    "switched": machine.STATES[4:],
    "prepared": ("prepared", "committed", "restored"),
    "committed": ("committed",),
    "restored": ("restored",),
}


def _as_far(found: str, answered: str) -> bool:
    return found in _ORDER[answered]


def run_apart(work: Callable[[], Any]) -> Any:
    """The JSON of what ``work`` returns, from a child: signals, clocks and patches go with it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            data = json.dumps(work()).encode()
            while data:
                data = data[os.write(writer, data) :]
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        data = stream.read()
    os.waitpid(child, 0)
    return json.loads(data)
