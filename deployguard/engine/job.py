"""The job of one host: its transaction from the connection to the decision carried out.

It runs on a worker and does what the controller orders, one step after the other, over a
connection of its own. It may be entered again after its worker died, in the middle of anything;
:mod:`deployguard.engine.joining` says how the second entry joins what the first has left.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from deployguard.engine import answers
from deployguard.engine.joining import Joining, join
from deployguard.engine.line import Desk, Left, Line, Order, taking_part
from deployguard.errors import (
    ConnectionLost,
    DeployguardError,
    HostFailure,
    InternalError,
    JournalUnavailable,
)
from deployguard.guards.world import real_world
from deployguard.rollout import recovery, rescue
from deployguard.rollout.deployment import members_of
from deployguard.rollout.member import Context, Member, Recorder
from deployguard.rollout.outcome import Event
from deployguard.rollout.work import Here
from deployguard.store.opening import VARIABLE
from deployguard.transport import registry
from deployguard.transport.session import Session

__all__ = ["HostJob", "evidence_of", "run_host", "worker_name"]

#: A controller that leaves records its decision last: it comes this many seconds later at most.
_LAST_WORD = 5.0
_GLANCE = 0.2

#: Carrying out a decision: nobody who leaves cuts that short.
_DECIDED = ("commit", "restore", "stop", "hold")


@dataclass(frozen=True)
class HostJob:
    """What an engine is given. ``journal`` is the URL without its password, ``lease`` in seconds.

    Engines log what they are given: the key does not show.
    """

    transaction: str
    host: str
    journal: str
    key: bytes
    lease: float

    def __repr__(self) -> str:
        return f"<{self.host} in {self.transaction}>"


def run_host(job: HostJob, ready: Callable[[], object] | None = None) -> None:
    """Run one host's transaction, or what is left of it, to its end.

    ``ready`` is called first: for an engine that must know that this takes long. Raises
    :class:`~deployguard.errors.DeployguardError` where it cannot go on here; it may be run again.
    """
    if ready is not None:
        ready()
    url = os.environ.get(VARIABLE) or job.journal
    try:
        with taking_part(url, job.transaction, job.key, job.lease) as line:
            desk = line.enter(job.host, worker_name())
            if desk is not None:
                try:
                    _Run(line, desk).run()
                finally:
                    line.release(desk)
    except Exception as error:  # noqa: BLE001 - all of them, for what they may say
        # Engines log it and show it to everybody: no words of a host, nor of a plan.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        words = f"{type(error).__name__} at {os.path.basename(frame.filename)}:{frame.lineno}"
        if isinstance(error, JournalUnavailable):
            words = error.message
        raise InternalError(f"{words}, on {worker_name()}") from None


def worker_name() -> str:
    """This process, for people: ``machine:pid``."""
    return f"{socket.gethostname()}:{os.getpid()}"


def evidence_of(host: str) -> str:
    """The name of the parcel with a host's evidence."""
    return f"evidence/{host}"


class _Run:
    """One entry."""

    def __init__(self, line: Line, desk: Desk) -> None:
        baggage = line.baggage()
        self._line = line
        self._desk = desk
        self._member = next(m for m in members_of(baggage.plan) if m.name == desk.host)
        self._here = Here()
        self._busy = ""
        self._context = Context(
            plan=baggage.plan,
            transaction=line.transaction,
            epoch=1,
            owner=baggage.owner,
            sources=dict(baggage.sources),
            record=Recorder(self._tell),
            connect=registry.reach,
            stop=threading.Event(),
            settle=self._settle,
            work=self._here,
            world=replace(real_world(), environ=baggage.environ),
            version=baggage.version,
            drift=baggage.drift,
            overrides=baggage.overrides,
            rollback=baggage.rollback,
        )
        #: What the first entry has left; ``None`` until it is known.
        self._joining: Joining | None = Joining() if desk.attempt == 1 else None

    def run(self) -> None:
        """Until there is nothing left to do."""
        self._desk.on_leave = self._dismissed
        try:
            if self._joining is None:
                self._join_early()
            while True:
                order = self._desk.next()
                self._busy = order.verb
                answer = self._carry_out(order)
                self._busy = ""
                self._desk.answer(order, answer, self._held())
        except Left as left:
            self._leave(left)
        finally:
            if self._member.session is not None:
                self._member.session.close()

    # -- orders --------------------------------------------------------------------------------

    def _carry_out(self, order: Order) -> dict[str, Any]:
        result: Any = None
        error = None
        try:
            self._join()
            result = self._step(order)
        except DeployguardError as problem:
            error = answers.error_data(problem)
        known = self._joining is not None
        return {
            "result": result,
            "error": error,
            "member": answers.standing(self._member, self._held()) if known else None,
        }

    def _step(self, order: Order) -> Any:
        assert self._joining is not None
        context, member, verb = self._context, self._member, order.verb
        answers.learn(context, order.arguments["known"])
        if verb == "restore":
            return self._restore(bool(order.arguments["evidence"]))
        if verb == "stop":
            return self._stop(bool(order.arguments["evidence"]))
        if verb == "run":
            return self._here.run(context, member, _task(context, order.arguments["task"]))
        if verb == "hold":
            return self._here.hold(context, member)
        if verb == "commit" and self._joining.ended and member.state == "committed":
            return None
        if self._joining.lost and (verb, member.state) != ("commit", "committed"):
            raise ConnectionLost(member.name, self._joining.lost)
        steps: dict[str, Callable[[Context, Member], None]] = {
            "connect": self._connected,
            "begin": self._here.begin,
            "inspect": self._here.inspect,
            "stage": self._here.stage,
            "switch": self._switch,
            "check_again": self._here.check_again,
            "commit": self._here.commit,
        }
        return steps[verb](context, member)

    def _connected(self, context: Context, member: Member) -> None:
        if member.session is None:
            self._here.connect(context, member)

    def _switch(self, context: Context, member: Member) -> None:
        if member.state != "prepared":  # else an earlier entry came that far, and the vote stands
            self._here.switch(context, member)

    def _restore(self, evidence: bool) -> dict[str, Any]:
        """Answers with whether there is evidence to fetch."""
        assert self._joining is not None
        if self._joining.ended:
            return {"evidence": False}
        collected = False

        def save(member: Member, pieces: Iterable[bytes]) -> None:
            nonlocal collected
            name = evidence_of(member.name)
            sealed = (
                self._line.seal.close(f"{name}/{number}", piece)
                for number, piece in enumerate(pieces)
            )
            self._line.mailbox.put(self._line.transaction, name, sealed)
            collected = True

        rescue.restore(self._context, self._member, save if evidence else None)
        return {"evidence": collected}

    def _stop(self, evidence: bool) -> None:
        assert self._joining is not None
        if not self._joining.ended:
            rescue.stop(self._context, self._member, _nowhere if evidence else None)

    # -- the second entry ----------------------------------------------------------------------

    def _join_early(self) -> None:
        """So that nobody waits for it later. What fails now is tried again with the next order."""
        try:
            self._join()
        except DeployguardError:
            pass

    def _join(self) -> None:
        if self._joining is not None:
            return
        self._connected(self._context, self._member)
        try:
            self._joining = join(self._context, self._member, self._desk.held)
        except DeployguardError:
            self._member.wire().close()
            self._member.session = None
            raise
        if self._held() and self._member.state == "prepared":
            self._desk.hold(self._held())

    def _held(self) -> int:
        return self._context.epoch if self._member.begun else 0

    # -- going ---------------------------------------------------------------------------------

    def _dismissed(self, left: Left) -> None:
        """In the thread of the line: the job may be in the middle of a step."""
        session = self._member.session
        if session is None or not self._busy or self._busy in _DECIDED:
            return
        if left.why != "superseded":
            session.hand_over()
        session.close()

    def _leave(self, left: Left) -> None:
        session = self._member.session
        if left.why == "superseded":
            return
        voted = self._member.state == "prepared"
        if session is not None and not voted:
            session.hand_over()
        if left.why == "journal":
            return
        try:
            self._desk.say_goodbye()
        except Left:
            return
        if session is not None and not session.closed and voted:
            self._follow(left)

    def _follow(self, left: Left) -> None:
        """The controller has left, or died: what it has decided is carried out all the same."""
        until = time.monotonic() + (_LAST_WORD if left.why == "closed" else 0.0)
        while True:
            try:
                decision = self._line.journal.decision(self._line.transaction)
            except DeployguardError:
                return
            if decision is not None or time.monotonic() > until:
                break
            time.sleep(_GLANCE)
        try:
            if decision == "commit":
                self._here.commit(self._context, self._member)
            elif decision == "abort":
                rescue.restore(self._context, self._member, None)
        except HostFailure:
            pass  # it waits for `recover`, as if nobody had come

    def _settle(self, host: str, session: Session, earlier: str) -> str:
        return recovery.settle(session, earlier, self._line.journal, host)

    def _tell(self, event: Event) -> None:
        self._desk.tell(
            {
                "phase": event.phase,
                "status": event.status,
                "message": event.message,
                "detail": event.detail,
            }
        )


def _nowhere(member: Member, pieces: Iterable[bytes]) -> None:
    """That there is evidence to collect; it is fetched when all of it has been."""


def _task(context: Context, name: str) -> Any:
    return next(task for task in context.plan.always if task.name == name)
