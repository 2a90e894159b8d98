"""All hosts of a transaction, from the first connection to the decision carried out.

Everything that can refuse comes before anything is touched, on every host: connect, lock, look,
guards, stage. Then the batches switch one after another; hosts that are done with their batch have
voted and wait. When all have voted the decision is recorded here first and told to the hosts
second. Any other way out is a rescue of every host that was touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, wait
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from deployguard import faults
from deployguard.errors import (
    DeployguardError,
    HostFailure,
    Interrupted,
    JournalUnavailable,
    Locked,
    Refused,
    UsageError,
)
from deployguard.guards.base import Verdict
from deployguard.rollout import decide, guards, keeping, migrations, rescue
from deployguard.rollout.member import Context, Member
from deployguard.rollout.outcome import Override
from deployguard.rollout.work import Step

__all__ = ["Decisions", "Ending", "run", "start_connecting"]

#: How often a wait for the hosts looks whether it is time to stop, in seconds.
_GLANCE = 0.1


class Decisions(Protocol):
    """Where the coordinator's decision becomes durable; see :mod:`deployguard.store`."""

    def decide(self, transaction: str, decision: str) -> str:
        """Record the decision; the one that stands is on disk when this returns."""
        ...

    def override(self, transaction: str, overrides: Iterable[Mapping[str, Any]]) -> None:
        """Record guards that were gone over; on disk when this returns."""
        ...


@dataclass
class Ending:
    """How the rollout went: what the outcome is made from."""

    members: list[Member]
    committed: bool = False
    unchanged: bool = False
    refusal: DeployguardError | None = None
    interrupted: bool = False
    overrides: tuple[Override, ...] = ()
    notes: list[str] = field(default_factory=list)


def run(
    context: Context,
    members: list[Member],
    executor: Executor,
    decisions: Decisions,
    save: rescue.Save | None,
) -> Ending:
    """Deploy to all members; raises nothing that belongs to a host."""
    fleet = _Fleet(context, members, executor)
    ending = Ending(members)
    try:
        _run(context, fleet, decisions, save, ending)
    except _Undecided as doubt:
        ending.notes.append(str(doubt))
        context.work.hand_over(members)
    return ending


def _run(
    context: Context,
    fleet: _Fleet,
    decisions: Decisions,
    save: rescue.Save | None,
    ending: Ending,
) -> None:
    members = fleet.members
    try:
        fleet.connected()
        _stop_if_too_many(context, members)
        fleet.each(context.work.begin, fleet.able())
        fleet.each(context.work.inspect, fleet.able())
        _stop_if_too_many(context, members)
        context.migrations = migrations.migrations_of(context, fleet.able())
        guards.note_unhealthy(context, fleet.able())
        verdicts = guards.judge(context, fleet.able())
        if guards.nothing_to_do(fleet.able()) and len(fleet.able()) == len(members):
            ending.unchanged = True
            fleet.restore(fleet.able(), None)
            return
        _approve(context, fleet)
        _go_over(context, decisions, verdicts, ending)
        fleet.each(context.work.stage, fleet.able())
        _stop_if_too_many(context, members)
        _keep(context, fleet)
        _roll(context, fleet)
    except (Refused, Locked, UsageError, JournalUnavailable) as refusal:
        ending.refusal = refusal
        fleet.restore(members, None)
        return
    except Interrupted:
        # The hosts have been told already; what they do now they do alone.
        ending.interrupted = True
        _abort(context, decisions)
        return
    except _Failed:
        _give_up(context, fleet, decisions, save)
        return
    ready = [m for m in members if m.state == "prepared"]
    if not ready or _decide(context, decisions, "commit") != "commit":
        # The other record is that of a `recover` which thought that we were gone.
        _decide(context, decisions, "abort")
        fleet.restore(members, save)
        return
    fleet.carry_out(context.work.commit, ready)
    # Hosts that failed within `max_fail_percentage` go back alone.
    fleet.restore([m for m in members if m not in ready and m.begun], save)
    ending.committed = all(m.state == "committed" for m in ready)


def _approve(context: Context, fleet: _Fleet) -> None:
    """Ask whoever may say yes; an interrupt is an answer as well."""
    try:
        guards.approve(context, fleet.able())
    except Refused:
        if context.stop.is_set():
            context.work.hand_over(fleet.members)
            raise Interrupted("interrupted") from None
        raise


def _go_over(
    context: Context, decisions: Decisions, verdicts: Sequence[Verdict], ending: Ending
) -> None:
    """Put on record which guards are gone over, before anything is done about it."""
    found = guards.overrides(verdicts, context.owner)
    if not found:
        return
    decisions.override(context.transaction, [asdict(each) for each in found])
    ending.overrides = found
    for each in found:
        for words in each.refused:
            context.record(
                "inspect", "note", "", f"{each.guard} is overridden: {each.reason} ({words})"
            )


def _keep(context: Context, fleet: _Fleet) -> None:
    """Send what is live off the hosts, while nothing has been touched."""
    if context.keeper is not None:
        fleet.each(keeping.collect, fleet.able())
        fleet.once(lambda: keeping.finish(context))
        _stop_if_too_many(context, fleet.members)


def start_connecting(context: Context, members: list[Member], executor: Executor) -> None:
    """Begin to reach every host; :func:`run` waits for the answers."""
    for member in members:
        member.connecting = executor.submit(_guarded, context.work.connect, context, member)


def _decide(context: Context, decisions: Decisions, decision: str) -> str:
    """The decision that stands, on disk.

    Raises :class:`_Undecided` when it is not known whether a commit was recorded. An abort needs no
    record: without one it is what everybody concludes.
    """
    faults.reach("before decide")
    try:
        standing = decisions.decide(context.transaction, decision)
    except JournalUnavailable as error:
        context.record("report", "note", "", error.message)
        if decision == "commit":
            raise _Undecided(error.message) from error
        standing = decision
    faults.reach("after decide")
    return standing


def _abort(context: Context, decisions: Decisions) -> None:
    """Record an abort, unless hosts may wait for a person, whose choice is to be the first.

    No record means the same, and a host behind a point of no return goes back for neither.
    """
    if not any(one.no_return for one in context.migrations):
        _decide(context, decisions, "abort")


class _Undecided(Exception):
    """Every host that voted has to wait for somebody who can read the journal."""


class _Failed(Exception):
    """Too many hosts failed: the transaction is aborted."""


class _Fleet:
    """The members, and one step for many of them at a time."""

    def __init__(self, context: Context, members: list[Member], executor: Executor) -> None:
        self.context = context
        self.members = members
        self._executor = executor

    def able(self) -> list[Member]:
        """The members that have not failed."""
        return [member for member in self.members if member.failure is None]

    def connected(self) -> None:
        """Wait for the connections that :func:`start_connecting` began."""
        self._collect([(m, m.connecting) for m in self.members if m.connecting is not None])

    def each(self, step: Step, members: Sequence[Member]) -> None:
        """Run a step for each; a host's failure is kept in its member.

        A refusal or a held lock is raised after all have answered. Raises :class:`Interrupted` when
        it is time to stop, in the middle of the step as well; the hosts have been told then.
        """
        self._collect(
            [(m, self._executor.submit(_guarded, step, self.context, m)) for m in members]
        )

    def once(self, step: Callable[[], None]) -> None:
        """One thing for all of them, interrupted as :meth:`each` is."""
        future = self._executor.submit(step)
        self._wait([future])
        future.result()

    def carry_out(self, step: Step, members: Sequence[Member]) -> None:
        """Run a step that follows from a decision: nothing interrupts it any more."""
        futures = [(m, self._executor.submit(_guarded, step, self.context, m)) for m in members]
        for member, future in futures:
            error = future.result()
            if isinstance(error, HostFailure):
                member.failure = error

    def _collect(self, futures: Sequence[tuple[Member, Future[DeployguardError | None]]]) -> None:
        """Keep each host's failure in its member; raise what concerns the whole transaction."""
        self._wait([future for _, future in futures])
        refusals: list[DeployguardError] = []
        for member, future in futures:
            error = future.result()
            if isinstance(error, HostFailure):
                member.failure = error
                if member.session is None and not member.begun:
                    member.state = "unreachable"
            elif error is not None:
                refusals.append(error)
        if refusals:
            # Who is told "locked" need not be told of drift as well: that may be the other's work.
            raise min(refusals, key=lambda error: not isinstance(error, Locked))

    def _wait(self, futures: Sequence[Future[Any]]) -> None:
        while wait(futures, timeout=_GLANCE).not_done and not self.context.stop.is_set():
            pass
        if self.context.stop.is_set():
            for future in futures:
                future.cancel()
            self.context.work.hand_over(self.members)
            raise Interrupted("interrupted")

    def restore(self, members: Iterable[Member], save: rescue.Save | None) -> None:
        """Bring hosts back, or drop what was staged where nothing was touched.

        Where a schema is taken back, new code stops everywhere before, and old code starts
        elsewhere after; if it cannot be taken back, it does not start.
        """
        begun = [member for member in members if member.begun]
        back = {one.host for one in self.context.migrations if one.kind == "reversible"}
        first = [member for member in begun if member.touched and member.name in back]
        rest = [member for member in begun if member not in first]
        if first:
            self._all(self.context.work.stop, [member for member in rest if member.touched], save)
            self._all(self.context.work.restore, first, save)
        if any(member.state == "stuck" for member in first):
            for member in rest:
                if member.touched:
                    self.context.work.hold(self.context, member)
            rest = [member for member in rest if not member.touched]
        self._all(self.context.work.restore, rest, save)

    def _all(
        self,
        step: Callable[[Context, Member, rescue.Save | None], None],
        members: Sequence[Member],
        save: rescue.Save | None,
    ) -> None:
        """One step of a rescue for each; it raises nothing."""
        futures = [self._executor.submit(step, self.context, m, save) for m in members]
        for future in futures:
            future.result()


def _guarded(step: Step, context: Context, member: Member) -> DeployguardError | None:
    try:
        step(context, member)
    except DeployguardError as error:
        return error
    return None


def _roll(context: Context, fleet: _Fleet) -> None:
    """Batch by batch: switch, check, vote. Raises :class:`_Failed`."""
    names = [member.name for member in fleet.members]
    by_name = {member.name: member for member in fleet.members}
    done: list[Member] = []
    context.migrations = migrations.migrations_of(context, fleet.able())
    context.once = migrations.once_of(context, fleet.able())
    planned = migrations.batches_of(context.plan, names, context.migrations)
    for number, batch_names in enumerate(planned, start=1):
        batch = [by_name[name] for name in batch_names]
        context.record(
            "switch", "note", "", f"batch {number}: {', '.join(batch_names)}", batch=number
        )
        fleet.each(context.work.switch, [m for m in batch if m.failure is None])
        crossed = migrations.points(context.migrations, batch_names)
        context.crossed = ", ".join(filter(None, [context.crossed, *crossed]))
        failed = [m.name for m in batch if m.failure is not None]
        if decide.after_batch(batch_names, failed, context.plan.max_fail_percentage) == "abort":
            raise _Failed
        if done:
            # What was healthy an hour ago is not known to be healthy now.
            fleet.each(context.work.check_again, [m for m in done if m.failure is None])
            worse = [m.name for m in done if m.failure is not None]
            share = context.plan.max_fail_percentage
            if decide.after_batch([m.name for m in done], worse, share) == "abort":
                raise _Failed
        done += [m for m in batch if m.failure is None]


def _stop_if_too_many(context: Context, members: Sequence[Member]) -> None:
    failed = [m.name for m in members if m.failure is not None]
    if len(failed) == len(members):
        raise _Failed
    names = [m.name for m in members]
    if decide.after_batch(names, failed, context.plan.max_fail_percentage) == "abort":
        raise _Failed


def _give_up(
    context: Context, fleet: _Fleet, decisions: Decisions, save: rescue.Save | None
) -> None:
    """The transaction failed: `on_failure` says who goes back."""
    choice = context.plan.on_failure
    begun = [m for m in fleet.members if m.begun]
    ready = [m for m in begun if m.state == "prepared" and m.failure is None]
    if choice == "restore_batch" and ready:
        # The batches that were healthy stay: that is a commit, of some.
        standing = _decide(context, decisions, "commit")
        fleet.restore([m for m in begun if m not in ready], save)
        if standing == "commit":
            fleet.carry_out(context.work.commit, ready)
        else:
            fleet.restore(ready, save)
        return
    _abort(context, decisions)
    if choice == "hold":
        touched = [m for m in begun if m.touched]
        for member in touched:
            context.work.hold(context, member)
        fleet.restore([m for m in begun if not m.touched], None)
    else:
        fleet.restore(begun, save)
