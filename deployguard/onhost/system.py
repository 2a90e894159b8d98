"""The only module on the host that spawns processes, sleeps and reads clocks.

Everything else gets a :class:`System` as an argument, so that a test hands in one whose clock
moves when it says so. Programs are argv lists and never go through a shell.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from deployguard.onhost.child import Child
from deployguard.onhost.excerpts import last_line

MAX_OUTPUT = 1024 * 1024
TERM_GRACE = 2.0
NOT_FOUND = 127
NOT_ALLOWED = 126

_DRAIN_AFTER_KILL = 1.0


class Completed(NamedTuple):
    """How a program ended. ``status`` is negative when a signal ended it (-9 is SIGKILL), 127
    when there is no such program, directory or user, 126 when it may not be run."""

    argv: Tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes
    timed_out: bool
    seconds: float

    @property
    def ok(self) -> bool:
        """It ended by itself, in time, with status 0."""
        return self.status == 0 and not self.timed_out

    @property
    def text(self) -> str:
        """What it wrote to stdout, as text."""
        return self.stdout.decode("utf-8", "replace")

    def describe(self) -> str:
        """One line for a message: what ran, how it ended, and the last thing it said."""
        said = (self.stderr.strip() or self.stdout.strip()).decode("utf-8", "replace")
        last = last_line(said, 300)
        if self.timed_out:
            how = "did not end within %.1f s and was killed" % self.seconds
        elif self.status < 0:
            how = "was ended by signal %d" % -self.status
        else:
            how = "ended with status %d" % self.status
        return "%s %s%s" % (" ".join(self.argv), how, ": " + last if last else "")


class Lanes:
    """Calls that run beside each other, one thread each, and report in the order they end.

    A call that never ends costs its thread and nothing else: the threads are daemons and nobody
    joins them.
    """

    def __init__(self) -> None:
        import queue

        self._ended: "queue.SimpleQueue[Tuple[str, Any]]" = queue.SimpleQueue()

    def start(self, key: str, call: Callable[[], Any]) -> None:
        """Run ``call`` in a thread; its result, or its exception as a value, comes from
        :meth:`wait` under ``key``."""
        import threading

        def body() -> None:
            try:
                result = call()
            except Exception as error:  # noqa: BLE001 - handed to whoever waits
                result = error
            self._ended.put((key, result))

        threading.Thread(target=body, name="lane " + key, daemon=True).start()

    def wait(self, seconds: float) -> Optional[Tuple[str, Any]]:
        """The next (key, result), or ``None`` when none came within ``seconds``."""
        import queue

        try:
            return self._ended.get(timeout=max(seconds, 0.0))
        except queue.Empty:
            return None


class System:
    """Clocks, sleep and processes of the real machine. Tests subclass it."""

    def now(self) -> float:
        """UTC seconds since the epoch: for records, never for measuring."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that only go forward and go on while the machine is suspended."""
        clock = getattr(time, "CLOCK_BOOTTIME", None)
        return time.monotonic() if clock is None else time.clock_gettime(clock)

    def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        time.sleep(max(seconds, 0.0))

    def lanes(self) -> Lanes:
        """A fresh set of concurrent calls."""
        return Lanes()

    def together(self, key: str, call: Callable[[], Any]) -> Any:
        """The result of ``call``, shared by all who ask for ``key`` at the same time."""
        from deployguard.onhost.together import Together

        shared: Together = self.__dict__.setdefault("_together", Together())
        return shared.ask(key, call)

    def boot_id(self) -> str:
        """The kernel's id of this boot, or empty where it has none."""
        try:
            with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
                return stream.read().strip()
        except OSError:
            return ""

    def process_start_time(self, pid: int) -> Optional[int]:
        """Start time of a living process in clock ticks since boot, else ``None``.

        A zombie has ended: it only waits for its parent to take note.
        """
        return _start_time("/proc/%d/stat" % pid)

    def stopped(self, pid: int) -> bool:
        """Whether the process stands still until somebody sends SIGCONT."""
        try:
            with open("/proc/%d/stat" % pid, "rb") as file:
                return file.read().rpartition(b")")[2].split()[0] == b"T"
        except (OSError, IndexError):
            return False

    def alive(self, pid: int, start_time: int) -> bool:
        """Whether exactly this process, and not a later one with its pid, is running."""
        return self.process_start_time(pid) == start_time

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Optional[Mapping[str, Optional[str]]] = None,
        cwd: Optional[str] = None,
        timeout: float,
        input: Optional[bytes] = None,  # noqa: A002 - named as in subprocess
        max_output: int = MAX_OUTPUT,
        user: Optional[str] = None,
        grace: float = TERM_GRACE,
        clean: bool = False,
        output: Optional[int] = None,
        leashed: bool = False,
        apart: bool = False,
    ) -> Completed:
        """Run a program to its end, or for ``timeout`` seconds. Never raises for a program that
        cannot be started.

        It gets a session of its own. At the timeout the whole group gets SIGTERM, and after
        ``grace`` SIGKILL. Daemons that the program leaves behind after a normal end live on, and
        holding its pipes open does not hold us. Each of stdout and stderr is kept up to
        ``max_output`` bytes, the first and the last half. ``env`` is added to our own
        environment, from which it takes what it names as ``None``; with ``clean`` it is all of it.
        ``user`` needs root. What the program writes to stdout goes to the descriptor ``output``,
        where one is given, and none of it is kept.
        What it leaves behind ``apart`` is no part of a unit of ours; see :mod:`.scope`.
        One that is ``leashed`` is killed when we are: it must not go on writing somewhere else
        while a dead-man restores.
        """
        import subprocess

        began = self.monotonic()

        def failed(status: int, message: str) -> Completed:
            seconds = self.monotonic() - began
            return Completed(tuple(argv), status, b"", message.encode(), False, seconds)

        try:
            become, account = _account(user)
            command, become = self._apart(argv, user, become) if apart else (list(argv), become)
            if leashed:
                become = _leash(become)
            process = subprocess.Popen(
                command,
                env=_named(env) if clean else _environment(account, env),
                cwd=cwd,
                stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
                stdout=subprocess.PIPE if output is None else output,
                stderr=subprocess.PIPE,
                start_new_session=True,
                preexec_fn=become,  # noqa: PLW1509 - it makes system calls only
            )
        except (FileNotFoundError, NotADirectoryError, LookupError) as error:
            return failed(NOT_FOUND, "cannot run %s: %s" % (" ".join(argv), error))
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            return failed(NOT_ALLOWED, "cannot run %s: %s" % (" ".join(argv), error))

        child = Child(process, input, max_output, time.monotonic, time.sleep)
        try:
            timed_out = not child.pump(timeout)
            if timed_out:
                child.signal(signal.SIGTERM)
                child.pump(grace)
                child.signal(signal.SIGKILL)
                child.pump(_DRAIN_AFTER_KILL)
        finally:
            child.close()
        return Completed(
            tuple(argv),
            child.status(),
            child.output.value(),
            child.errors.value(),
            timed_out,
            self.monotonic() - began,
        )

    def spawn_detached(
        self,
        argv: Sequence[str],
        *,
        log_path: str,
        env: Optional[Dict[str, str]] = None,
        cwd: Optional[str] = None,
        user: Optional[str] = None,
        apart: bool = False,
    ) -> int:
        """Start a program that outlives us and return its pid.

        It leads a session of its own, is a child of init, and has stdin from /dev/null, stdout
        and stderr appended to ``log_path`` and no other descriptor of ours. Raises ``OSError``
        when it cannot be started, ``LookupError`` for an unknown user. ``apart`` as above; else it
        stays in our control group.
        """
        import subprocess

        become, account = _account(user)
        command, become = self._apart(argv, user, become) if apart else (list(argv), become)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        log = os.open(log_path, flags, 0o640)
        reader, writer = os.pipe()

        def fork_again() -> None:
            # The first child ends here and leaves the second to init; Popen still hears of a
            # failing exec, since the second child has the pipe for that too.
            if os.fork():
                os._exit(0)
            os.setsid()
            os.write(writer, b"%d" % os.getpid())
            if become is not None:
                become()

        try:
            if account is not None and os.fstat(log).st_uid != account[1]:
                os.fchown(log, account[1], account[2])
            first = subprocess.Popen(
                command,
                env=_environment(account, env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=fork_again,  # noqa: PLW1509 - as above
            )
            first.wait()
            return int(os.read(reader, 32))
        finally:
            for descriptor in (log, reader, writer):
                os.close(descriptor)

    def _apart(
        self, argv: Sequence[str], user: Optional[str], become: Optional[Callable[[], None]]
    ) -> Tuple[List[str], Optional[Callable[[], None]]]:
        from deployguard.onhost import scope

        command = scope.wrapped(argv, user, self)
        return (list(argv), become) if command is None else (command, None)


_Account = Tuple[str, int, int, str]


def _account(user: Optional[str]) -> Tuple[Optional[Callable[[], None]], Optional[_Account]]:
    """What to call in the child to become ``user``, and who that is. ``LookupError`` if nobody."""
    if user is None:
        return None, None
    import pwd

    entry = pwd.getpwnam(user)
    uid, gid = entry.pw_uid, entry.pw_gid
    account = (entry.pw_name, uid, gid, entry.pw_dir)
    if uid == os.geteuid():
        return None, account
    if os.geteuid() != 0:
        raise PermissionError("only root can run a program as %s" % user)
    # Looked up here: the child of a fork with threads must not call into the name service.
    groups = os.getgrouplist(entry.pw_name, gid)

    def become() -> None:
        os.setgroups(groups)
        os.setgid(gid)
        os.setuid(uid)

    return become, account


_PR_SET_PDEATHSIG = 1


def _leash(become: Optional[Callable[[], None]]) -> Optional[Callable[[], None]]:
    """``become``, and then have the kernel kill the child when the thread that started it is gone.

    Where the C library cannot be asked for that, the child is on no leash.
    """
    try:
        import ctypes

        prctl = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return become
    parent = os.getpid()

    def leash() -> None:
        if become is not None:
            become()  # first: another user's process is on no leash of ours
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(NOT_ALLOWED)

    return leash


def _environment(
    account: Optional[_Account], extra: Optional[Mapping[str, Optional[str]]]
) -> Dict[str, str]:
    environment = dict(os.environ)
    uid = os.geteuid() if account is None else account[1]
    if account is not None:
        environment.update(USER=account[0], LOGNAME=account[0], HOME=account[3])
        environment.pop("XDG_RUNTIME_DIR", None)
    # `systemctl --user` finds its manager through this; a plain SSH command often lacks it.
    runtime = "/run/user/%d" % uid
    if "XDG_RUNTIME_DIR" not in environment and os.path.isdir(runtime):
        environment["XDG_RUNTIME_DIR"] = runtime
    for name, value in (extra or {}).items():
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = value
    return environment


def _named(env: Optional[Mapping[str, Optional[str]]]) -> Dict[str, str]:
    return {name: value for name, value in (env or {}).items() if value is not None}


def _start_time(path: str) -> Optional[int]:
    try:
        with open(path, "rb") as stream:
            text = stream.read()
    except OSError:
        return None
    # The name in parentheses may hold spaces and parentheses; the fields follow the last one.
    fields: List[bytes] = text[text.rfind(b")") + 1 :].split()
    if len(fields) < 20 or fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19])
