"""From a running bootstrap to a session: the same over SSH and on this machine.

Whatever goes wrong here, nothing on the host was touched, so all of it is ``Unreachable``; what
the shell, sudo or Python said is turned into what is wrong and what to do.
"""

from __future__ import annotations

import re
import time

from deployguard.errors import ConnectionLost, ProtocolError, Unreachable
from deployguard.plan.model import Host
from deployguard.transport.base import Link
from deployguard.transport.payload import MARKER, Program
from deployguard.transport.session import Session

__all__ = ["PYTHON_HINT", "explain", "greet"]

PYTHON_HINT = "name a Python 3.8 or later as `python` of the host in the plan"
_STATE_HINT = (
    "set `become: true` for the host in the plan, or a `state_directory` that the user may write to"
)
_SUDO_HINT = (
    "allow it on the host, as in `USER ALL=(ALL) NOPASSWD: ALL` in a file in /etc/sudoers.d "
    "made with visudo, or connect as root without become"
)
#: For the login shell, sudo, Python and the program to start; a loaded host takes seconds.
_TIMEOUT = 30.0
#: How much a login shell may print before the bootstrap speaks.
_NOISE = 256 * 1024


def greet(host_name: str, host: Host, link: Link, program: Program, bootstrap: bytes) -> Session:
    """The session with the program on ``link``, whose command has been started.

    Closes the link and raises :class:`Unreachable` when there will be none.
    """
    try:
        return _greet(host_name, host, link, program, bootstrap)
    except BaseException:
        link.close()
        raise


def _greet(host_name: str, host: Host, link: Link, program: Program, bootstrap: bytes) -> Session:
    deadline = time.monotonic() + _TIMEOUT
    try:
        link.write(bootstrap, _TIMEOUT)
        word, text = _answer(link, deadline)
        if word == "need":
            link.write(program.parcel(), _TIMEOUT)
            word, text = _answer(link, deadline)
        if word == "refuse":
            hint = PYTHON_HINT if "3.8 or later" in text else ""
            if "Permission denied" in text:
                hint = _STATE_HINT
            raise Unreachable(host_name, text, hint=hint)
        if word not in ("have", "ready"):
            raise _silent(host_name, host, link)
        return Session(host_name, link, hello_timeout=max(1.0, deadline - time.monotonic()))
    except TimeoutError:
        reason = f"the host program did not start within {_TIMEOUT:.0f} s"
        words = link.last_words()
        raise Unreachable(host_name, f"{reason}: {words}" if words else reason) from None
    except OSError:
        # The command ended while we wrote to it, and said why on its standard error.
        raise _silent(host_name, host, link) from None
    except (ConnectionLost, ProtocolError) as error:
        reason = f"the host program did not start: {error.reason}"
        raise Unreachable(host_name, reason) from error


def _answer(link: Link, deadline: float) -> tuple[str, str]:
    """The next line that begins with the marker, as its first word and the rest."""
    marker, noise = MARKER.encode(), 0
    while noise < _NOISE:
        link.patience(max(0.0, deadline - time.monotonic()))
        line = link.reader.readline(_NOISE)
        if not line:
            return "", ""
        # Not only at the start of a line: a prompt or a motd may lack its newline.
        _, found, said = line.partition(marker)
        if found:
            word, _, text = said.decode("utf-8", "replace").strip().partition(" ")
            return word, text
        noise += len(line)
    return "", ""


def _silent(host_name: str, host: Host, link: Link) -> Unreachable:
    """Why a command ended, or went on, without a word from the bootstrap."""
    status, words = link.exit_status(), link.last_words()
    reason, hint = explain(status, words, host.python)
    return Unreachable(host_name, reason, hint=hint)


def explain(status: int | None, words: str, python: str) -> tuple[str, str]:
    """What the exit status and standard error of a start that failed mean, and the mend."""
    last = words.strip().rpartition("\n")[2]
    if words.startswith("sudo:") or "\nsudo:" in words:
        if "command not found" in words:
            return f"{python} was not found ({last})", PYTHON_HINT
        return f"sudo would not run without asking ({last})", _SUDO_HINT
    if status == 127 and re.search(r"\bsudo\b", last):
        return f"there is no sudo ({last})", "install sudo, or connect as root without become"
    if status in (126, 127):
        return f"{python} could not be run ({last})", PYTHON_HINT
    if re.search(r"unknown option:? -I", words, re.IGNORECASE):
        return f"{python} is too old; Python 3.8 or later is needed", PYTHON_HINT
    what = "ended" if status is None else f"ended with exit status {status}"
    reason = f"the start of the host program {what} without an answer"
    hint = "try `ssh HOST python3 -V`; a forced command or a restricted shell does not work"
    return (f"{reason}: {words.strip()}" if last else reason), hint
