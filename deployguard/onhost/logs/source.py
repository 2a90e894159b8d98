"""Where a service's log ends, and what stands there after that: systemd's journal, or a file."""

from __future__ import annotations

import json
import os
import stat
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, TypedDict

from deployguard.onhost.excerpts import Bounded
from deployguard.onhost.system import System

#: As much of one line is looked at; the rest of a longer one tells nothing new.
MAX_LINE = 2000
#: About what one entry of the journal takes as JSON, to ask for no more than will be read.
_ENTRY = 300
_FIELDS = "MESSAGE,PRIORITY,_SYSTEMD_INVOCATION_ID,INVOCATION_ID"
#: What journalctl says to somebody who may not read it, and ends with status 0.
_BLIND = b"not seeing messages from other users"


class Source(TypedDict, total=False):
    """Where a log is: ``unit`` of the journal in ``scope``, with ``env``; the file ``path``; or the
    files of what ``pm2`` runs, which is the data of its driver."""

    unit: str
    scope: str
    env: Dict[str, str]
    path: str
    pm2: Dict[str, Any]


class Line(NamedTuple):
    """One line. ``severe`` says that the journal has it as an error or worse; ``instance`` is the
    run of the service that wrote it, where that is known."""

    text: str
    severe: bool = False
    instance: str = ""


class Unreadable(Exception):
    """The log cannot be read; the message says why, and the mend."""


class Absent(Unreadable):
    """There is no such file, or it is none that holds lines."""


def mark(source: Source, system: System, known: Sequence[str] = ()) -> Dict[str, Any]:
    """Where the log ends now; ``known`` are the :func:`files` of it that were there before."""
    if "path" in source:
        return end_of_file(source["path"])
    if "pm2" in source:
        return {"files": {path: end_of_file(path) for path in {*files(source, system), *known}}}
    cursor = journal_cursor(system, source.get("scope", "system"), source.get("env"))
    return {"cursor": cursor, "since": system.now()}


def read(
    source: Source,
    system: System,
    after: Optional[Dict[str, Any]],
    max_bytes: int,
    timeout: float,
) -> List[Line]:
    """The lines after a mark, or without one the last lines; those of a journal ``until`` a moment
    where the mark is one. Raises :class:`Unreadable`."""
    if "path" in source:
        return list(_of_file(source["path"], after, max_bytes))
    if "pm2" in source:
        return list(_of_pm2(source, system, after, max_bytes, timeout))
    return list(_of_journal(source, system, after, max_bytes, timeout))


def files(source: Source, system: System, timeout: float = 5.0) -> List[str]:
    """The files of a log that has several, as far as they are known now."""
    if "pm2" not in source:
        return []
    from deployguard.onhost.pm2 import evidence as pm2evidence

    return pm2evidence.service_logs(source["pm2"], system, timeout)


def journal_cursor(
    system: System, scope: str = "system", env: Optional[Dict[str, str]] = None
) -> Optional[str]:
    """The cursor of the journal's newest entry, or ``None`` where there is no journal to read."""
    argv = [*journalctl(scope), "--lines=1", "--output=json", "--output-fields=PRIORITY"]
    result = system.run(argv, env=env, timeout=5.0, max_output=65536)
    try:
        cursor = json.loads(result.stdout)["__CURSOR"]
    except (ValueError, KeyError, TypeError):
        return None
    return cursor if isinstance(cursor, str) else None


def journalctl(scope: str, *, quiet: bool = True) -> List[str]:
    """The start of a journalctl command line for the system's or the user's journal."""
    argv = ["journalctl", *(["--user"] if scope == "user" else []), "--no-pager"]
    return [*argv, "--quiet"] if quiet else argv


def end_of_file(path: str) -> Dict[str, Any]:
    """The size of a file and which one it is; nothing is not there yet."""
    try:
        info = os.stat(path)
    except OSError:
        return {"offset": 0}
    return {"offset": info.st_size, "inode": info.st_ino}


def _of_pm2(
    source: Source,
    system: System,
    after: Optional[Dict[str, Any]],
    max_bytes: int,
    timeout: float,
) -> Iterator[Line]:
    marks: Dict[str, Any] = {} if after is None else after.get("files", {})
    paths = list(dict.fromkeys([*files(source, system, timeout), *marks]))
    if not paths:
        raise Unreadable("PM2 does not say where %s logs" % ", ".join(source["pm2"]["names"]))
    for path in paths:
        begun = None if after is None else marks.get(path, {})
        try:
            # They stand in the directory of the user, who may not lead us elsewhere.
            yield from _of_file(path, begun, max_bytes // len(paths), os.O_NOFOLLOW)
        except Absent:
            continue  # one of them may be /dev/null, or not written yet


def _of_file(
    path: str, after: Optional[Dict[str, Any]], max_bytes: int, flags: int = 0
) -> Iterator[Line]:
    try:
        # Not blocking: opening a pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
        with os.fdopen(descriptor, "rb") as stream:
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode):
                raise Absent("%s is no regular file" % path)
            start = max(info.st_size - max_bytes, 0)
            if after is not None:
                start = after.get("offset", 0)
                if start > info.st_size or after.get("inode", info.st_ino) != info.st_ino:
                    start = 0  # it was rotated since, all of it is news
            stream.seek(start)
            kept = Bounded(max_bytes)
            left = info.st_size - start
            while left > 0:
                piece = stream.read(min(left, 65536))
                if not piece:
                    break
                kept.add(piece)
                left -= len(piece)
    except FileNotFoundError:
        raise Absent("there is no %s" % path) from None
    except OSError as error:
        raise Unreadable("cannot read %s: %s" % (path, error.strerror)) from None
    # The last line may be half written; it will be whole at the next look.
    whole = kept.value().rpartition(b"\n")[0]
    for line in whole.split(b"\n") if whole else ():
        yield Line(line[:MAX_LINE].decode("utf-8", "replace"))


def _of_journal(
    source: Source,
    system: System,
    after: Optional[Dict[str, Any]],
    max_bytes: int,
    timeout: float,
) -> Iterator[Line]:
    argv = [*journalctl(source.get("scope", "system"), quiet=False), "--unit=" + source["unit"]]
    argv += ["--output=json", "--output-fields=" + _FIELDS]
    if after is None or "until" in after:
        argv += [] if after is None else ["--until=@%d" % after["until"]]
        result = _run([*argv, "--lines=%d" % max(max_bytes // _ENTRY, 100)], source, system,
                      max_bytes, timeout)  # fmt: skip
    else:
        since = ["--since=@%d" % after["since"]] if "since" in after else ["--boot"]
        result = None
        if after.get("cursor"):
            cursor = ["--after-cursor=" + after["cursor"]]
            result = _run([*argv, *cursor], source, system, max_bytes, timeout)
        if result is None or not result.ok:
            # A cursor that journald refuses is replaced by the time.
            result = _run([*argv, *since], source, system, max_bytes, timeout)
    if not result.ok:
        raise Unreadable("cannot read the journal of %s: %s" % (source["unit"], result.describe()))
    if _BLIND in result.stderr:
        raise Unreadable(
            "this user may not read the journal: set `become: true` for the host, or put the user "
            "into the group systemd-journal"
        )
    for entry in result.stdout.split(b"\n"):
        yield from _lines_of(entry)


def _run(argv: List[str], source: Source, system: System, max_bytes: int, timeout: float) -> Any:
    return system.run(argv, env=source.get("env"), timeout=timeout, max_output=max_bytes, grace=0.5)


def _lines_of(entry: bytes) -> Iterator[Line]:
    """The lines of one entry of the journal, as journalctl writes it in JSON."""
    try:
        fields = json.loads(entry)
    except (ValueError, RecursionError):
        return  # an empty line, or what the gap of a journal that is too long has torn
    if not isinstance(fields, dict):
        return
    message = fields.get("MESSAGE")
    if isinstance(message, list):
        # What is no text comes as a list of its bytes.
        codes = [code for code in message if isinstance(code, int) and 0 <= code < 256]
        message = bytes(codes).decode("utf-8", "replace")
    if not isinstance(message, str):
        return
    instance = fields.get("_SYSTEMD_INVOCATION_ID") or fields.get("INVOCATION_ID") or ""
    severe = fields.get("PRIORITY") in ("0", "1", "2", "3")
    for text in message.split("\n"):
        yield Line(text[:MAX_LINE], severe, str(instance))
