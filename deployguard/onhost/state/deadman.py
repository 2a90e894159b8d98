"""The dead-man: a process, or a timer, that ends a transaction when its program no longer can.

It is armed before anything live is touched. What it then does is in
:mod:`deployguard.onhost.unattended`; here is how it comes to run:

``systemd``
    As root where systemd runs. A transient timer starts it at the end of the first lease, in a
    unit of its own, so that it does not matter what becomes of the connection, its session and
    its cgroup; and a unit starts it at boot, so that a reboot ends in a restore.
``process``
    Elsewhere. A detached process that waits. A reboot takes it along.

Both are gone when the transaction is settled, and each ends by itself when it finds nothing to do:
a crash on the way to :func:`disarm` leaves nothing that stays.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, Dict, List, Optional

from deployguard.onhost import durable
from deployguard.onhost.places import State, read_json, write_json
from deployguard.onhost.scope import SYSTEMD_RUN, own_cgroup
from deployguard.onhost.system import System

UNITS = "/etc/systemd/system"
_RUNTIME = "/run/systemd/system"
_WANTS = "multi-user.target.wants"
_PROCESS = "deadman.json"
_TIMEOUT = 20.0

# No semicolon: systemd writes it as `\;` into the file of a transient unit, and reads that back
# as it stands with the next daemon-reload, which a deploy of a unit file asks for.
_START = (
    "__import__('sys').path.insert(0, __import__('sys').argv[1]) or __import__('sys').exit("
    "__import__('deployguard.onhost.unattended', fromlist=['main'])"
    ".main(*__import__('sys').argv[2:]))"
)

#: It must not be given up: a disk that is full now need not be full in a minute.
_PROPERTIES = (
    "KillMode=process",
    "OOMScoreAdjust=-900",
    "Restart=on-failure",
    "RestartSec=1s",
    "StartLimitIntervalSec=0",
)

_BOOT_UNIT = """\
[Unit]
Description=deployguard: finish deploy %(id)s, which a reboot interrupted
After=local-fs.target remote-fs.target
StartLimitIntervalSec=0

[Service]
ExecStart=%(command)s
Restart=on-failure
RestartSec=1s
"""


class Deadman:
    """The dead-man of one transaction."""

    def __init__(self, state: State, folder: str, system: System) -> None:
        self._state = state
        self._folder = folder
        self._system = system
        self._identifier = os.path.basename(folder)
        self._unit = "deployguard-" + self._identifier
        self._boot = "deployguard-boot-%s.service" % self._identifier
        self._booted = "deployguard-booted-%s.service" % self._identifier

    def arm(self, lease: float) -> str:
        """Make sure that one will run; answers with its kind. May be repeated.

        Raises :class:`OSError` where neither kind can be had.
        """
        if os.geteuid() == 0 and os.path.isdir(_RUNTIME) and self._timer(lease):
            self._install_boot_unit()
            return "systemd"
        self._spawn()
        return "process"

    def disarm(self) -> None:
        """Take it away, process and units; fine when there is none."""
        self._remove_boot_unit()
        pid = self.pid()
        if pid is not None and pid != os.getpid():
            os.kill(pid, signal.SIGKILL)
        _unlink(os.path.join(self._folder, _PROCESS))
        if os.geteuid() == 0 and os.path.isdir(_RUNTIME):
            self._stop_units()

    def _stop_units(self) -> None:
        # Not the service of the timer: that may be us, and it ends when it sees that all is done.
        units = [self._unit + ".timer"]
        booted = self._booted in own_cgroup()
        if not booted:
            units += [self._boot, self._booted]
        stop = ["systemctl", "--no-block", "stop", *units]
        done = self._system.run(stop, env={"LC_ALL": "C"}, timeout=_TIMEOUT)
        unknown = b"Unit %s not loaded" % self._boot.encode("ascii")
        if booted or unknown not in done.stderr:
            # It has no file any more, but somebody's daemon-reload had made systemd learn of it.
            self._system.run(["systemctl", "daemon-reload"], timeout=_TIMEOUT)

    def _command(self) -> List[str]:
        program = os.path.abspath(__file__)
        for _ in __name__.split("."):
            program = os.path.dirname(program)
        python = sys.executable or "/usr/bin/python3"
        options = ["-I", "-S", "-X", "utf8", "-c", _START]
        return [python, *options, program, self._state.root, self._identifier]

    def _timer(self, lease: float) -> bool:
        argv = self._transient(self._unit, "dead-man of deploy " + self._identifier)
        argv += ["--on-active=%.3fs" % max(lease, 0.1), "--timer-property=AccuracySec=50ms"]
        done = self._system.run([*argv, "--", *self._command()], timeout=_TIMEOUT)
        # Armed by the process before us, for the same transaction.
        return done.ok or b"already" in done.stderr

    @staticmethod
    def _transient(unit: str, description: str) -> List[str]:
        argv = ["systemd-run", "--quiet", "--collect", "--unit=" + unit]
        argv += ["--description=deployguard: " + description]
        return argv + ["--property=" + value for value in _PROPERTIES]

    def _install_boot_unit(self) -> None:
        # It only starts a transient one. That keeps its settings when this file is removed and
        # systemd reads its units anew, all of which is done while the dead-man still runs.
        finish = "finish deploy %s, which a reboot interrupted" % self._identifier
        start = self._transient(self._booted, finish)
        start[0] = next((path for path in SYSTEMD_RUN if os.path.exists(path)), SYSTEMD_RUN[0])
        command = _unit_words([*start, "--", *self._command()])
        text = _BOOT_UNIT % {"id": self._identifier, "command": command}
        path = os.path.join(UNITS, self._boot)
        self._write_unit(path, text.encode("utf-8"))
        wants = os.path.join(UNITS, _WANTS)
        durable.make_directory(wants)
        link = os.path.join(wants, self._boot)
        if not os.path.lexists(link):
            os.symlink(path, link)
            durable.fsync_dir(wants)

    @staticmethod
    def _write_unit(path: str, text: bytes) -> None:
        try:
            with open(path, "rb") as file:
                if file.read() != text:
                    # It is relied on already.
                    durable.write_file(path, text, 0o644)
        except FileNotFoundError:
            # No half-written file of another name may stay if we are killed here.
            durable.write_new(path, text, 0o644)

    def _remove_boot_unit(self) -> None:
        link = os.path.join(UNITS, _WANTS, self._boot)
        if _unlink(link) | _unlink(os.path.join(UNITS, self._boot)):
            durable.fsync_dir(os.path.dirname(link))
            durable.fsync_dir(UNITS)

    def _spawn(self) -> None:
        if self.pid() is not None:
            return
        log = os.path.join(self._folder, "deadman.log")
        pid = self._system.spawn_detached(self._command(), log_path=log, cwd="/")
        started = self._system.process_start_time(pid)
        write_json(os.path.join(self._folder, _PROCESS), {"pid": pid, "start_time": started})

    def pid(self) -> Optional[int]:
        """The pid of the detached process, if it lives."""
        known: Dict[str, Any] = read_json(os.path.join(self._folder, _PROCESS)) or {}
        pid, started = known.get("pid"), known.get("start_time")
        if pid is None or started is None or not self._system.alive(int(pid), int(started)):
            return None
        return int(pid)


def _unit_words(argv: List[str]) -> str:
    """A command line as a unit file has it; see systemd.service(5), "Command lines"."""
    words = []
    for word in argv:
        for plain, written in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
            word = word.replace(plain, written)
        words.append('"%s"' % word)
    return " ".join(words)


def _unlink(path: str) -> bool:
    try:
        os.unlink(path)
        return True
    except FileNotFoundError:
        return False
