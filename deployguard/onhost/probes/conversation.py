"""One look at a server that speaks a protocol of its own: what went wrong, as a state and in words.

The same for all of them: a server that refuses, hangs up, answers too late or speaks something else
is unhealthy; a name that does not resolve, a password that cannot be read and whatever else keeps
us from asking is unknown.
"""

from __future__ import annotations

import os
import socket
from typing import Callable, Optional

from deployguard.onhost.excerpts import shorten
from deployguard.onhost.probes.base import (
    UNHEALTHY,
    UNKNOWN,
    CheckData,
    Finding,
    connection_state,
    finding,
)
from deployguard.onhost.protocols import wire
from deployguard.onhost.system import System

#: Of an answer that findings show.
EXCERPT = 200
#: A password file is one line.
_MAX_PASSWORD = 4096

Talk = Callable[[wire.Wire, Optional[str]], Finding]
#: The server's refusal in words, or ``None`` for its own.
Refusal = Callable[[wire.Denied], Optional[str]]


def converse(
    check: CheckData, system: System, service: str, talk: Talk, refusal: Refusal
) -> Finding:
    """Connect, and ``talk`` within the check's timeout. ``service`` is the name of the program."""
    import ssl

    left = wire.countdown(system.monotonic, check["timeout"])
    at = place(check)
    who = "%s at %s" % (service, at)
    try:
        password = password_of(check)
        line = wire.dial(check["address"], check["number"], check.get("socket"), left)
        try:
            return talk(line, password)
        finally:
            line.close()
    except wire.Denied as error:
        words = refusal(error) or _own_words(error)
        return finding(UNHEALTHY, "%s %s" % (who, words), observed={"code": error.code})
    except wire.Garbled as error:
        return finding(UNHEALTHY, "what listens at %s is no %s: %s" % (at, service, error))
    except wire.Unsupported as error:
        return finding(UNKNOWN, "%s: %s" % (who, error))
    except socket.timeout:
        return finding(UNHEALTHY, "%s did not answer within %.1f s" % (who, check["timeout"]))
    except socket.gaierror as error:
        return finding(UNKNOWN, "cannot resolve %s: %s" % (check["address"], error.strerror))
    except (ConnectionRefusedError, FileNotFoundError):
        return finding(UNHEALTHY, "no %s listens at %s" % (service, at))
    except ssl.SSLCertVerificationError as error:
        return finding(UNHEALTHY, "%s: TLS: %s" % (who, error.verify_message))
    except ssl.SSLError as error:
        return finding(UNHEALTHY, "%s: TLS: %s" % (who, error.reason or error))
    except OSError as error:
        return finding(connection_state(error), "%s: %s" % (who, error.strerror or error))


def _own_words(error: wire.Denied) -> str:
    return "says: %s%s" % (error.message, " (%s)" % error.code if error.code else "")


def place(check: CheckData) -> str:
    """Where the server is, as people write it."""
    if check.get("socket"):
        return check["socket"]
    address = "[%s]" % check["address"] if ":" in check["address"] else check["address"]
    return "%s:%d" % (address, check["number"])


def unexpected(check: CheckData, total: int, value: Optional[str]) -> str:
    """What is wrong with the answer to the check's query, or nothing."""
    expected = check.get("expect")
    if expected is None or value == expected:
        return ""
    if not total:
        return "the query gives no row, expected %r" % expected
    return "the answer is %s, expected %r" % (_quoted(value), expected)


def given(check: CheckData) -> str:
    """What the server was given to let us in, in words; the name is not followed by a colon, or it
    would be taken for that of a secret whose value comes next."""
    return "it was given %s" % check.get("credential", "no password")


def value_shown(value: object) -> Optional[str]:
    """An answer as a finding holds it."""
    return None if value is None else shorten(str(value), EXCERPT)


def _quoted(value: Optional[str]) -> str:
    return "empty (NULL)" if value is None else repr(shorten(value, EXCERPT))


def password_of(check: CheckData, name: str = "password") -> Optional[str]:
    """The password that came with the check, or the first line of its file on this host.

    Raises :class:`wire.Unsupported` for a file that cannot be read: what the server would say to
    no password at all is beside the point.
    """
    given = check.get("secret", {}).get(name)
    path = check.get("password_file")
    if given is not None or not path:
        return given
    try:
        # Not blocking: opening a pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            data = stream.read(_MAX_PASSWORD + 1) or b""
        first = data.split(b"\n", 1)[0].rstrip(b"\r").decode("utf-8")
    except OSError as error:
        reason = "cannot read the password in %s: %s" % (path, error.strerror)
        raise wire.Unsupported(reason) from None
    except UnicodeDecodeError:
        raise wire.Unsupported("the password in %s is no text" % path) from None
    if not first or len(data) > _MAX_PASSWORD:
        raise wire.Unsupported("%s does not hold a password in its first line" % path)
    return first
