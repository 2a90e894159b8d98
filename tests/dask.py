"""A real Dask scheduler and workers, each a process of a test's own that can be killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.fleet.container import until

_STARTED = 600.0


class Program:
    """``dask NAME`` with a log."""

    def __init__(self, log: Path, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).with_name("dask")), *arguments, "--no-dashboard"],
                cwd=log.parent,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def says(self, words: str) -> None:
        """Wait until the log has these words."""
        deadline = time.monotonic() + _STARTED
        assert until(lambda: words in self.text or self.process.poll() is not None, deadline), (
            self.text
        )
        assert self.process.poll() is None, self.text

    @property
    def text(self) -> str:
        """What it has said."""
        return self.log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL; what it has said stays."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Cluster:
    """A scheduler, and workers as a test wants them: one thread each, and no nanny."""

    def __init__(self, folder: Path, tls: Mapping[str, str] | None = None) -> None:
        folder.mkdir()
        self.folder = folder
        self.workers: list[Program] = []
        #: Processes that use it, and end with it at the latest.
        self.deploys: list[subprocess.Popen[Any]] = []
        with socket.create_server(("127.0.0.1", 0)) as chosen:
            port = chosen.getsockname()[1]
        self._tls = dict(tls or {})
        self._address = f"{'tls' if tls else 'tcp'}://127.0.0.1:{port}"
        self.url = self._address if tls else f"dask://127.0.0.1:{port}"
        options = ["--protocol", "tls"] if tls else []
        arguments = ["scheduler", "--host", "127.0.0.1", "--port", str(port), *options]
        self.scheduler = Program(folder / "scheduler.log", arguments, self._tls)

    def add_workers(
        self, count: int, environment: Mapping[str, str] | None = None, **faults: Any
    ) -> list[Program]:
        """Workers that have come up; ``faults`` are those of :mod:`deployguard.faults`."""
        self.scheduler.says("Scheduler at:")
        given = {**self._tls, "HOME": str(self.folder), **(environment or {})}
        if faults:
            given["DEPLOYGUARD_FAULTS"] = json.dumps(faults)
        options = ["--no-nanny", "--nthreads", "1", "--host", "127.0.0.1"]
        new = [
            Program(
                self.folder / f"worker{len(self.workers) + number}.log",
                ["worker", self._address, *options],
                given,
            )
            for number in range(count)
        ]
        self.workers += new
        for worker in new:
            worker.says("Starting established connection")
        return new

    def text(self) -> str:
        """What all have said."""
        return "\n".join(program.text for program in (self.scheduler, *self.workers))

    def kill_workers(self) -> None:
        """Every worker there is."""
        for worker in self.workers:
            worker.kill()


@contextmanager
def a_cluster(folder: Path, tls: Mapping[str, str] | None = None) -> Iterator[Cluster]:
    """A scheduler without workers; at the end there is nothing left."""
    cluster = Cluster(folder, tls)
    try:
        yield cluster
    finally:
        for deploy in cluster.deploys:
            deploy.kill()
            deploy.wait()
        cluster.kill_workers()
        cluster.scheduler.kill()
