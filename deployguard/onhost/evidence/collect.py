"""Collects on the host what tells why a deploy failed, before the restore destroys it.

What to collect is data (:class:`CollectorData`), made on the controller from ``forensics/``. Every
collector has a share of its own in bytes and seconds, within what is left of the whole: one that
hangs or floods costs its own share only. Each writes its files as it goes and its result to
``collected.jsonl``, so a bundle that was cut short is still a bundle.

Nothing is redacted here, the host does not know what is secret. The files are 0600 in a folder
0700 and go to the controller, which redacts them before it writes them anywhere.
"""

from __future__ import annotations

import json
import os
import stat
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, TypedDict

from deployguard.onhost.evidence import failedtree, hostfacts
from deployguard.onhost.excerpts import Bounded, bounded
from deployguard.onhost.logs.source import end_of_file, journal_cursor, journalctl
from deployguard.onhost.share import Share, write_file
from deployguard.onhost.system import System

MAX_BYTES = 64 * 1024 * 1024
MAX_SECONDS = 60.0
DEFAULT_BYTES = 4 * 1024 * 1024
DEFAULT_SECONDS = 10.0
# A collector notices by itself that its time is over; one that hangs in a system call does not.
SLACK = 1.0
RESULTS = "collected.jsonl"


class _CollectorBase(TypedDict):
    id: str
    kind: str
    to: str


class CollectorData(_CollectorBase, total=False):
    """What to collect, as the controller sends it.

    ``id`` is unique on the host; ``to`` is the relative name of the file, or folder, to write;
    ``stage`` is ``critical`` (before the services are stopped) or ``rest`` (after the restore).
    By ``kind``:

    ``command``
        ``argv``, ``env`` and ``cwd``: what it prints, stdout before stderr.
    ``journal``
        Of ``unit`` in ``scope``, or of the kernel with ``kernel``: from the mark on. ``env``.
    ``tail``
        The file ``path`` from the mark on.
    ``file``
        The file ``path``.
    ``tree``
        The tree at ``path``: its listing, how it differs from the manifest in the file
        ``manifest`` (``staged`` is that of what was deployed), less the globs in ``ignore``, and
        the files that were added or changed.
    ``containers``
        The logs of a compose stack's containers from the mark on, and their states; ``manager`` as
        in a ``process`` check.
    ``facts``
        Load, memory, disks at ``paths``, sockets, processes.
    ``pm2``, ``pm2_log``
        The table of the PM2 daemon of ``manager``, and the logs of its processes from the mark on.
    ``kubernetes``
        ``what`` of the cluster of ``manager``: :mod:`deployguard.onhost.kubernetes.evidence`.
    """

    component: str
    stage: str
    max_bytes: int
    max_seconds: float
    argv: List[str]
    env: Dict[str, str]
    cwd: str
    unit: str
    scope: str
    kernel: bool
    path: str
    paths: List[str]
    manifest: str
    staged: str
    ignore: List[str]
    manager: Dict[str, Any]
    what: str


class Kept(NamedTuple):
    """What one collector brought."""

    bytes: int
    truncated: bool = False
    error: str = ""


def mark(collectors: Sequence[CollectorData], system: System) -> Dict[str, Dict[str, Any]]:
    """Where the logs end now, by collector: to be kept with the snapshot, for :func:`collect`."""
    marks: Dict[str, Dict[str, Any]] = {}
    cursors: Dict[str, Optional[str]] = {}
    for collector in collectors:
        if collector["kind"] == "journal":
            scope = collector.get("scope", "system")
            if scope not in cursors:
                cursors[scope] = journal_cursor(system, scope, collector.get("env"))
            marks[collector["id"]] = {"cursor": cursors[scope], "since": system.now()}
        elif collector["kind"] in ("containers", "kubernetes"):
            marks[collector["id"]] = {"since": system.now()}
        elif collector["kind"] == "tail":
            marks[collector["id"]] = end_of_file(collector["path"])
        elif collector["kind"] == "pm2_log":
            from deployguard.onhost.pm2 import evidence as pm2evidence

            marks[collector["id"]] = pm2evidence.mark(collector["manager"], system)
    return marks


def collect(
    collectors: Sequence[CollectorData],
    directory: str,
    system: System,
    *,
    marks: Optional[Dict[str, Dict[str, Any]]] = None,
    stage: Optional[str] = None,
    max_bytes: int = MAX_BYTES,
    max_seconds: float = MAX_SECONDS,
) -> List[Dict[str, Any]]:
    """Run the collectors of a stage, or all, one after the other, into ``directory``.

    Returns ``[{"id", "component", "file", "bytes", "truncated", "seconds", "error"}]`` in order,
    ``error`` empty where nothing went wrong. Never raises for a collector that fails.
    """
    os.makedirs(directory, mode=0o700, exist_ok=True)
    chosen = [c for c in collectors if stage is None or c.get("stage", "rest") == stage]
    ends = system.monotonic() + max_seconds
    left = max_bytes
    results = []
    for collector in chosen:
        began = system.monotonic()
        share = Share(
            min(collector.get("max_bytes", DEFAULT_BYTES), left),
            min(began + collector.get("max_seconds", DEFAULT_SECONDS), ends),
            system.monotonic,
        )
        kept = _run(collector, directory, system, share, (marks or {}).get(collector["id"], {}))
        left -= kept.bytes
        result = {
            "id": collector["id"],
            "component": collector.get("component", ""),
            "file": collector["to"],
            "bytes": kept.bytes,
            "truncated": kept.truncated,
            "seconds": round(system.monotonic() - began, 3),
            "error": kept.error,
        }
        results.append(result)
        _record(directory, result)
    return results


def pack(directory: str) -> Iterator[bytes]:
    """The folder as pieces of a ``tar.gz``: regular files only, names relative to the folder."""
    import gzip
    import tarfile

    buffer = _Pieces()
    # Level 1: logs shrink to a tenth either way, and a rescue does not wait for level 9.
    with gzip.GzipFile(
        fileobj=buffer, mode="wb", compresslevel=1, mtime=0
    ) as squeezed, tarfile.open(fileobj=squeezed, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for path in _regular_files(directory):
            archive.add(path, arcname=os.path.relpath(path, directory), recursive=False)
            yield from buffer.take()
    yield from buffer.take()


class _Pieces:
    """A file to write to that gives back what was written in pieces fit for a frame."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        self._data += data
        return len(data)

    def flush(self) -> None:
        """There is nothing below to flush to."""

    def take(self) -> Iterator[bytes]:
        while self._data:
            piece = bytes(self._data[:65536])
            del self._data[:65536]
            yield piece


def _regular_files(directory: str) -> Iterator[str]:
    for folder, folders, files in os.walk(directory):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(folder, name)
            if stat.S_ISREG(os.lstat(path).st_mode):
                yield path


def _run(
    collector: CollectorData, directory: str, system: System, share: Share, at: Dict[str, Any]
) -> Kept:
    """One collector in a thread of its own, for as long as its share lasts."""
    if share.max_bytes <= 0 or share.seconds() <= 0:
        return Kept(0, True, "nothing left of the budget of the whole")
    work = _KINDS.get(collector["kind"])
    if work is None:
        return Kept(0, False, "unknown kind %r" % collector["kind"])
    lanes = system.lanes()
    lanes.start(collector["id"], lambda: work(collector, directory, system, share, at))
    arrived = lanes.wait(share.seconds() + SLACK)
    if arrived is None:
        return Kept(0, True, "did not end in time")
    result = arrived[1]
    if isinstance(result, KeyError):
        return Kept(0, False, "the collector has no %s" % result)
    if isinstance(result, Exception):
        return Kept(0, False, "%s: %s" % (type(result).__name__, result))
    assert isinstance(result, Kept)
    return result


def _record(directory: str, result: Dict[str, Any]) -> None:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(os.path.join(directory, RESULTS), flags, 0o600)
    except OSError:
        return  # a full disk must not end the collection; the reply holds the results too
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(json.dumps(result).encode("ascii") + b"\n")


def _command(
    collector: CollectorData, directory: str, system: System, share: Share, _: Dict[str, Any]
) -> Kept:
    return _keep_output(collector["argv"], collector, directory, system, share)


def _journal(
    collector: CollectorData, directory: str, system: System, share: Share, at: Dict[str, Any]
) -> Kept:
    argv = [*journalctl(collector.get("scope", "system")), "--utc"]
    argv.append("--output=short-iso-precise")
    argv.append("--dmesg" if collector.get("kernel") else "--unit=" + collector["unit"])
    since = ["--since=@%d" % at["since"]] if "since" in at else ["--boot"]
    if at.get("cursor"):
        cursor = "--after-cursor=" + at["cursor"]
        kept = _keep_output([*argv, cursor], collector, directory, system, share)
        if not kept.error:
            return kept
    return _keep_output([*argv, *since], collector, directory, system, share)


def _keep_output(
    argv: Sequence[str],
    collector: CollectorData,
    directory: str,
    system: System,
    share: Share,
) -> Kept:
    result = system.run(
        argv,
        env=collector.get("env"),
        cwd=collector.get("cwd"),
        timeout=share.seconds(),
        max_output=share.max_bytes,
        grace=0.5,
    )
    output = bounded(result.stdout + result.stderr, share.max_bytes)
    truncated = len(result.stdout) + len(result.stderr) >= share.max_bytes
    written = write_file(directory, collector["to"], output)
    return Kept(written, truncated or result.timed_out, "" if result.ok else result.describe())


def _file(
    collector: CollectorData, directory: str, _: System, share: Share, at: Dict[str, Any]
) -> Kept:
    # Not blocking: opening a pipe would wait for its writer.
    descriptor = os.open(collector["path"], os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            return Kept(0, False, "%s is no regular file" % collector["path"])
        start = at.get("offset", 0)
        if start > info.st_size or at.get("inode", info.st_ino) != info.st_ino:
            start = 0  # it was rotated since, all of it is news
        length = info.st_size - start
        stream.seek(start)
        kept = Bounded(share.max_bytes)
        kept.add(stream.read(min(length, share.max_bytes)))
        if length > share.max_bytes:
            kept.total += length - 2 * share.max_bytes  # the middle, which nobody reads
            stream.seek(info.st_size - share.max_bytes)
            kept.add(stream.read(share.max_bytes))
        return Kept(write_file(directory, collector["to"], kept.value()), kept.truncated)


def _tree(
    collector: CollectorData, directory: str, _: System, share: Share, __: Dict[str, Any]
) -> Kept:
    written, truncated = failedtree.keep(
        collector["path"],
        directory,
        collector["to"],
        share,
        manifest=collector.get("manifest"),
        staged=collector.get("staged"),
        ignore=collector.get("ignore", ()),
    )
    return Kept(written, truncated)


def _containers(
    collector: CollectorData, directory: str, system: System, share: Share, at: Dict[str, Any]
) -> Kept:
    from deployguard.onhost.compose import logs as containerlogs

    since = at.get("since", 0.0)
    text, truncated, error = containerlogs.gather(dict(collector), share, since, system)
    return Kept(write_file(directory, collector["to"], text), truncated, error)


def _facts(
    collector: CollectorData, directory: str, system: System, share: Share, _: Dict[str, Any]
) -> Kept:
    facts = hostfacts.gather(collector.get("paths", ["/"]), share, system.now())
    data = json.dumps(facts, indent=1, sort_keys=True).encode("ascii")
    if len(data) > share.max_bytes:
        for name in ("processes", "sockets"):
            facts.pop(name, None)
        facts["left_out"] = "processes and sockets, for want of room"
        data = json.dumps(facts, indent=1, sort_keys=True).encode("ascii")
        return Kept(write_file(directory, collector["to"], data), True)
    return Kept(write_file(directory, collector["to"], data))


def _pm2(
    collector: CollectorData, directory: str, system: System, share: Share, at: Dict[str, Any]
) -> Kept:
    from deployguard.onhost.pm2 import evidence as pm2evidence

    manager = collector["manager"]
    if collector["kind"] == "pm2":
        data = pm2evidence.table(manager, system, share.seconds())
    else:
        data = pm2evidence.logs(manager, at, system, share.max_bytes, share.seconds())
    kept = bounded(data, share.max_bytes)
    return Kept(write_file(directory, collector["to"], kept), len(kept) < len(data))


def _kubernetes(
    collector: CollectorData, directory: str, system: System, share: Share, at: Dict[str, Any]
) -> Kept:
    from deployguard.onhost.kubernetes import evidence as kubeevidence

    # A date to ask for, and no duration: nothing is reckoned from it.
    now = system.now()
    since = at.get("since", now - 3600.0)
    try:
        # The folder of the evidence stands in the transaction's.
        text = kubeevidence.gather(collector, os.path.dirname(directory), share, since, system)
    except kubeevidence.KubectlFailed as error:
        return Kept(0, False, str(error))
    kept = bounded(text, share.max_bytes)
    return Kept(write_file(directory, collector["to"], kept), len(kept) < len(text))


_Work = Callable[[CollectorData, str, System, Share, Dict[str, Any]], Kept]
_KINDS: Dict[str, _Work] = {
    "command": _command,
    "journal": _journal,
    "tail": _file,
    "file": _file,
    "tree": _tree,
    "containers": _containers,
    "facts": _facts,
    "pm2": _pm2,
    "pm2_log": _pm2,
    "kubernetes": _kubernetes,
}
