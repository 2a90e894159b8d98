"""Dask distributed as an engine. The only file that knows it.

The scheduler is told the names of hosts and which job belongs to which. What a job needs to know
and what it answers goes through the journal, sealed; the key goes with the job.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from deployguard.engine.job import HostJob, run_host
from deployguard.errors import EngineUnavailable, Interrupted, UsageError

__all__ = ["DaskEngine"]

#: A job that could not go on is run again, elsewhere if there is an elsewhere. That it is run again
#: when its worker dies is not counted here.
RETRIES = 2
CONNECT_SECONDS = 10
#: How long a scheduler may have no worker before that is an error.
WORKERS_SECONDS = 10
CHECK_SECONDS = 30
_CLOSE_SECONDS = 2
_GLANCE = 0.1

_LOGGERS = (
    "distributed",
    "distributed.client",
    "distributed.gc",
    "bokeh",
    "tornado",
    "tornado.application",
)


class DaskEngine:
    """See :class:`deployguard.engine.conversation.Engine`."""

    def __init__(self, url: str, address: str) -> None:
        """``address`` is the scheduler's, as Dask writes it.

        Raises :class:`EngineUnavailable`, and :class:`UsageError` where Dask is not installed.
        """
        self.url = url
        self._distributed = distributed = _distributed()
        try:
            self._client = distributed.Client(
                address, timeout=CONNECT_SECONDS, set_as_default=False, name="deployguard"
            )
        except (OSError, TimeoutError, ValueError, TypeError) as error:
            words = str(error).strip() or type(error).__name__
            raise EngineUnavailable(
                f"the Dask scheduler at {url} cannot be used: {words}",
                hint="start it, or mend --engine or its TLS settings; nothing was touched",
            ) from error
        # Never the same job twice under one name, however alike two of them look.
        self._executor = self._client.get_executor(retries=RETRIES, pure=False)

    def problems(
        self, stop: threading.Event, check: Callable[..., str], *arguments: Any
    ) -> dict[str, str]:
        """What the check answers on each worker."""
        found: dict[str, Any] = {}
        errors: list[Exception] = []

        def ask() -> None:
            try:
                self._client.wait_for_workers(1, timeout=WORKERS_SECONDS)
                found.update(self._client.run(check, *arguments, on_error="return"))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is raised below
                errors.append(error)

        # A worker that hangs would never answer.
        asking = threading.Thread(target=ask, name="workers", daemon=True)
        asking.start()
        until = time.monotonic() + WORKERS_SECONDS + CHECK_SECONDS
        while asking.is_alive() and time.monotonic() < until:
            asking.join(_GLANCE)
            if stop.is_set():
                raise Interrupted("interrupted")
        if asking.is_alive():
            raise EngineUnavailable(
                f"not every worker of {self.url} answers",
                hint="look at the Dask dashboard for one that hangs; nothing was touched",
            )
        for error in errors:
            if isinstance(error, TimeoutError):
                words, hint = "has no workers", "start workers that reach the hosts and the journal"
            else:
                words = f"cannot be used: {str(error).strip() or type(error).__name__}"
                hint = "look at its log"
            raise EngineUnavailable(
                f"the Dask scheduler at {self.url} {words}", hint=f"{hint}; nothing was touched"
            ) from error
        return {
            worker: answer if isinstance(answer, str) else f"{type(answer).__name__}: {answer}"
            for worker, answer in found.items()
        }

    def submit(self, job: HostJob) -> Future[None]:
        """Run a job."""
        future: Future[None] = self._executor.submit(run_host, job, _settle_in)
        return future

    def lost(self) -> str:
        """Whether the scheduler is there."""
        if self._client.status == "running":
            return ""
        return f"the Dask scheduler at {self.url} does not answer any more"

    def close(self) -> None:
        """Leave. What still runs there ends by itself."""

        def leave() -> None:
            # It waits for a scheduler that is gone, and raises whatever it meets there.
            with contextlib.suppress(Exception):
                self._client.close(timeout=_CLOSE_SECONDS)

        leaving = threading.Thread(target=leave, name="leave", daemon=True)
        leaving.start()
        leaving.join(_CLOSE_SECONDS)


def _settle_in() -> None:
    """On a worker, before a job begins."""
    distributed = _distributed()
    if sys.version_info < (3, 12):
        _stop_profiling(distributed.get_worker())
    # It waits for orders most of the time: it must not take a thread from other jobs.
    distributed.secede()


def _stop_profiling(worker: Any) -> None:
    """Dask samples the stacks of a worker's threads a hundred times a second. An earlier Python may
    stop for good in that, with many threads (python/cpython#106883, dask/distributed#8616)."""
    stopped = threading.Event()

    def stop() -> None:
        if "profile" in worker.periodic_callbacks:
            worker.periodic_callbacks["profile"].stop()
        stopped.set()

    worker.loop.add_callback(stop)
    stopped.wait(CHECK_SECONDS)


def _distributed() -> Any:
    known = "distributed" in sys.modules
    try:
        import distributed
    except ImportError as error:
        raise UsageError(
            "--engine needs Dask distributed", hint="pip install 'deployguard[fleet]'"
        ) from error
    if not known:
        _quiet()
    return distributed


def _quiet() -> None:
    """Dask writes to stderr from its import on: into our log with it, where there is one."""
    handlers = logging.getLogger("deployguard").handlers or [logging.NullHandler()]
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = list(handlers)
        logger.propagate = False
