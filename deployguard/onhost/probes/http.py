"""One HTTP GET within one deadline, and what is expected of the answer.

The deadline holds for the whole exchange. A socket timeout alone starts anew with every byte, so a
server that sends one byte a second would hold the probe for as long as it likes. Redirects are not
followed: a health endpoint that redirects is not one, and the login page it leads to answers 200.
"""

from __future__ import annotations

import io
import json
import socket
from typing import Any, Callable, Dict, Optional, Tuple, Union
from urllib.parse import SplitResult, urlsplit

from deployguard.onhost.excerpts import shorten
from deployguard.onhost.probes.base import (
    HEALTHY,
    UNHEALTHY,
    UNKNOWN,
    CheckData,
    Finding,
    connection_state,
    finding,
)
from deployguard.onhost.protocols.wire import countdown
from deployguard.onhost.system import System

MAX_BODY = 1024 * 1024
EXCERPT = 300
_MISSING = object()


class _Pipe(io.RawIOBase):
    """A socket for reading whose timeout is what is left of the deadline."""

    def __init__(self, connection: socket.socket, left: Callable[[], float]) -> None:
        super().__init__()
        self._connection = connection
        self._left = left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(self._left())
        return self._connection.recv_into(buffer)

    def makefile(self, *_: Any) -> io.BufferedReader:
        """What ``http.client`` asks a socket for."""
        return io.BufferedReader(self)


def get(check: CheckData, system: System) -> Finding:
    """Make the request of an ``http`` check and judge the answer."""
    answer = request(check, system, check["url"])
    return answer if isinstance(answer, Finding) else judge(check, *answer)


def request(check: CheckData, system: System, who: str) -> Union[Tuple[int, bytes], Finding]:
    """Status and body of one GET, or what became of it; ``who`` is how messages call the server."""
    import http.client
    import ssl

    left = countdown(system.monotonic, check["timeout"])
    try:
        return _exchange(check, left)
    except socket.timeout:
        return finding(UNHEALTHY, "%s did not answer within %.1f s" % (who, check["timeout"]))
    except socket.gaierror as error:
        return finding(UNKNOWN, "cannot resolve the host of %s: %s" % (who, error.strerror))
    except ConnectionRefusedError:
        return finding(UNHEALTHY, "%s: connection refused" % who)
    except ssl.SSLError as error:
        return finding(UNHEALTHY, "%s: TLS: %s" % (who, error.reason or error))
    except OSError as error:
        return finding(connection_state(error), "%s: %s" % (who, error.strerror or error))
    except http.client.HTTPException as error:
        return finding(UNHEALTHY, "%s: no HTTP answer: %s" % (who, type(error).__name__))
    except ValueError as error:
        return finding(UNKNOWN, "cannot make the request to %s: %s" % (who, error))


def judge(check: CheckData, status: int, body: bytes) -> Finding:
    """Compare an answer with what the check expects of it."""
    url = check["url"]
    fields, mismatches = _fields(check, body)
    observed: Dict[str, Any] = {"status": status, "fields": fields}
    excerpt = shorten(body[: 8 * EXCERPT].decode("utf-8", "replace").strip(), EXCERPT)
    problem = ""
    if status not in check.get("status", [200]):
        problem = "%s answered %d" % (url, status)
        if excerpt:
            problem += ": " + excerpt
    elif check.get("body") and check["body"].encode("utf-8") not in body:
        problem = "%s: the body does not contain %r" % (url, check["body"])
        observed["body"] = excerpt
    elif mismatches:
        problem = "%s: %s" % (url, "; ".join(_words(*item) for item in mismatches.items()))
        observed["body"] = excerpt
    if mismatches:
        observed["mismatches"] = mismatches
    if problem:
        return finding(UNHEALTHY, problem, observed=observed)
    return finding(HEALTHY, "%s answered %d" % (url, status), observed=observed)


def lookup(document: Any, dotted: str) -> Any:
    """The value of a dotted field; ``KeyError`` when it is not there. ``a.0.b`` goes into lists,
    and a key that has dots itself is found as well."""
    if isinstance(document, dict) and dotted in document:
        return document[dotted]
    name, dot, rest = dotted.partition(".")
    if isinstance(document, list) and name.isdigit() and int(name) < len(document):
        value = document[int(name)]
    elif isinstance(document, dict) and name in document:
        value = document[name]
    else:
        raise KeyError(dotted)
    return lookup(value, rest) if dot else value


def _fields(check: CheckData, body: bytes) -> Tuple[Dict[str, Any], Dict[str, Dict[str, Any]]]:
    """What the named fields hold, and where that is not what is expected."""
    expected = check.get("json", {})
    versioned = check.get("versioned", [])
    found: Dict[str, Any] = {}
    mismatches: Dict[str, Dict[str, Any]] = {}
    if not expected and not versioned:
        return found, mismatches
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    for name in [*expected, *(name for name in versioned if name not in expected)]:
        try:
            value = lookup(document, name)
        except KeyError:
            value = _MISSING
        if value is not _MISSING and _is_short(value):
            found[name] = value
        if name in expected and not _equal(value, expected[name], name in versioned):
            mismatches[name] = {"expected": expected[name]}
            if value is not _MISSING:
                mismatches[name]["found"] = value if _is_short(value) else "(a longer value)"
    return found, mismatches


def _equal(value: Any, expected: Any, version: bool) -> bool:
    if version and value is not _MISSING:
        return str(value) == str(expected)  # a version such as 42 may be a number in JSON
    # In Python 1 == True; in JSON they differ.
    return isinstance(value, bool) == isinstance(expected, bool) and bool(value == expected)


def _is_short(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= EXCERPT
    return value is None or isinstance(value, (bool, int, float))


def _words(name: str, mismatch: Dict[str, Any]) -> str:
    if "found" not in mismatch:
        return "no field %s in the answer" % name
    return "%s is %s, expected %s" % (
        name,
        json.dumps(mismatch["found"]),
        json.dumps(mismatch["expected"]),
    )


def _exchange(check: CheckData, left: Callable[[], float]) -> Tuple[int, bytes]:
    from http.client import HTTPResponse

    parts = urlsplit(check["url"])
    host = parts.hostname
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("not an http or https URL")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    request = _request(parts, host, check.get("headers", {}))
    connection = socket.create_connection((host, port), timeout=left())
    try:
        if parts.scheme == "https":
            connection.settimeout(left())
            context = _tls(check.get("verify_tls", True))
            connection = context.wrap_socket(connection, server_hostname=host)
        connection.settimeout(left())
        connection.sendall(request)
        pipe: Any = _Pipe(connection, left)
        response = HTTPResponse(pipe, method="GET")
        try:
            response.begin()
            return response.status, _read(response)
        finally:
            response.close()
    finally:
        connection.close()


def _read(response: Any) -> bytes:
    """The body, as far as we look at it. One that ends too early is an ``HTTPException``."""
    pieces = []
    room = MAX_BODY
    while room > 0:
        piece: bytes = response.read(min(room, 65536))
        if not piece:
            break
        pieces.append(piece)
        room -= len(piece)
    if response.length and room > 0:
        from http.client import IncompleteRead

        raise IncompleteRead(b"", response.length)
    return b"".join(pieces)


def _request(parts: SplitResult, host: str, headers: Dict[str, str]) -> bytes:
    target = (parts.path or "/") + ("?" + parts.query if parts.query else "")
    name = "[%s]" % host if ":" in host else host
    fields = {
        "host": ("Host", name if parts.port is None else "%s:%d" % (name, parts.port)),
        "user-agent": ("User-Agent", "deployguard"),
        "accept": ("Accept", "*/*"),
        "accept-encoding": ("Accept-Encoding", "identity"),
    }
    authorization = _basic(parts.username, parts.password)
    if authorization:
        fields["authorization"] = ("Authorization", authorization)
    for key, value in headers.items():
        fields[key.lower()] = (key, value)
    fields["connection"] = ("Connection", "close")
    lines = ["GET %s HTTP/1.1" % target, *("%s: %s" % field for field in fields.values())]
    if any(character in line for line in lines for character in "\r\n\0"):
        raise ValueError("a line break in the URL or a header")
    return "\r\n".join([*lines, "", ""]).encode("utf-8")


def _basic(username: Optional[str], password: Optional[str]) -> str:
    if username is None:
        return ""
    import base64
    from urllib.parse import unquote

    pair = "%s:%s" % (unquote(username), unquote(password or ""))
    return "Basic " + base64.b64encode(pair.encode("utf-8")).decode("ascii")


def _tls(verify: bool) -> Any:
    import ssl

    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
