"""What is live, sent off the hosts before a deploy changes it.

Each host answers with the manifest of what it serves; only contents that the store lacks travel,
from whichever host has them first. They lie in a folder of this machine, 0700, on their way. The
record is written last, and by whom all hosts have been asked. Nothing of it is part of a rescue.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from deployguard.drivers.registry import driver_of
from deployguard.errors import ActionFailed, Refused
from deployguard.onhost.trees import blobs
from deployguard.onhost.trees.manifest import Manifest
from deployguard.plan.model import Component, Plan
from deployguard.rollout.member import Context, Member
from deployguard.rollout.outcome import Finding
from deployguard.rollout.targets import site_early
from deployguard.snapshots import record
from deployguard.snapshots.base import SnapshotError
from deployguard.snapshots.retention import prune
from deployguard.snapshots.vault import Vault
from deployguard.transport.session import Session

__all__ = ["Keeper", "collect", "finish"]

#: What a host is asked for at once.
BATCH_BYTES = 64 * 1024 * 1024
BATCH_CONTENTS = 5000
#: How often a tree that changes while it is read is read again.
ATTEMPTS = 3
_THREADS = 8
#: Begins the names of folders with contents on their way; then the process, and what is random.
_FOLDER = "deployguard-snapshot-"
_FACTS = ("UnitFileState", "ActiveState")

Wanted = dict[str, tuple[int, str]]


class Keeper:
    """Takes one snapshot. Used by a thread for each host; the first thing that fails ends it."""

    def __init__(
        self,
        plan: Plan,
        vault: Vault,
        identifier: str,
        by: str,
        *,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        assert plan.snapshots is not None
        self.error: SnapshotError | None = None
        self._plan, self._vault, self._block = plan, vault, plan.snapshots
        self._id, self._by = identifier, by
        self._stop, self._clock = stop, clock
        self._until: float | None = None
        self._lock = threading.Lock()
        self._there: set[str] | None = None
        self._claimed: set[str] = set()
        self._needed: set[str] = set()
        self._hosts: dict[str, dict[str, record.Component]] = {}
        self.sent = 0

    def host(self, host: str, components: Mapping[str, Component], session: Session) -> None:
        """Take what one host serves. Raises :class:`SnapshotError`, and for a connection that is
        lost :class:`~deployguard.errors.HostFailure`."""
        self._begin()
        found = {}
        for name, component in components.items():
            try:
                part = self._component(host, name, component, session)
            except ActionFailed as error:
                raise SnapshotError(f"{error.message}", hint=error.hint) from error
            if part is not None:
                found[name] = part
        with self._lock:
            self._hosts[host] = found

    def finish(self, now: float) -> str:
        """Make it a snapshot; its id, or that of an earlier one which has exactly this. Empty
        where nothing is live anywhere. Raises :class:`SnapshotError`."""
        hosts = {host: parts for host, parts in sorted(self._hosts.items()) if parts}
        if not hosts:
            return ""
        self._demand_time()
        assert self._there is not None
        if not self._needed <= self._there:
            raise SnapshotError("not everything that is live came", hint="deploy again")
        snapshot = record.Snapshot(
            self._id,
            self._plan.name,
            self._plan.environment,
            now,
            self._by,
            hosts,
            self._vault.key,
        )
        same = self._newest()
        if same is not None and (same.hosts, same.key) == (snapshot.hosts, snapshot.key):
            return same.id
        self._vault.write(snapshot)
        if not self._needed <= self._vault.all():
            self._vault.forget(snapshot.id)
            raise SnapshotError("another run removed what this snapshot needs", hint="deploy again")
        return snapshot.id

    def prune(self, now: float) -> None:
        """Let go of what is beyond ``keep``. Raises :class:`SnapshotError`."""
        prune(self._vault, self._block.keep, now)

    @property
    def words(self) -> str:
        """What it came to, for people."""
        parts = [part for parts in self._hosts.values() for part in parts.values()]
        files = sum(part.count for part in parts)
        size = sum(part.bytes for part in parts)
        return (
            f"{files} entries, {size / 1e6:.1f} MB, of which {self.sent / 1e6:.1f} MB were sent "
            f"to {self._vault.address}"
        )

    def left_out(self) -> Iterator[tuple[str, str]]:
        """Sockets and the like, which no snapshot has: host and words."""
        for host, parts in self._hosts.items():
            for name, part in parts.items():
                if part.left_out:
                    paths = ", ".join(part.left_out[:5])
                    yield host, f"not in the snapshot of {name}: {paths}"

    def _newest(self) -> record.Snapshot | None:
        try:
            return self._vault.snapshot()
        except SnapshotError:
            return None

    def _begin(self) -> None:
        with self._lock:
            if self.error is not None:
                raise self.error
            if self._until is None:
                self._until = self._clock() + self._block.deadline
            if self._there is None:
                sweep()
                self._there = self._vault.there()

    def _component(
        self, host: str, name: str, component: Component, session: Session
    ) -> record.Component | None:
        question = _question(name, component, session)
        left: Wanted = {}
        for _ in range(ATTEMPTS):
            answer, pieces = session.call_stream("live", question)
            data = b"".join(pieces)
            if not answer["exists"]:
                return None
            manifest = Manifest.from_bytes(data)
            files = tuple(record.File(**_known(file)) for file in answer["files"])
            wanted: Wanted = {e.digest: (e.size, e.path) for e in manifest if e.kind == "f"}
            wanted |= {f["digest"]: (f["size"], f["at"]) for f in answer["files"] if f["exists"]}
            left = self._fetch(session, str(answer["tree"]), wanted)
            if not left:
                tree = self._keep_tree(data)
                self._note_needed([tree, *wanted])
                return record.Component(
                    version=str(answer["version"] or "adopted"),
                    path=component.path,
                    layout=component.layout,
                    tree=tree,
                    tree_size=len(data),
                    count=manifest.count(),
                    bytes=manifest.total_bytes(),
                    files=files,
                    users={int(n): str(user) for n, user in answer["users"].items()},
                    groups={int(n): str(group) for n, group in answer["groups"].items()},
                    left_out=tuple(answer["left_out"]),
                    facts=_facts(answer["observed"]),
                )
        paths = sorted(path for _, path in left.values())
        raise SnapshotError(
            f"{host}: files of {name} change while they are read: {', '.join(paths[:5])}",
            hint="name what the program writes under `ignore`, or `keep` it",
        )

    def _fetch(self, session: Session, tree: str, wanted: Wanted) -> Wanted:
        """Bring what the store lacks there; what of it the host no longer had."""
        left: Wanted = {}
        for batch in _batches(self._claim(wanted)):
            self._demand_time()
            left.update(self._bring(session, tree, batch))
        with self._lock:
            self._claimed.difference_update(left)
        return left

    def _bring(self, session: Session, tree: str, batch: Wanted) -> Wanted:
        asked = [[digest, size, path] for digest, (size, path) in batch.items()]
        with tempfile.TemporaryDirectory(prefix=f"{_FOLDER}{os.getpid()}-") as folder:
            _, pieces = session.call_stream("contents", {"tree": tree, "wanted": asked})
            try:
                blobs.receive(pieces, folder, {d: size for d, (size, _) in batch.items()})
            except blobs.BlobsInvalid:
                pass  # a large file changed meanwhile; what came before it is whole
            finally:
                for _ in pieces:
                    pass
            found = {d: blob for d, blob in blobs.stored(folder).items() if d in batch}
            with ThreadPoolExecutor(_THREADS, thread_name_prefix="snapshot") as threads:
                for size in threads.map(lambda item: self._put(*item), found.items()):
                    with self._lock:
                        self.sent += size
        return {digest: value for digest, value in batch.items() if digest not in found}

    def _put(self, digest: str, blob: blobs.Blob) -> int:
        self._demand_time()
        size = self._vault.keep(digest, blob.size, _pieces(blob))
        self._add(digest)
        return size

    def _keep_tree(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        assert self._there is not None
        if self._vault.object_of(digest) not in self._there:
            self._vault.keep(digest, len(data), [data])
            self._add(digest)
        return digest

    def _add(self, digest: str) -> None:
        with self._lock:
            assert self._there is not None
            self._there.add(self._vault.object_of(digest))

    def _note_needed(self, digests: Iterable[str]) -> None:
        with self._lock:
            self._needed.update(self._vault.object_of(digest) for digest in digests)

    def _claim(self, wanted: Wanted) -> Wanted:
        """What is neither in the store nor on its way there from another host."""
        with self._lock:
            assert self._there is not None
            mine = {
                digest: value
                for digest, value in wanted.items()
                if digest not in self._claimed and self._vault.object_of(digest) not in self._there
            }
            self._claimed.update(mine)
        return mine

    def _demand_time(self) -> None:
        if self._stop is not None and self._stop.is_set():
            raise SnapshotError("interrupted")
        if self.error is not None:
            raise self.error
        if self._until is not None and self._clock() > self._until:
            raise SnapshotError(
                f"it took longer than {self._block.deadline:g} s",
                hint="raise `deadline` of snapshots; what was sent is not sent again",
            )


def sweep() -> None:
    """Remove what a run that was killed has left on this machine of the contents of hosts."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        process = folder.name[len(_FOLDER) :].partition("-")[0]
        mine = folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.geteuid()
        if mine and process.isdigit() and not Path("/proc", process).exists():
            shutil.rmtree(folder, ignore_errors=True)


def collect(context: Context, member: Member) -> None:
    """One host's part. What the store does is kept for :func:`finish`; all hosts are asked."""
    keeper = context.keeper
    assert keeper is not None
    try:
        keeper.host(member.name, member.components, member.wire())
    except SnapshotError as error:
        keeper.error = keeper.error or error


def finish(context: Context) -> None:
    """Write the record. Without one the deploy goes on, unless the plan demands it.

    Raises :class:`Refused`.
    """
    keeper = context.keeper
    assert keeper is not None and context.plan.snapshots is not None
    try:
        if keeper.error is not None:
            raise keeper.error
        now = time.time()
        identifier = keeper.finish(now)
        if identifier:
            words = f"what is live is kept as {identifier}: {keeper.words}"
            context.record("stage", "note", "", words, snapshot=identifier)
        for host, words in keeper.left_out():
            context.record("stage", "note", host, words)
        try:
            keeper.prune(now)
        except SnapshotError as error:
            _note(context, f"old snapshots were not removed: {error.message}", error.hint)
    except SnapshotError as error:
        if context.plan.snapshots.required:
            hint = error.hint or "look at the store"
            raise Refused(
                f"there is no snapshot of what is live: {error.message}",
                hint=f"{hint}; `required: false` of snapshots goes on without",
            ) from error
        words = f"there is no snapshot of what was live before: {error.message}"
        _note(context, words, error.hint)


def _note(context: Context, words: str, mend: str) -> None:
    context.record("stage", "note", "", words)
    finding = Finding("", "", "snapshot", "upload", words, critical=False, evidence=mend)
    context.findings.append(finding)


def _question(name: str, component: Component, session: Session) -> dict[str, Any]:
    driver = driver_of(component)
    systemd = component.service is not None and component.service.systemd is not None
    site = site_early(name, component, session.hello)
    return {
        "path": component.path,
        "layout": component.layout,
        "keep": list(component.keep),
        "ignore": list(component.ignore),
        "files": list({**driver.files(component), **component.files}),
        "observe": driver.observe(component, site)[:1] if systemd else [],
    }


def _known(file: Mapping[str, Any]) -> dict[str, Any]:
    if not file["exists"]:
        return {"path": file["path"], "exists": False}
    return {name: value for name, value in file.items() if name != "at"}


def _facts(observed: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    unit = observed.get("unit", {})
    return {name: str(unit[name]) for name in _FACTS if name in unit}


def _batches(wanted: Wanted) -> Iterator[Wanted]:
    batch: Wanted = {}
    size = 0
    for digest, value in wanted.items():
        if batch and (size + value[0] > BATCH_BYTES or len(batch) >= BATCH_CONTENTS):
            yield batch
            batch, size = {}, 0
        batch[digest] = value
        size += value[0]
    if batch:
        yield batch


def _pieces(blob: blobs.Blob) -> Iterator[bytes]:
    with Path(blob.path).open("rb") as file:
        file.seek(blob.offset)
        left = blob.size
        while left and (piece := file.read(min(left, 1024 * 1024))):
            left -= len(piece)
            yield piece
