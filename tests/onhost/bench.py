"""A host in a folder: trees, a service, managed files, and participants that deploy to them.

The service is a pretended one, but it starts from the live tree as a real one does: what it serves
is the ``VERSION`` that was live at its start. So a restore that forgets to restart it, or restarts
it too early, is seen.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import stat
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from deployguard.onhost.places import State
from deployguard.onhost.state.journal import Journal
from deployguard.onhost.system import Completed, System
from deployguard.onhost.transaction.participant import Participant
from deployguard.onhost.trees import blobs
from deployguard.onhost.trees.scan import Manifest, scan
from tests.onhost.sample_trees import make

#: Where a test with hundreds of deploys works: syncs cost nothing there, whatever else is written.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

STEPS = ("begin", "look", "stage", "arm", "switch", "check", "prepare", "commit")
COMPONENT = "app"
#: What the check of every deploy knows, and no journal may.
SECRET = "geheim-sentinel"
#: How long a sick service is watched. A well one must be seen within it, on a busy machine too.
PATIENCE = 30.0


class Services(System):
    """A machine whose only program is ``service start|stop|status``."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def run(self, argv: Sequence[str], **_: Any) -> Completed:
        status = self._service(argv[1])
        return Completed(tuple(argv), status, b"", b"", False, 0.0)

    def _service(self, verb: str) -> int:
        bench = self._bench
        bench.asked.append(verb)
        if verb == "status":
            return 0 if bench.served not in (None, "sick") else 3
        bench.served = bench.live_version() if verb == "start" else None
        return 0 if verb == "stop" or bench.served is not None else 1


class NoDeadman:
    """Nobody: what a process that dies leaves is looked at before anybody mends it."""

    def __init__(self, *_: Any) -> None:
        """A dead-man has a transaction; nobody needs none."""

    def arm(self, lease: float) -> str:
        return "none"

    def disarm(self) -> None:
        """There is nothing to take away."""


class Bench:
    """One component on a host; ``options`` go into every target."""

    lease = 60.0
    patience = PATIENCE

    def __init__(self, root: str, layout: str = "releases", **options: Any) -> None:
        self.root = root
        self.layout = layout
        self.options = options
        self.path = os.path.join(root, "srv", "app")
        self.live = os.path.join(self.path, "current") if layout == "releases" else self.path
        self.state = State(os.path.join(root, "state"))
        self.state.ensure()
        self.files: Dict[str, Tuple[str, int]] = {}
        self.asked: List[str] = []
        self.system: System = Services(self)
        self._numbers = itertools.count(1)
        os.makedirs(os.path.join(root, "srv"), exist_ok=True)
        os.makedirs(os.path.join(root, "etc"), exist_ok=True)

    @property
    def served(self) -> Optional[str]:
        """What the service runs; it outlives the process that started it."""
        try:
            with open(os.path.join(self.root, "run"), encoding="ascii") as file:
                return file.read() or None
        except FileNotFoundError:
            return None

    @served.setter
    def served(self, version: Optional[str]) -> None:
        with open(os.path.join(self.root, "run"), "w", encoding="ascii") as file:
            file.write(version or "")

    def argv(self, verb: str) -> List[str]:
        """The command that starts, stops or asks the service; see :class:`Services`."""
        return ["service", verb]

    def live_version(self) -> Optional[str]:
        """What the live tree says of itself."""
        try:
            with open(os.path.join(self.live, "VERSION"), encoding="ascii") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def manage(self, name: str, content: str, mode: int = 0o644) -> str:
        """Make ``etc/NAME`` a managed file of the next deploys."""
        self.files[name] = (content, mode)
        return os.path.join(self.root, "etc", name)

    def participant(self) -> Participant:
        """A fresh one, as of a new process."""
        return Participant(self.state, self.system, lambda event: None, NoDeadman)

    def deploy(
        self, version: str, files: Optional[Dict[str, Any]] = None, **options: Any
    ) -> Deploy:
        """A deploy of a release with these files, not begun yet."""
        source = os.path.join(self.root, "build", version)
        if not os.path.isdir(source):
            make(source, dict({"VERSION": version, "same.txt": "the same"}, **(files or {})))
        return Deploy(self, version, source, options)

    def release(self, version: str, files: Optional[Dict[str, Any]] = None) -> Deploy:
        """A whole good deploy."""
        deploy = self.deploy(version, files)
        deploy.to("commit")
        deploy.close()
        return deploy

    def rollback(self, version: str) -> Deploy:
        """A deploy of a version that the host still has."""
        return Deploy(self, version, None, {})

    def number(self) -> str:
        """A transaction id."""
        return "t%04d" % next(self._numbers)

    def record(self) -> Dict[str, Any]:
        """What is on record as live."""
        from deployguard.onhost.trees.inspection import live_record

        found = live_record(self.state, self.path)
        assert found is not None
        return found

    def world(self) -> Dict[str, Any]:
        """Everything outside the state directory and the build: to compare with itself later."""
        return snapshot(
            self.root, skip=("state", "build", "run"), dated=os.path.realpath(self.live)
        )

    def locks(self) -> List[str]:
        """The lock files there are."""
        return [name for name in os.listdir(self.state.root + "/locks") if name != ".guard"]


class Deploy:
    """One transaction, step by step; the steps are those of :data:`STEPS`."""

    def __init__(
        self, bench: Bench, version: str, source: Optional[str], options: Dict[str, Any]
    ) -> None:
        self.bench = bench
        self.version = version
        self.identifier = bench.number()
        self.participant = bench.participant()
        self.looked: Dict[str, Any] = {}
        self._source = source
        self._options = options
        self._done = 0

    def to(self, step: str) -> Deploy:
        """Do every step up to this one."""
        while self._done <= STEPS.index(step):
            self._done += 1
            getattr(self, STEPS[self._done - 1])()
        return self

    @property
    def component(self) -> Dict[str, Any]:
        """What the look found."""
        found: Dict[str, Any] = self.looked["components"][COMPONENT]
        return found

    def begin(self) -> None:
        """Take the lock."""
        self.participant.begin(
            dict(claim(self.identifier, [self.bench.path]), lease=self.bench.lease)
        )

    def look(self) -> None:
        """Send the manifest and compare."""
        bench, manifest = self.bench, self.manifest()
        if manifest is not None:
            self.participant.manifest({"digest": manifest.digest()}, [manifest.to_bytes()])
        self.looked = self.participant.look(
            {
                "transaction": self.identifier,
                "components": [self.target(manifest)],
                "checks": checks(bench.argv("status"), bench.patience),
                "disks": [],
            }
        )

    def manifest(self) -> Optional[Manifest]:
        """The new tree, or ``None`` for a version from the host's history."""
        return None if self._source is None else scan(self._source).owned_by(None)

    def target(self, manifest: Optional[Manifest]) -> Dict[str, Any]:
        """The component as the controller describes it."""
        bench = self.bench
        source: Dict[str, Any] = {"kind": "history", "version": self.version}
        if manifest is not None:
            source = {"kind": "manifest", "digest": manifest.digest()}
        target: Dict[str, Any] = {
            "name": COMPONENT,
            "layout": bench.layout,
            "path": bench.path,
            "version": self.version,
            "keep": [],
            "shared": [],
            "ignore": ["**/__pycache__", "**/*.pyc"],
            "retain": 3,
            "owner": None,
            "group": None,
            "source": source,
            "files": [self._file(name) for name in sorted(bench.files)],
            "observe": [{"field": "status", "kind": "status", "argv": bench.argv("status")}],
        }
        target.update(bench.options)
        target.update(self._options)
        return target

    def _file(self, name: str) -> Dict[str, Any]:
        content, mode = self.bench.files[name]
        return {
            "path": os.path.join(self.bench.root, "etc", name),
            "mode": mode,
            "owner": None,
            "group": None,
            "digest": hashlib.sha256(content.encode()).hexdigest(),
            "content": base64.b64encode(content.encode()).decode("ascii"),
        }

    def stage(self) -> None:
        """Send what is missing and build the tree."""
        self.send()
        self.participant.stage({"components": [COMPONENT]})

    def send(self) -> None:
        """Send the contents that the host lacks."""
        missing = set(self.component["missing"])
        if missing:
            assert self._source is not None
            stream = blobs.encode(list(_contents(self._source, missing)))
            self.participant.blobs({"component": COMPONENT}, stream)

    def arm(self) -> None:
        """Make the undo durable."""
        observe = self.target(self.manifest())["observe"]
        self.participant.arm(
            {
                "procedure": self.procedure(),
                "checks": checks(self.bench.argv("status"), self.bench.patience),
                "baseline": self.looked["baseline"],
                "observe": {COMPONENT: observe},
                "observed": {COMPONENT: self.component["observed"]},
                "collectors": [],
            }
        )

    def procedure(self) -> List[Dict[str, Any]]:
        """Stop, snapshot, swap, start: as ``drivers.procedure`` builds it."""
        place, keep = self.component["placement"], self.bench.options.get("keep", [])
        start, stop = (_run(self.bench.argv(verb)) for verb in ("start", "stop"))
        live, beside = place["live"], place["beside"]
        steps = []
        if self.component["observed"]["status"]["status"] == 0:
            steps.append(operation("stop", [stop], [start]))
        steps.append(operation("snapshot", [{"act": "snapshot", "component": COMPONENT}], []))
        for file in self.component["files"]:
            steps.append(_swap("file:" + file["path"], file["path"], file["beside"]))
        if keep and place["root"] is not None:
            steps.append(
                operation("keep", [_carry(live, beside, keep)], [_carry(beside, live, keep)])
            )
        steps.append(_swap("tree", live, beside))
        steps.append(operation("start", [start], [stop]))
        return steps

    def switch(self) -> None:
        """Run the procedure."""
        self.participant.switch()

    def check(self) -> Dict[str, Any]:
        """Watch the checks."""
        return self.participant.check(
            {"checks": checks(self.bench.argv("status"), self.bench.patience)}
        )

    def prepare(self) -> None:
        """Vote."""
        self.participant.prepare()

    def commit(self) -> None:
        """Carry out the decision."""
        self.participant.commit()

    def restore(self) -> Dict[str, Any]:
        """Go back, and clear up where that went well."""
        result = self.participant.restore()
        if result["state"] == "restored":
            self.participant.finish()
        return result

    def close(self) -> None:
        """End the process in good order."""
        self.participant.close()

    def die(self) -> None:
        """End the process as SIGKILL does: what it held is let go of, and nothing is written."""
        die(self.participant)

    def taken_over(self, epoch: int = 2) -> Deploy:
        """The same transaction in a new process, under a higher epoch."""
        heir = Deploy(self.bench, self.version, self._source, self._options)
        heir.identifier = self.identifier
        heir.participant.adopt(
            {"transaction": self.identifier, "epoch": epoch, "owner": "somebody else"}
        )
        return heir

    def journal(self) -> Journal:
        """The journal as it is on the disk."""
        folder = self.bench.state.transaction(self.identifier)
        return Journal(os.path.join(folder, "journal"), lambda: 0.0)


def die(participant: Participant) -> None:
    """Let go of what the kernel takes from a killed process."""
    if participant._alive is not None:
        os.close(participant._alive)
        participant._alive = None
    journal = participant._journal
    if journal is not None and journal._fd is not None:
        os.close(journal._fd)
        journal._fd = None


def claim(identifier: str, paths: Sequence[str], epoch: int = 1) -> Dict[str, Any]:
    """The arguments of ``begin``."""
    return {
        "transaction": identifier,
        "epoch": epoch,
        "lease": 60.0,
        "owner": "tests",
        "plan": "shop",
        "paths": list(paths),
    }


def checks(
    argv: Sequence[str] = ("service", "status"), deadline: float = PATIENCE
) -> List[Dict[str, Any]]:
    """One check: the service runs."""
    return [
        {
            "id": "app/process",
            "component": COMPONENT,
            "kind": "command",
            "name": "process",
            "critical": True,
            "timeout": 5.0,
            "interval": 0.01,
            "deadline": deadline,
            "min_healthy_time": 0.0,
            "argv": list(argv),
            "secret": {"password": SECRET},
        }
    ]


def operation(name: str, do: List[Dict[str, Any]], undo: List[Dict[str, Any]]) -> Dict[str, Any]:
    """An operation of the component."""
    return {
        "id": "app:" + name,
        "component": COMPONENT,
        "title": name,
        "do": do,
        "undo": undo,
    }


def _run(argv: Sequence[str]) -> Dict[str, Any]:
    return {"act": "run", "argv": list(argv), "timeout": 10.0}


def _swap(name: str, live: str, beside: str) -> Dict[str, Any]:
    pair = {"live": live, "beside": beside}
    return operation(name, [dict(pair, act="swap")], [dict(pair, act="swap_back")])


def _carry(source: str, target: str, patterns: Sequence[str]) -> Dict[str, Any]:
    return {"act": "carry", "source": source, "target": target, "patterns": list(patterns)}


def _contents(source: str, wanted: Iterable[str]) -> Iterable[Tuple[str, int, Iterable[bytes]]]:
    left = set(wanted)
    for entry in scan(source):
        if entry.kind == "f" and entry.digest in left:
            left.discard(entry.digest)
            with open(os.path.join(source, entry.path), "rb") as file:
                yield entry.digest, entry.size, [file.read()]


def snapshot(root: str, skip: Sequence[str] = (), dated: str = "") -> Dict[str, Any]:
    """Every path below ``root`` with all that a restore must bring back.

    The times of directories count at and below ``dated`` only: above it, names come and go.
    """
    found: Dict[str, Any] = {}
    pending = [root]
    while pending:
        base = pending.pop()
        for name in os.listdir(base):
            path = os.path.join(base, name)
            if os.path.relpath(path, root) in skip:
                continue
            info = os.lstat(path)
            row: List[Any] = [stat.S_IFMT(info.st_mode), stat.S_IMODE(info.st_mode)]
            row += [info.st_uid, info.st_gid]
            if stat.S_ISDIR(info.st_mode):
                pending.append(path)
                if (path + "/").startswith(dated + "/"):
                    row.append(info.st_mtime_ns)
            elif stat.S_ISLNK(info.st_mode):
                row.append(os.readlink(path))
            else:
                row.append(info.st_mtime_ns)
                with open(path, "rb") as file:
                    row.append(hashlib.sha256(file.read()).hexdigest())
            found[os.path.relpath(path, root)] = row
    return found
