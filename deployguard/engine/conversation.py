"""The controller's end of the mailbox: orders to the jobs, and what comes back.

A thread listens to all of them, shows that the controller is there, and finds out when a job will
never answer: its engine has given it up, nothing was heard of it for too long, or engine or journal
are gone. Another passes on what they say, their events and then the answer that somebody waits for:
a terminal that takes no more must not make the controller look dead.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from deployguard.engine import answers
from deployguard.engine.job import HostJob
from deployguard.engine.line import POLL
from deployguard.engine.seal import Seal
from deployguard.errors import ConnectionLost, InternalError, JournalUnavailable
from deployguard.store.mailbox import Mailbox, Message

__all__ = ["Conversation", "Engine", "JobLost"]

#: How long a job may wait for a worker that takes it, in seconds. Nothing is touched meanwhile.
START_SECONDS = 60.0
#: A job that is entered again elsewhere is silent for a moment, however short the lease.
_SILENCE = 10.0
#: How long a controller that leaves waits for the jobs to have told their hosts.
_FAREWELL = 3.0
_SECOND = 1.0

_log = logging.getLogger(__name__)


class Engine(Protocol):
    """Runs jobs on workers; see :mod:`deployguard.engine.dask`."""

    #: How it is named on the command line.
    url: str

    def problems(
        self, stop: threading.Event, check: Callable[..., str], *arguments: Any
    ) -> dict[str, str]:
        """What ``check(*arguments)`` answers on each worker, by worker; empty where all is well.

        Raises :class:`~deployguard.errors.EngineUnavailable` where there is no worker, and
        :class:`~deployguard.errors.Interrupted` when ``stop`` is set meanwhile.
        """
        ...

    def submit(self, job: HostJob) -> Future[None]:
        """Run a job on some worker; again on another one when that dies."""
        ...

    def lost(self) -> str:
        """Why it will run nothing any more; empty while it will."""
        ...

    def close(self) -> None:
        """Let go of it, and of jobs that still run."""
        ...


class JobLost(ConnectionLost):
    """There is no job that would answer for this host any more."""


class _Host:
    """What is known of the job of one host."""

    def __init__(self, future: Future[None]) -> None:
        self.future = future
        self.ordered = 0
        self.answered = 0
        self.answer: dict[str, Any] = {}
        self.heard = 0
        self.attempt = 0
        self.held = 0
        self.beats = 0
        self.alive_at = time.monotonic()
        self.worker = ""
        self.lost = ""
        self.gone = False


class Conversation:
    """See the module. One for each transaction."""

    def __init__(
        self,
        engine: Engine,
        mailbox: Mailbox,
        seal: Seal,
        transaction: str,
        lease: float,
        tell: Callable[[str, dict[str, Any]], None],
        note: Callable[[str, str], None],
    ) -> None:
        """``tell`` is given a host's event, ``note`` words about a host."""
        self._engine = engine
        self._mailbox = mailbox
        self._seal = seal
        self._transaction = transaction
        self._lease = lease
        self._tell = tell
        self._note = note
        self._hosts: dict[str, _Host] = {}
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._over = ""
        self._without_journal = False
        self._looked = self._beaten = time.monotonic()
        self._heard: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name="jobs", daemon=True)
            for work in (self._run, self._pass_on)
        ]

    def start(self, jobs: Sequence[HostJob]) -> None:
        """Hand the jobs to the engine, and listen."""
        self._hosts = {job.host: _Host(self._engine.submit(job)) for job in jobs}
        self._looked = self._beaten = time.monotonic()
        for thread in self._threads:
            thread.start()

    def ask(self, host: str, verb: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Give an order and wait for the answer, one at a time for a host.

        Raises :class:`JobLost`.
        """
        mine = self._hosts[host]
        self._raise_if_lost(host, mine)
        number = mine.ordered + 1
        order = answers.encode({"verb": verb, "arguments": arguments})
        about = f"order/{host}/{number}"
        try:
            self._mailbox.order(self._transaction, host, number, self._seal.close(about, order))
        except JournalUnavailable as error:
            self._without_journal = True
            self._give_up(error.message)
            self._raise_if_lost(host, mine)
        mine.ordered = number
        with self._changed:
            self._changed.wait_for(lambda: mine.answered == number or self._lost(mine))
        if mine.answered != number:
            self._raise_if_lost(host, mine)
        return mine.answer

    def lost(self, host: str) -> str:
        """Why no job answers for a host any more; empty while one does."""
        return self._lost(self._hosts[host])

    def held(self, host: str) -> int:
        """The highest epoch under which its jobs have said that they hold this host, or 0."""
        return self._hosts[host].held

    def withdraw(self, host: str) -> None:
        """Nobody is to work on this host any more: somebody else does."""
        mine = self._hosts[host]
        mine.lost = mine.lost or "its job was withdrawn"
        with contextlib.suppress(JournalUnavailable):
            # Without a journal no job enters, and none that has entered stays.
            if not self._without_journal:
                self._mailbox.withdraw(self._transaction, host)
                for job in self._mailbox.jobs(self._transaction, [host]):
                    mine.held = job.held

    def leave(self, close: Callable[[], None]) -> None:
        """Have every job leave its host to itself; ``close`` tells them, and may fail.

        Returns when they have done so, or after a few seconds.
        """
        self._give_up("the hosts were left to themselves")
        told = threading.Event()

        def tell() -> None:
            with contextlib.suppress(JournalUnavailable):
                close()
                told.set()

        # A database that does not answer must not hold up somebody who has seconds to leave.
        threading.Thread(target=tell, name="farewell", daemon=True).start()
        until = time.monotonic() + _FAREWELL
        if told.wait(_FAREWELL):
            self._wait_for_jobs(until)

    def _wait_for_jobs(self, until: float) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: all(host.gone for host in self._hosts.values()),
                timeout=max(0.0, until - time.monotonic()),
            )

    def end(self, close: Callable[[], None]) -> None:
        """The transaction has ended: have the jobs end, and stop listening."""
        broken = self._over
        self._give_up("the transaction has ended")
        if not broken:
            with contextlib.suppress(JournalUnavailable):
                close()
                self._wait_for_jobs(time.monotonic() + _SECOND)
        self._ended.set()
        self._heard.put(None)

    # -- the threads ---------------------------------------------------------------------------

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except JournalUnavailable as error:
            self._without_journal = True
            self._give_up(error.message)
        except InternalError as error:
            self._give_up(error.message)
        except Exception as error:  # noqa: BLE001 - who waits for an answer waits for these threads
            _log.exception("nobody listens to the jobs any more")
            self._give_up(f"nobody listens to the jobs any more: {type(error).__name__}")

    def _run(self) -> None:
        while not self._ended.wait(POLL):
            self._listen()

    def _pass_on(self) -> None:
        while (work := self._heard.get()) is not None:
            work()

    def _listen(self) -> None:
        now = time.monotonic()
        if now - self._beaten > min(_SECOND, self._lease / 4):
            self._beaten = now
            self._mailbox.beat(self._transaction)
        known = {name: host.heard for name, host in self._hosts.items()}
        # One host's answer comes after its events; a host's numbers are in order.
        for message in self._mailbox.hear(self._transaction, known):
            self._hosts[message.host].heard = message.number
            self._heard.put(functools.partial(self._hear, message))
        now = time.monotonic()
        if now - self._looked > _SECOND / 2:
            self._look(now, now - self._looked > self._lease / 2 + _SECOND)
            self._looked = now

    def _hear(self, message: Message) -> None:
        host = self._hosts[message.host]
        about = f"message/{message.host}/{message.number}"
        said = answers.decode(self._seal.open(about, message.content))
        if "event" in said:
            self._tell(message.host, said["event"])
            return
        with self._changed:
            if "left" in said:
                host.gone = True
            elif said["order"] == host.ordered:
                host.answer = said
                host.answered = said["order"]
            self._changed.notify_all()

    def _look(self, now: float, late: bool) -> None:
        """Who is at work, and whether. ``late``: nobody could have been heard meanwhile."""
        for job in self._mailbox.jobs(self._transaction):
            host = self._hosts[job.host]
            if job.beats != host.beats or late:
                host.beats, host.alive_at = job.beats, now
            if job.attempt > host.attempt and host.attempt:
                words = f"its worker {host.worker} was lost; {job.worker} goes on"
                self._heard.put(functools.partial(self._note, job.host, words))
            host.attempt, host.worker, host.held = job.attempt, job.worker, job.held
        lost = self._engine.lost()
        for host in self._hosts.values():
            host.gone = host.gone or host.future.done()
            host.lost = host.lost or self._why_lost(host, now)
        if lost:
            self._give_up(lost)
        with self._changed:
            self._changed.notify_all()

    def _why_lost(self, host: _Host, now: float) -> str:
        if host.future.done():
            if host.future.cancelled():
                return self._engine.lost() or "the engine has dropped its job"
            error = host.future.exception()
            return f"its job has ended: {error}" if error else "its job has ended"
        silent = now - host.alive_at
        if not host.attempt:
            words = f"no worker has taken its job for {START_SECONDS:.0f} s"
            return words if silent > START_SECONDS else ""
        if silent > max(self._lease, _SILENCE):
            return f"nothing was heard of its worker {host.worker} for {silent:.0f} s"
        return ""

    # -- what is lost --------------------------------------------------------------------------

    def _give_up(self, why: str) -> None:
        with self._changed:
            self._over = self._over or why
            self._changed.notify_all()

    def _lost(self, host: _Host) -> str:
        return host.lost or self._over

    def _raise_if_lost(self, name: str, host: _Host) -> None:
        why = self._lost(host)
        if why:
            raise JobLost(name, why, hint="run `deployguard recover PLAN`")
