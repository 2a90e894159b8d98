"""Finds the host program, or takes it over the wire, and becomes it.

This file is sent as it is: it runs alone, before anything else is on the host, so it must load
under every Python 3.4 or later in order to say politely that 3.8 is needed. Every connection
compiles and runs it, so it is short and imports nothing that Python has not loaded anyway.
``payload.py`` puts the call of ``start`` below it. It answers in lines that begin with a marker,
because a login shell may have printed before us: ``have`` and the program runs; ``need``, then
``ready`` when it came; ``refuse`` and why.
"""

# An old Python must be able to read this far; what is executed is our own installer.
# ruff: noqa: UP031, UP036, S102

import os
import stat
import sys


class Refusal(Exception):
    """Why the program cannot be started; the message is for the person at the controller."""


class Log:
    """Standard error that cannot fail: a restore goes on when nobody is left to read it."""

    def write(self, text: str) -> int:
        try:
            os.write(2, text.encode("utf-8", "backslashreplace"))
        except OSError:
            pass
        return len(text)

    def flush(self) -> None:
        pass


def say(marker: str, word: str, text: str = "") -> None:
    line = marker + word + " " + text.replace("\n", " ") + "\n"
    os.write(1, line.encode("utf-8", "backslashreplace"))


def private_directory(path: str) -> None:
    """Make sure that nobody else can put a program, or a journal, in our way."""
    try:
        os.makedirs(os.path.dirname(path), 0o755, True)
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise Refusal("the state directory %s is not a real directory" % path)
    if found.st_uid != os.geteuid():
        raise Refusal(
            "the state directory %s belongs to uid %d, not to uid %d"
            % (path, found.st_uid, os.geteuid())
        )
    if found.st_mode & 0o022:
        raise Refusal(
            "others may write to the state directory %s; look at what is in it, then: chmod 700"
            % path
        )
    if found.st_mode & 0o077:
        os.chmod(path, 0o700)


def state_directory(given: str) -> str:
    if given:
        return given
    if os.geteuid() == 0:
        return "/var/lib/deployguard"
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    if not os.path.isabs(base):
        raise Refusal("no home directory to keep the state in; set state_directory in the plan")
    return os.path.join(base, "deployguard")


def hold(home: str) -> bool:
    """Whether the program is there; if so, mark it as used, so that nobody prunes it."""
    import fcntl

    try:
        held = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(held, fcntl.LOCK_SH)
        os.utime(home)
        return os.stat(home).st_ino == os.fstat(held).st_ino
    except OSError:
        return False


def take(programs: str, sha256: str) -> None:
    """Take what is needed the first time only: ``installation.py`` and the archive."""
    code, archive, length = (int(word) for word in receive(36).split())
    exec(receive(code), globals())
    globals()["install"](programs, sha256, receive(archive), length)


def receive(size: int) -> bytes:
    import select

    pieces = []
    while size > 0:
        # Behind a network that was cut the input does not end for hours.
        if not select.select([0], [], [], 60)[0]:
            raise Refusal("nothing came for 60 s, and the program had not come over")
        piece = os.read(0, min(size, 65536))
        if not piece:
            raise Refusal("the connection ended before the program had come over")
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def start(marker: str, sha256: str, given: str) -> None:
    import signal

    # Who read this far set it, for the case that the rest of this text would never come.
    signal.alarm(0)
    try:
        if sys.version_info < (3, 8):
            raise Refusal(
                "%s is Python %d.%d; 3.8 or later is needed"
                % ((sys.executable or "python3",) + tuple(sys.version_info[:2]))
            )
        directory = state_directory(given)
        programs = os.path.join(directory, "program")
        home = os.path.join(programs, sha256)
        private_directory(directory)
        os.makedirs(programs, 0o700, True)
        if hold(home):
            say(marker, "have")
        else:
            say(marker, "need")
            take(programs, sha256)
            if not hold(home):
                raise Refusal("the program vanished from %s" % home)
            say(marker, "ready")
    except OSError as error:
        words = "uid %d cannot use the state directory: %s" % (os.geteuid(), error)
        say(marker, "refuse", words)
        sys.exit(1)
    except Refusal as error:
        say(marker, "refuse", str(error))
        sys.exit(1)
    # Whatever prints, in the program or in what it starts, must not print into the frames; and
    # copies made by dup are not inherited, so nothing it starts keeps the connection open.
    frames_in, frames_out = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.stdout = sys.stderr = Log()
    sys.path.insert(0, home)
    from deployguard.onhost import serve

    sys.exit(serve.main(frames_in, frames_out, directory))
