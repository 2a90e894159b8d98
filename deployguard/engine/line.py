"""A worker's end of the mailbox: one for each transaction, shared by the jobs in this process.

A thread looks for orders to all of them, tells what they have to say, and shows that they are
alive. It also notices when a job has to go: the controller has left, or is not heard from for the
length of the lease; somebody else has entered the job; the journal is away for too long.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from deployguard.engine import answers
from deployguard.engine.release import Baggage, unpack
from deployguard.engine.seal import Seal
from deployguard.errors import InternalError, JournalUnavailable
from deployguard.store import mailbox
from deployguard.store.postgres import PostgresJournal

__all__ = ["Desk", "Left", "Line", "Order", "taking_part"]

#: How often it looks, in seconds.
POLL = 0.1
#: Who has not heard from the database for longer cannot say who else was silent meanwhile.
_GAP = 2.0
#: Messages of one attempt; the next one counts on from its multiple.
_ATTEMPT = 1_000_000

Why = Literal["closed", "silent", "over", "superseded", "journal"]


class Left(Exception):
    """The job has to go, for the reason in ``why``."""

    def __init__(self, why: Why) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True)
class Order:
    """The controller's order number ``number`` to a job."""

    number: int
    verb: str
    arguments: dict[str, Any]


class Desk:
    """Where one job gets its orders and leaves its answers."""

    def __init__(self, line: Line, host: str, entry: mailbox.Entry) -> None:
        self.host = host
        self.attempt = entry.attempt
        self.held = entry.held
        #: Called once, in the thread of the line, when the job has to go.
        self.on_leave: Callable[[Left], None] = lambda left: None
        self.left: Left | None = None
        self._line = line
        self._known = 0
        self._orders: queue.Queue[Order | None] = queue.Queue()
        self._writing = threading.Lock()
        self._said = entry.attempt * _ATTEMPT
        self._waiting: list[tuple[int, bytes]] = []
        self._changed = threading.Lock()

    def next(self) -> Order:
        """The next order, whenever that comes. Raises :class:`Left`."""
        order = self._orders.get() if self.left is None else None
        if order is None:
            assert self.left is not None
            raise self.left
        return order

    def tell(self, event: dict[str, Any]) -> None:
        """Something for the controller to show; on its way a moment later."""
        self._put({"event": event})

    def answer(self, order: Order, answer: dict[str, Any], epoch: int) -> None:
        """An order is carried out; ``epoch`` is the one that the host is held under, or 0.

        Raises :class:`Left` when the journal is away for too long.
        """
        self._put({"order": order.number, **answer})
        self.flush(order.number, epoch)

    def hold(self, epoch: int) -> None:
        """The host is held under this epoch from now on, and whoever enters next may rely on it.

        Raises :class:`Left` when the journal is away for too long.
        """
        self.flush(0, epoch)

    def say_goodbye(self) -> None:
        """The host has been left to itself, or waits for the decision. Raises :class:`Left`."""
        self._put({"left": True})
        self.flush()

    def flush(self, answered: int = 0, held: int = 0) -> None:
        """Write what waits."""
        with self._writing:
            with self._changed:
                messages, self._waiting = self._waiting, []
            if not messages and not answered and not held:
                return
            try:
                self._line.mailbox.say(
                    self._line.transaction,
                    self.host,
                    self.attempt,
                    messages,
                    answered=answered,
                    held=held,
                )
            except JournalUnavailable as error:
                raise Left("journal") from error

    def _put(self, message: dict[str, Any]) -> None:
        with self._changed:
            self._said += 1
            about = f"message/{self.host}/{self._said}"
            sealed = self._line.seal.close(about, answers.encode(message))
            self._waiting.append((self._said, sealed))

    def take(self, job: mailbox.Job) -> None:
        """The row of the host, as it stands now."""
        if job.attempt != self.attempt or job.withdrawn:
            self.leave(Left("superseded"))
        elif job.ordered > max(job.answered, self._known):
            self._known = job.ordered
            about = f"order/{self.host}/{job.ordered}"
            order = answers.decode(self._line.seal.open(about, job.content))
            self._orders.put(Order(job.ordered, order["verb"], order["arguments"]))

    def leave(self, left: Left) -> None:
        """The job has to go."""
        if self.left is None:
            self.left = left
            self._orders.put(None)
            self.on_leave(left)


class Line:
    """See the module. Its jobs come and go; it ends with the last."""

    def __init__(
        self, journal: PostgresJournal, transaction: str, key: bytes, lease: float
    ) -> None:
        self.journal = journal
        self.mailbox = journal.mailbox()
        self.transaction = transaction
        self.seal = Seal(key, transaction)
        self.jobs = 0
        self._lease = lease
        self._desks: dict[str, Desk] = {}
        self._changed = threading.Lock()
        self._unpacking = threading.Lock()
        self._baggage: Baggage | None = None
        self._ended = threading.Event()
        self._broken = False
        self._beats = -1
        self._heard = self._looked = self._shown = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"line-{transaction}", daemon=True)
        self._thread.start()

    def enter(self, host: str, worker: str) -> Desk | None:
        """Work on a host; ``None`` when there is nothing to do any more.

        Raises :class:`~deployguard.errors.JournalUnavailable`, and
        :class:`~deployguard.errors.InternalError` where nobody would hear the controller.
        """
        entry = self.mailbox.enter(self.transaction, host, worker)
        if entry is None:
            return None
        desk = Desk(self, host, entry)
        with self._changed:
            if self._broken:
                raise InternalError("the line to the controller is broken")
            before = self._desks.get(host)
            self._desks[host] = desk
        if before is not None:
            before.leave(Left("superseded"))
        return desk

    def release(self, desk: Desk) -> None:
        """The job has ended: nobody is to say of it that it is at work."""
        with self._changed:
            if self._desks.get(desk.host) is desk:
                del self._desks[desk.host]

    def baggage(self) -> Baggage:
        """What the jobs share, unpacked when the first of them asks."""
        with self._unpacking:
            if self._baggage is None:
                self._baggage = unpack(self.mailbox, self.seal, self.transaction)
            return self._baggage

    def end(self) -> None:
        """The last job has gone."""
        self._ended.set()
        with self._unpacking:
            if self._baggage is not None:
                self._baggage.drop()
        self._thread.join(_GAP)  # else it would open what is closed here once more
        self.journal.close()

    def _run(self) -> None:
        while not self._ended.wait(POLL):
            try:
                self._look()
            except (JournalUnavailable, Left):
                self._dismiss(Left("journal"))
            except Exception:
                # Whatever it is: no job may go on without somebody who hears the controller.
                with self._changed:
                    self._broken = True
                self._dismiss(Left("journal"))
                raise

    def _look(self) -> None:
        with self._changed:
            desks = {host: desk for host, desk in self._desks.items() if desk.left is None}
        if not desks:
            return
        for desk in desks.values():
            desk.flush()
        run = self.mailbox.run(self.transaction)
        now = time.monotonic()
        if run is None or run.closed:
            self._dismiss(Left("over" if run is None else "closed"))
            return
        if run.beats != self._beats or now - self._looked > _GAP:
            self._beats, self._heard = run.beats, now
        elif now - self._heard > self._lease:
            self._dismiss(Left("silent"))
            return
        self._looked = now
        for job in self.mailbox.jobs(self.transaction, list(desks)):
            desks[job.host].take(job)
        if now - self._shown > min(1.0, self._lease / 4):
            self._shown = now
            self.mailbox.alive(self.transaction, {h: desk.attempt for h, desk in desks.items()})

    def _dismiss(self, left: Left) -> None:
        with self._changed:
            desks = list(self._desks.values())
        for desk in desks:
            desk.leave(left)


_lines: dict[tuple[str, str], Line] = {}
_lines_changed = threading.Lock()


@contextlib.contextmanager
def taking_part(url: str, transaction: str, key: bytes, lease: float) -> Iterator[Line]:
    """The line of a transaction in this process.

    Raises :class:`~deployguard.errors.JournalUnavailable`.
    """
    name = (url, transaction)
    with _lines_changed:
        line = _lines.get(name)
        if line is None:
            line = _lines[name] = Line(PostgresJournal(url), transaction, key, lease)
        line.jobs += 1
    try:
        yield line
    finally:
        with _lines_changed:
            line.jobs -= 1
            last = not line.jobs
            if last:
                del _lines[name]
        if last:
            line.end()
