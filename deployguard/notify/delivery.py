"""Sends what waits in the outbox: each channel by itself, each lane in order, all within deadlines.

One thread keeps the books, and each channel has at most one message under way in another. So a
channel that hangs delays no other, and what came of a try is on record before the next of its lane
begins. What fails is tried again: soon at first, later and later after that, never before the other
side wants it; when the channel's deadline is over the next command goes on with it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from deployguard.delivery import Rejected, Undelivered
from deployguard.errors import JournalUnavailable
from deployguard.notify.announce import KIND
from deployguard.notify.message import GOOD_NEWS, OVER, Attempt, Message, Receipt
from deployguard.notify.registry import channel_of
from deployguard.notify.settings import ChannelSettings, known
from deployguard.notify.tidying import tidy
from deployguard.store.outbox import Entry, Outbox, Shared, place

__all__ = ["Told", "flush", "told", "told_of"]

#: Seconds before a second try, doubled with every further one up to the most.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 900.0

#: How often it is looked whether somebody else who delivers has come to an end, in seconds.
_LOOK = 0.2

#: Channels that wake people. Of what was over before it could be told they are not told at all.
_WAKES = ("pagerduty", "sms")

Send = Callable[[ChannelSettings, Attempt], Receipt]


@dataclass(frozen=True)
class Told:
    """What became of one message: ``delivered``, ``pending``, ``rejected`` or ``skipped``.

    ``said`` is why it is not delivered.
    """

    channel: str
    kind: str
    subject: str
    state: str
    said: str
    attempts: int
    key: str
    title: str

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return dict(self.__dict__)


def told(entry: Entry) -> Told:
    """How the message of an entry stands."""
    message = entry.payload["message"]
    said = entry.last_error or ""
    if entry.state == "skipped":
        said = str(entry.result["skipped"])
    return Told(
        channel=str(entry.payload["channel"]["name"]),
        kind=str(message["kind"]),
        subject=str(message["subject"]),
        state=entry.state,
        said=said if entry.state != "delivered" else "",
        attempts=entry.attempts,
        key=entry.key,
        title=str(message["title"]),
    )


def told_of(store: Shared, incident: str) -> list[Told]:
    """Every message about an incident, and how it stands, in the order in which they were made."""
    return [told(entry) for entry in Outbox(store, clock=time.time).below(KIND, _keys(incident))]


def _keys(incident: str) -> str:
    return f"{KIND}/{incident}/"


def flush(
    store: Shared,
    *,
    retry: bool = False,
    send: Send = lambda settings, attempt: channel_of(settings).send(attempt),
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Told]:
    """Send what waits; what became of everything that was tried, and of what still waits.

    ``retry`` tries those at once whose next try is due later. Raises what the store raises, and
    nothing else.
    """
    outbox = Outbox(store, clock=clock)
    waiting = outbox.pending(KIND)
    if not waiting:
        return []
    # Another command may be at it, and its list may be older than what waits for us.
    patience = monotonic() + max(float(e.payload["channel"]["deadline"]) for e in waiting)
    while True:
        with outbox.delivering() as alone:
            if alone:
                run = _Run(outbox, store, send, clock, monotonic, sleep, retry)
                found = [told(entry) for entry in run.deliver()]
                # What was told is told, whether or not there is room to forget something.
                with contextlib.suppress(JournalUnavailable):
                    tidy(store, clock())
                return found
        if monotonic() > patience or not outbox.pending(KIND):
            return []
        sleep(_LOOK)


class _Run:
    """One pass over the outbox. Only :meth:`_sent` runs in other threads."""

    def __init__(
        self,
        outbox: Outbox,
        store: Shared,
        send: Send,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        sleep: Callable[[float], None],
        retry: bool,
    ) -> None:
        self._outbox = outbox
        self._store = store
        self._send = send
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._started = monotonic()
        self._at_once = retry
        #: Those that were looked at, by id: in the end, how they stand.
        self._seen: dict[int, str] = {}
        #: Before this time a channel that is down, or that asked for a pause, is left alone.
        self._resting: dict[str, float] = {}

    def deliver(self) -> list[Entry]:
        """Until nothing is due any more within the deadlines."""
        running: dict[Future[Receipt], Entry] = {}
        with ThreadPoolExecutor(max_workers=32) as threads:
            while True:
                pause = self._begin(threads, running)
                if running:
                    done, _ = wait(running, timeout=pause, return_when=FIRST_COMPLETED)
                    for future in done:
                        self._record(running.pop(future), future)
                elif pause is None:
                    break
                else:
                    self._sleep(pause)
        entries = [self._outbox.entry(key) for key in self._seen.values()]
        return [entry for entry in entries if entry is not None]

    def _begin(
        self, threads: ThreadPoolExecutor, running: dict[Future[Receipt], Entry]
    ) -> float | None:
        """Start what is due; how long until the next is, or ``None`` when there is none."""
        busy = {_channel(entry) for entry in running.values()}
        blocked: set[str] = set()
        nearest: float | None = None
        pending = self._outbox.pending(KIND)
        for entry in pending:
            self._seen.setdefault(entry.id, entry.key)
            channel, lane = _channel(entry), entry.lane or entry.key
            if channel in busy or lane in blocked:
                continue
            blocked.add(lane)
            if self._ended(entry, pending):
                blocked.discard(lane)
                continue
            pause = self._due(entry, channel)
            if pause is None:
                continue
            if pause > 0:
                nearest = pause if nearest is None else min(nearest, pause)
                continue
            busy.add(channel)
            self._outbox.begin(entry)
            send = threads.submit(
                self._sent, entry, self._settings(entry), self._outbox.receipt(lane)
            )
            running[send] = entry
        return nearest

    def _ended(self, entry: Entry, pending: list[Entry]) -> bool:
        """Whether an entry is over without being sent."""
        message, settings = entry.payload["message"], entry.payload["channel"]
        if self._clock() - entry.created_at > settings["expires"]:
            last = f"; {entry.last_error}" if entry.last_error else ""
            self._outbox.refused(entry, f"it did not arrive in time{last}")
            return True
        if self._outbox.receipt(entry.lane or entry.key) is not None:
            return False
        if message["kind"] in GOOD_NEWS and entry.attempts == 0:
            self._outbox.skip(entry, "nobody there was told of the trouble")
            return True
        last_kind = [e for e in pending if e.lane == entry.lane][-1].payload["message"]["kind"]
        if settings["kind"] in _WAKES and last_kind in OVER and entry.attempts == 0:
            self._outbox.skip(entry, "it was over before it could be told")
            return True
        return False

    def _due(self, entry: Entry, channel: str) -> float | None:
        """Seconds until an entry may be tried; ``None`` if that is not in this run."""
        now = self._clock()
        later = 0.0
        if entry.not_before is not None and not (self._at_once and self._first(entry)):
            later = max(later, entry.not_before - now)
        if channel in self._resting:
            later = max(later, self._resting[channel] - now)
        ends = self._started + float(entry.payload["channel"]["deadline"])
        return later if self._monotonic() + later < ends else None

    def _first(self, entry: Entry) -> bool:
        """Whether it was not tried in this run yet."""
        return _channel(entry) not in self._resting

    def _settings(self, entry: Entry) -> ChannelSettings:
        """The channel as its plan has it now, since what keeps a message back may be mended there;
        as it was when the message was made, where the plan has no such channel any more."""
        kept = ChannelSettings(**entry.payload["channel"])
        message = entry.payload["message"]
        settings = known(self._store, message["service"], message["environment"])
        now = settings.channel(kept.name) if settings is not None else None
        return now if now is not None and now.kind == kept.kind else kept

    def _sent(self, entry: Entry, settings: ChannelSettings, receipt: Receipt | None) -> Receipt:
        """In a thread of its own: nothing of the store is touched here."""
        attempt = Attempt(
            message=Message.from_dict(entry.payload["message"]),
            receipt=receipt,
            again=entry.attempts > 0,
            since=entry.created_at,
            clock=self._monotonic,
            give_up=self._started + settings.deadline,
        )
        return self._send(settings, attempt)

    def _record(self, entry: Entry, future: Future[Receipt]) -> None:
        """Put on record what came of a try."""
        try:
            receipt = future.result()
        except Undelivered as failure:
            pause = min(FIRST_PAUSE * 2**entry.attempts, LONGEST_PAUSE)
            later = self._clock() + max(pause, failure.retry_after or 0.0)
            self._resting[_channel(entry)] = later
            self._outbox.failed(entry, failure.reason, later)
        except Rejected as refusal:
            self._outbox.refused(entry, str(refusal))
        except Exception as unforeseen:  # noqa: BLE001 -- its text may hold anything; see the outbox
            later = self._clock() + min(FIRST_PAUSE * 2**entry.attempts, LONGEST_PAUSE)
            self._outbox.failed(entry, place(unforeseen), later)
        else:
            self._outbox.delivered(entry, receipt, receipt)


def _channel(entry: Entry) -> str:
    """The channel of an entry, among those of all services."""
    message = entry.payload["message"]
    return f"{message['service']}/{message['environment']}/{entry.payload['channel']['name']}"
