"""An engine of processes on this machine: what Dask is to a deploy, and dies when it is told to."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from deployguard.engine.job import HostJob

_WORKER = (
    "import pickle, sys; from deployguard.engine.job import run_host; "
    "run_host(pickle.load(sys.stdin.buffer))"
)


class Processes:
    """A process for each job. One that is killed is started again, as often as it takes."""

    url = "processes://here"

    def __init__(self, faults: Mapping[str, Any] | None = None) -> None:
        """``faults`` of :mod:`deployguard.faults`, for the first entry of each job only."""
        self._faults = faults
        #: How often a job was entered.
        self.entries = 0
        #: The jobs, as they travel.
        self.carried: list[bytes] = []
        self._gone = ""
        self._running: list[subprocess.Popen[bytes]] = []

    def problems(
        self, stop: threading.Event, check: Callable[..., str], *arguments: Any
    ) -> dict[str, str]:
        """This process speaks for all of them."""
        return {"here": check(*arguments)}

    def submit(self, job: HostJob) -> Future[None]:
        """Start it."""
        self.carried.append(pickle.dumps(job))
        future: Future[None] = Future()
        threading.Thread(target=self._attend, args=(job, future), daemon=True).start()
        return future

    def _attend(self, job: HostJob, future: Future[None]) -> None:
        environment = dict(os.environ)
        if self._faults:
            environment["DEPLOYGUARD_FAULTS"] = json.dumps(self._faults)
        while not self._gone:
            self.entries += 1
            process = subprocess.Popen(
                [sys.executable, "-c", _WORKER],
                env=environment,
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            self._running.append(process)
            _, said = process.communicate(pickle.dumps(job))
            if process.returncode == 0:
                future.set_result(None)
                return
            if process.returncode > 0:
                future.set_exception(RuntimeError(said.decode().strip().rpartition("\n")[2]))
                return
            environment.pop("DEPLOYGUARD_FAULTS", None)
        future.cancel()

    def collapse(self) -> None:
        """No job runs any more, nor ever will."""
        self._gone = "the scheduler does not answer any more"
        for process in self._running:
            process.kill()

    def lost(self) -> str:
        """Whether it has collapsed."""
        return self._gone

    def close(self) -> None:
        """Processes end with their jobs."""
