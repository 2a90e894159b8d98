"""Controllers to be killed: each a process of its own, without the second that a start costs.

One process has imported deployguard and does nothing but fork. A child is ``deployguard ARGUMENTS``
in its own directory and environment, with nothing else of ours in it: it can be killed like any.

Two numbers are smaller than in life, or the proofs would take days: the least lease that a plan
may ask for, and the seconds of silence after which a connection counts as lost.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

#: Instead of 30.
SILENCE = 6
#: Instead of 5.
LEAST_LEASE = 0.5


class Controller:
    """One run of ``deployguard``."""

    def __init__(self, pid: int, ended: Future[int], out: Path, err: Path) -> None:
        self.pid = pid
        self._ended = ended
        self._out, self._err = out, err

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return not self._ended.done()

    def wait(self, timeout: float = 120.0) -> int:
        """The exit code; minus the signal's number for one that was killed."""
        try:
            return self._ended.result(timeout)
        except TimeoutError:
            raise TimeoutError(f"the controller goes on and on:\n{self.text}") from None

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        if self.running:
            os.kill(self.pid, signal.SIGKILL)
        self.wait()

    @property
    def text(self) -> str:
        """What it said to people."""
        return self._err.read_text(errors="replace")

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What it said to programs; a line that was cut short is left out."""
        found = []
        for line in self._out.read_text(errors="replace").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found


class Controllers:
    """Starts controllers. To be made inside the hosts' network, which the children inherit."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.controllers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        self._lock = threading.Lock()
        self._number = 0
        self._pids: dict[int, Future[int]] = {}
        self._ends: dict[int, Future[int]] = {}
        threading.Thread(target=self._read, name="controllers", daemon=True).start()

    def __enter__(self) -> Controllers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End, and kill the controllers that still run."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)

    def start(
        self,
        arguments: Sequence[str],
        directory: Path,
        environment: Mapping[str, str],
        name: str = "run",
    ) -> Controller:
        """``deployguard ARGUMENTS`` in a directory, with what it says in files there."""
        out, err = directory / f"{name}.out", directory / f"{name}.err"
        pid: Future[int] = Future()
        end: Future[int] = Future()
        with self._lock:
            self._number += 1
            number = self._number
            self._pids[number], self._ends[number] = pid, end
            request = {
                "number": number,
                "arguments": list(arguments),
                "directory": str(directory),
                "environment": {**os.environ, **environment},
                "out": str(out),
                "err": str(err),
            }
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        return Controller(pid.result(60), end, out, err)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            number = message["number"]
            if "pid" in message:
                self._pids.pop(number).set_result(message["pid"])
            else:
                self._ends.pop(number).set_result(message["code"])
        for waiting in [*self._pids.values(), *self._ends.values()]:
            waiting.set_exception(RuntimeError("the process that starts controllers has died"))


# --- the process that forks ----------------------------------------------------------------------


def _prepare() -> None:
    """Import all that a controller would, and make the two numbers smaller."""
    import importlib
    import pkgutil

    import deployguard
    from deployguard.cli.main import COMMANDS

    for command in COMMANDS:
        importlib.import_module(f"deployguard.cli.{command}")
    for found in pkgutil.walk_packages(deployguard.__path__, "deployguard."):
        skipped = ("deployguard.testing", "deployguard.onhost", "deployguard.__main__")
        if not found.name.startswith(skipped):
            importlib.import_module(found.name)

    from deployguard.plan import model
    from deployguard.transport import session, ssh

    model.Plan.model_fields["lease"].metadata = [
        annotated
        for annotated in model.Plan.model_fields["lease"].metadata
        if not hasattr(annotated, "ge")
    ]
    model.Plan.model_rebuild(force=True)
    ssh._SILENCE = SILENCE
    session.SILENCE = float(SILENCE)
    gc.collect()
    gc.freeze()


def _serve() -> None:
    """Fork for every line; say which pid, and how it ended."""
    _prepare()
    wake, woken = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken)
    numbers: dict[int, int] = {}
    pending = b""
    open_ = True
    while open_ or numbers:
        ready, _, _ = select.select([wake, *([0] if open_ else [])], [], [])
        if 0 in ready:
            data = os.read(0, 1 << 20)
            open_ = bool(data)
            if not open_:
                for pid in numbers:
                    os.kill(pid, signal.SIGKILL)
            pending += data
            *whole, pending = pending.split(b"\n")
            for line in whole:
                request = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    os.close(wake)
                    os.close(woken)
                    _run(request)
                numbers[pid] = request["number"]
                _say({"number": request["number"], "pid": pid})
        if wake in ready:
            os.read(wake, 1 << 16)
        while numbers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            _say({"number": numbers.pop(pid), "code": os.waitstatus_to_exitcode(status)})


def _say(message: dict[str, Any]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


def _run(request: dict[str, Any]) -> None:
    """In the child: be ``deployguard``."""
    code = 70
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        for number, handle in enumerate(
            [nothing, os.open(request["out"], flags, 0o644), os.open(request["err"], flags, 0o644)]
        ):
            os.dup2(handle, number)
            os.close(handle)
        os.chdir(request["directory"])
        os.environ.clear()
        os.environ.update(request["environment"])
        from deployguard.cli.main import run

        code = run(request["arguments"])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve()
