"""The steps of a transaction as orders to jobs on an engine's workers.

Where no job answers any more, because engine, journal or worker are gone for good, no host goes
forward, and what was decided is carried out from here, over connections of this process: a host
that has to go back is taken over and restored, one that was told nothing of a commit is told.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from deployguard import __version__
from deployguard.engine import answers, release
from deployguard.engine.conversation import Conversation, Engine, JobLost
from deployguard.engine.job import HostJob, evidence_of
from deployguard.engine.joining import take_over
from deployguard.engine.release import Baggage
from deployguard.engine.seal import Seal, new_key
from deployguard.engine.workers import check_worker, without_password
from deployguard.errors import (
    DeployguardError,
    EngineUnavailable,
    HostFailure,
    Interrupted,
    UsageError,
)
from deployguard.plan.credentials import variables_of
from deployguard.plan.model import Plan, Task
from deployguard.rollout import rescue, transaction
from deployguard.rollout.member import Context, Member
from deployguard.store.database import HASTE
from deployguard.store.postgres import PostgresJournal

__all__ = ["Remote"]

_ENDED = ("restored", "aborted", "committed")


class Remote:
    """:class:`deployguard.rollout.work.Work` on an engine."""

    eager = False

    def __init__(self, engine: Engine, journal: PostgresJournal) -> None:
        self.left: list[str] = []
        self._engine = engine
        self._journal = journal
        self._mailbox = journal.mailbox()
        self._conversation: Conversation | None = None
        self._transaction = ""
        self._epochs: dict[str, int] = {}

    def start(self, context: Context, members: Sequence[Member]) -> None:
        """Pack what the jobs need, and hand them to the engine; nothing of it when interrupted.

        Raises :class:`~deployguard.errors.EngineUnavailable`.
        """
        with contextlib.suppress(Interrupted):
            self._start(context, members)

    def _start(self, context: Context, members: Sequence[Member]) -> None:
        self._transaction = context.transaction
        key = new_key()
        seal = self._seal = Seal(key, context.transaction)
        self._mailbox.open(context.transaction, [member.name for member in members])
        url = without_password(self._journal.url)
        self._check_workers(context, url)
        baggage = Baggage(
            plan=context.plan,
            owner=context.owner,
            version=context.version,
            drift=context.drift,
            overrides=context.overrides,
            rollback=context.rollback,
            environ=variables_of(context.plan, context.world.environ),
            sources=context.sources,
        )
        release.pack(baggage, self._mailbox, seal, context.transaction, context.stop)

        def tell(host: str, event: dict[str, Any]) -> None:
            detail = event["detail"]
            context.record(event["phase"], event["status"], host, event["message"], **detail)

        def note(host: str, words: str) -> None:
            context.record("connect", "note", host, words)

        lease = context.plan.lease
        self._conversation = Conversation(
            self._engine, self._mailbox, seal, context.transaction, lease, tell, note
        )
        self._conversation.start(
            [HostJob(context.transaction, m.name, url, key, lease) for m in members]
        )

    def _check_workers(self, context: Context, url: str) -> None:
        stop, of = context.stop, (__version__, url, self._transaction)
        found = self._engine.problems(stop, check_worker, *of)
        bad = sorted(f"{worker}: {words}" for worker, words in found.items() if words)
        if bad:
            raise EngineUnavailable(
                f"the workers of {self._engine.url} cannot deploy:\n" + "\n".join(bad),
                hint="mend those workers; nothing was touched",
            )

    # -- steps ---------------------------------------------------------------------------------

    def connect(self, context: Context, member: Member) -> None:
        """Have the job connect."""
        self._step(context, member, "connect")

    def begin(self, context: Context, member: Member) -> None:
        """Have the paths locked."""
        member.begun = True  # Who does not answer may have done so.
        self._step(context, member, "begin")

    def inspect(self, context: Context, member: Member) -> None:
        """Have a look."""
        self._step(context, member, "inspect")

    def stage(self, context: Context, member: Member) -> None:
        """Have the new trees built."""
        self._step(context, member, "stage")

    def switch(self, context: Context, member: Member) -> None:
        """Have it switch, check and vote."""
        member.touched = True
        self._step(context, member, "switch")

    def check_again(self, context: Context, member: Member) -> None:
        """Have it checked again."""
        self._step(context, member, "check_again")

    def commit(self, context: Context, member: Member) -> None:
        """Have the decision carried out, by the job or from here."""
        try:
            self._step(context, member, "commit")
        except JobLost as lost:
            self._from_here(context, member, lost)
            # Whoever has taken the host over meanwhile may have decided otherwise.
            take_over(context, member, self._held(member.name) + 1)
            transaction.commit(context, member)

    def restore(self, context: Context, member: Member, save: rescue.Save | None) -> None:
        """Bring it back, by the job or from here. Raises nothing."""
        try:
            answer = self._ask(context, member, "restore", {"evidence": save is not None})
        except JobLost as lost:
            self._restore_from_here(context, member, save, lost)
            return
        if answer["error"] is not None:
            self._failed(context, member, answers.error_of(answer["error"]))
        elif save is not None and answer["result"]["evidence"]:
            try:
                save(member, self._evidence(member.name))
            except (DeployguardError, OSError) as error:
                words = f"evidence was not fetched: {error}"
                context.record("restore", "note", member.name, words)

    def stop(self, context: Context, member: Member, save: rescue.Save | None) -> None:
        """Stop the new services, and no more. Raises nothing."""
        try:
            self._ask(context, member, "stop", {"evidence": save is not None})
        except JobLost as lost:
            try:
                self._from_here(context, member, lost)
                self._take_over_unvoted(context, member)
            except HostFailure:
                return  # The restore that follows meets the same, and tells of it.
            rescue.stop(context, member, save)

    def hold(self, context: Context, member: Member) -> None:
        """Leave it as it is for a person. Raises nothing."""
        try:
            answer = self._ask(context, member, "hold", {})
        except JobLost as lost:
            try:
                self._from_here(context, member, lost)
                self._take_over_unvoted(context, member)
            except HostFailure as error:
                self._failed(context, member, error)
                return
            rescue.hold(context, member)
            return
        if answer["error"] is not None:
            self._failed(context, member, answers.error_of(answer["error"]))

    def reaches(self, member: Member) -> bool:
        """Whether its job answers, or there is a connection from here."""
        if member.session is not None:
            return True
        if self._conversation is None or member.state == "unreachable":
            return False
        return not self._conversation.lost(member.name)

    def run(self, context: Context, member: Member, task: Task) -> dict[str, Any]:
        """A task of ``always``."""
        if member.session is not None:
            return member.call(
                "run", {"argv": list(task.run), "env": task.env, "timeout": task.timeout}
            )
        answer = self._ask(context, member, "run", {"task": task.name})
        if answer["error"] is not None:
            error = answers.error_of(answer["error"])
            raise error if isinstance(error, HostFailure) else HostFailure(member.name, str(error))
        result: dict[str, Any] = answer["result"]
        return result

    # -- the end -------------------------------------------------------------------------------

    def hand_over(self, members: Sequence[Member]) -> None:
        """Have every job leave its host to itself."""
        for member in members:
            if member.session is not None:
                member.session.hand_over()
                member.session.close()
        if self._conversation is not None:
            self._conversation.leave(self._close_hastily)

    def _close_hastily(self) -> None:
        journal = PostgresJournal(self._journal.url, patience=HASTE)
        journal.mailbox().close(self._transaction)
        journal.close()

    def close(self) -> None:
        """End the jobs that are left, and let go of the engine."""
        if self._conversation is not None:
            self._conversation.end(lambda: self._mailbox.close(self._transaction))
        self._engine.close()

    # -- orders --------------------------------------------------------------------------------

    def _ask(
        self, context: Context, member: Member, verb: str, arguments: dict[str, Any]
    ) -> dict[str, Any]:
        """The answer of the job; ``member`` is as that knows it. Raises :class:`JobLost`."""
        if self._conversation is None:
            raise JobLost(member.name, "there is no job: it was interrupted before it began")
        known = answers.shared(context)
        answer = self._conversation.ask(member.name, verb, {**arguments, "known": known})
        if answer["member"] is not None:
            answers.apply(member, answer["member"])
            self._epochs[member.name] = int(answer["member"]["epoch"])
        return answer

    def _held(self, host: str) -> int:
        """The highest epoch under which a job of ours is known to have held a host."""
        assert self._conversation is not None
        return max(self._epochs[host], self._conversation.held(host))

    def _step(self, context: Context, member: Member, verb: str) -> None:
        answer = self._ask(context, member, verb, {})
        if answer["error"] is not None:
            raise answers.error_of(answer["error"])

    def _evidence(self, host: str) -> Iterator[bytes]:
        name = evidence_of(host)
        for number, sealed in enumerate(self._mailbox.take(self._transaction, name)):
            yield self._seal.open(f"{name}/{number}", sealed)

    # -- without a job -------------------------------------------------------------------------

    def _from_here(self, context: Context, member: Member, lost: JobLost) -> None:
        """A connection of this process. Raises :class:`HostFailure`."""
        assert self._conversation is not None
        self._conversation.withdraw(member.name)
        context.record("connect", "note", member.name, f"{lost.reason}; taken over from here")
        transaction.connect(context, member)

    def _restore_from_here(
        self, context: Context, member: Member, save: rescue.Save | None, lost: JobLost
    ) -> None:
        member.failure = member.failure or lost
        try:
            self._from_here(context, member, lost)
            if not self._take_over_unvoted(context, member):
                return
        except HostFailure as error:
            # Whether this machine reaches it at all is another question: it restores alone.
            self.left.append(member.name)
            self._failed(context, member, error)
            return
        rescue.restore(context, member, save)

    def _take_over_unvoted(self, context: Context, member: Member) -> bool:
        """Fence everybody off, whoever it is; false where it has ended already.

        An abort is what everybody concludes who does not find a commit, so that nobody can have
        decided otherwise.
        """
        status = member.wire().call("status")
        mine = [r for r in status["unfinished"] if r["transaction"] == context.transaction]
        if mine:
            take_over(context, member, int(mine[0]["epoch"] or 0) + 1)
            member.touched = member.state not in ("begun", "staged", "aborted")
            return True
        ended = [r for r in status["ended"] if r["transaction"] == context.transaction]
        member.state = ended[0]["state"] if ended else "aborted"
        member.restored = {"state": member.state, "verified": True, "healthy": True}
        words = f"it is {member.state} already"
        context.record("restore", "note", member.name, words)
        return False

    def _failed(self, context: Context, member: Member, error: DeployguardError) -> None:
        """As a rescue that failed tells of it."""
        if not isinstance(error, HostFailure):
            error = HostFailure(member.name, error.message, hint=error.hint)
        member.failure = member.failure or error
        if member.state not in (*_ENDED, "stuck", "taken_over"):
            member.state = "lost" if member.begun else "unreachable"
        context.record("restore", "failed", member.name, error.reason)


def refuse_what_is_done_here(plan: Plan) -> None:
    """Raise :class:`UsageError` for what needs this machine, and for hosts that every worker would
    take for itself."""
    names = [name for name, host in plan.hosts.items() if host.transport == "local"]
    if names:
        raise UsageError(
            f"{', '.join(names)}: with `transport: local` a worker would deploy to itself",
            hint="reach it over ssh, or deploy without --engine",
        )
    sent = [name for name, one in plan.components.items() if one.git and one.git.repository]
    if sent:
        raise UsageError(
            f"{', '.join(sent)}: a `repository` of this machine is sent over its connections",
            hint="have the hosts fetch the revision, or deploy without --engine",
        )
    if plan.snapshots is not None:
        raise UsageError(
            "`snapshots` are sent off the hosts over connections of this machine",
            hint="deploy without --engine",
        )
