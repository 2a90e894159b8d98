"""From a validated plan to an outcome: opens the releases, runs the fleet, reads how it ended."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

from deployguard.errors import (
    ActionFailed,
    DeployguardError,
    ExitCode,
    HostFailure,
    Locked,
    Refused,
    with_plan,
)
from deployguard.guards.base import Ask
from deployguard.guards.world import real_world
from deployguard.plan.credentials import demand_access
from deployguard.plan.model import Component, Plan
from deployguard.plan.order import components_on, hosts_in_order, hosts_named
from deployguard.rollout import audit, decide, fleet, rescue
from deployguard.rollout.keeping import Keeper
from deployguard.rollout.member import Connect, Context, Member, Recorder, Settle
from deployguard.rollout.outcome import Finding, HostOutcome, Listener, Outcome, Override
from deployguard.rollout.owner import owner_name
from deployguard.rollout.releases import open_releases
from deployguard.rollout.restoring import Restoring
from deployguard.rollout.targets import Source
from deployguard.rollout.transactions import new_transaction
from deployguard.rollout.work import Here, Work
from deployguard.snapshots.opening import open_vault

__all__ = ["Run", "deploy", "members_of", "new_transaction", "usage_outcome"]


class Run:
    """One transaction about to run: the plan, its releases and its hosts."""

    def __init__(
        self,
        plan: Plan,
        *,
        connect: Connect,
        listen: Listener | None = None,
        stop: threading.Event | None = None,
        drift: str | None = None,
        version: str | None = None,
        settle: Settle | None = None,
        overrides: Mapping[str, str] | None = None,
        fix: bool = False,
        ask: Ask | None = None,
        restoring: Restoring | None = None,
        work: Work | None = None,
    ) -> None:
        self.plan = plan
        self.started_at = time.time()
        self.version = version or plan.version
        self._history = version is not None
        self._stack = contextlib.ExitStack()
        self.context = Context(
            plan=plan,
            transaction=new_transaction(plan, self.started_at),
            epoch=1,
            owner=owner_name(),
            sources={},
            record=Recorder(listen),
            connect=connect,
            stop=stop or threading.Event(),
            settle=settle or _settle_nothing,
            work=work or Here(),
            world=real_world(ask),
            version=self.version,
            drift=drift,
            overrides=overrides or {},
            fix=fix,
            # What ran before is judged as a rollback is.
            rollback=self._history or restoring is not None,
            restoring=restoring,
        )
        #: Guards that were gone over, once that is known.
        self.overrides: tuple[Override, ...] = ()
        self.members = members_of(plan, self._component)

    def _component(self, host: str, name: str) -> Component:
        component = self.plan.components[name]
        restoring = self.context.restoring
        return component if restoring is None else restoring.component(host, name, component)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            if member.session is not None:
                member.session.close()
        self.context.work.close()
        self._stack.close()

    def open_sources(self) -> None:
        """Open every artifact and read its manifest.

        Raises :class:`~deployguard.errors.PlanInvalid` for those that are damaged or unsafe, and
        :class:`~deployguard.errors.UsageError` where the secret of a check is not there.
        """
        demand_access(self.plan)
        if self._history:
            self.context.sources.update(
                {name: Source(self.version) for name in self.plan.components}
            )
        elif self.context.restoring is not None:
            self.context.sources.update(self.context.restoring.open(self._stack))
        else:
            self.context.sources.update(open_releases(self.plan, self._stack))
            self._keep_what_is_live()

    def _keep_what_is_live(self) -> None:
        """A rollback keeps nothing first: somebody needs it now."""
        if self.plan.snapshots is None:
            return
        context = self.context
        vault = open_vault(self.plan)
        context.keeper = Keeper(
            self.plan, vault, context.transaction, context.owner, stop=context.stop
        )

    @contextlib.contextmanager
    def executor(self) -> Iterator[Executor]:
        """Threads for the hosts, no more at a time than the plan allows."""
        workers = max(1, min(self.plan.concurrency, len(self.members)))
        with ThreadPoolExecutor(workers, thread_name_prefix="host") as threads:
            yield threads

    def outcome(
        self, exit_code: ExitCode, status: Any, summary: str, findings: tuple[Finding, ...] = ()
    ) -> Outcome:
        """The outcome as things stand."""
        found = [
            *(finding for member in self.members for finding in member.findings),
            *self.context.findings,
        ]
        found += [failure for member in self.members for failure in self._failure(member)]
        found += findings
        return Outcome(
            transaction=self.context.transaction,
            plan=self.plan.name,
            version=self.version,
            environment=self.plan.environment,
            exit_code=exit_code,
            status=status,
            summary=summary,
            started_at=self.started_at,
            ended_at=time.time(),
            hosts=tuple(member.outcome() for member in self.members),
            findings=tuple(dict.fromkeys(found)),
            timeline=tuple(self.context.record.events),
            overrides=self.overrides,
            source=self.plan.arguments,
        )

    def _failure(self, member: Member) -> Iterator[Finding]:
        """What stopped the host, and the mend, where no finding of its own says so already."""
        failure = member.failure
        if failure is None:
            return
        layer = name = "connection"
        if isinstance(failure, ActionFailed):
            if any(finding.critical for finding in member.findings):
                return
            failed = [
                event.phase
                for event in self.context.record.events
                if event.host == member.name and event.status == "failed"
            ]
            layer, name = "step", failed[-1] if failed else "begin"
        mend = with_plan(failure.hint, self.plan.arguments)
        yield Finding(member.name, "", layer, name, failure.reason, evidence=mend)


def members_of(
    plan: Plan, component: Callable[[str, str], Component] | None = None
) -> list[Member]:
    """The plan's hosts, in the order in which they are deployed to; ``component`` says what one of
    its components is on a host, where that differs."""
    return [
        Member(
            name=name,
            host=plan.hosts[name],
            components={
                c: plan.components[c] if component is None else component(name, c)
                for c in components_on(plan, name)
            },
        )
        for name in hosts_in_order(plan)
    ]


def _settle_nothing(*_: object) -> str:
    return ""


def deploy(run: Run, decisions: fleet.Decisions, save: rescue.Save | None) -> Outcome:
    """Run the transaction to its end. Raises nothing that belongs to a host."""
    work = run.context.work
    with run.executor() as executor:
        if work.eager:
            # The hosts are reached while the artifact is read: neither needs the other yet.
            fleet.start_connecting(run.context, run.members, executor)
        run.open_sources()
        work.start(run.context, run.members)
        if not work.eager:
            fleet.start_connecting(run.context, run.members, executor)
        ending = fleet.run(run.context, run.members, executor, decisions, save)
        run.overrides = ending.overrides
        if ending.committed:
            _prove(run)
        _always(run)
    return _judge(run, ending)


def _prove(run: Run) -> None:
    """Hash once more what was restored, now that it is live; what its service has changed since it
    started is told, and changes nothing."""
    if run.context.restoring is None:
        return
    for member in run.members:
        try:
            answer = audit.ask(member.wire(), run.plan, member.name)
        except HostFailure as error:
            words = f"it could not be looked at once more: {error.reason}"
            run.context.findings.append(
                Finding(member.name, "", "snapshot", "verify", words, critical=False)
            )
            continue
        for name, found in answer["components"].items():
            for difference in found["differences"]:
                words = f"changed since it is live: {difference}"
                run.context.findings.append(
                    Finding(member.name, name, "snapshot", "verify", words, critical=False)
                )


def _always(run: Run) -> None:
    """The plan's ``always`` tasks: on every host that can be reached, whatever happened."""
    for task in run.plan.always:
        named = hosts_named(run.plan.hosts, task.hosts)
        work = run.context.work
        able = [member for member in run.members if work.reaches(member) and member.name in named]
        for member in able[:1] if task.once else able:
            try:
                result = work.run(run.context, member, task)
            except HostFailure as error:
                run.context.record("report", "note", member.name, f"{task.name}: {error.reason}")
                continue
            if result["status"] != 0:
                run.context.record(
                    "report", "note", member.name, f"{task.name}: {result['message']}"
                )


def _judge(run: Run, ending: fleet.Ending) -> Outcome:
    """The exit code and the sentence that go with an ending."""
    total = len(run.members)
    hosts = tuple(member.outcome() for member in run.members)
    if ending.unchanged:
        text = f"{run.version} is live and healthy on {_hosts(total)}; nothing to do"
        return run.outcome(ExitCode.COMMITTED, "unchanged", text)
    if ending.interrupted:
        text = f"interrupted; the hosts restore themselves. Run `{_with(run, 'recover')}`"
        return run.outcome(ExitCode.INTERRUPTED, "interrupted", text)
    if ending.refusal is not None:
        return _refused(run, ending.refusal)
    code = decide.exit_code(hosts)
    committed = [h.host for h in hosts if h.state == "committed"]
    if code == ExitCode.COMMITTED:
        text = f"{run.version} is live on {_hosts(total)}, healthy"
        if run.context.restoring is not None:
            text = (
                f"{run.version} is back on {_hosts(total)}, as the snapshot "
                f"{run.context.restoring.snapshot.id} has it, verified, healthy"
            )
        return run.outcome(code, "committed", text)
    failed = ", ".join(m.name for m in run.members if m.failure is not None)
    if code == ExitCode.NEEDS_PERSON and any(h.state == "held" for h in hosts):
        return run.outcome(code, "needs_person", _held(run, failed))
    if alone := _left_alone(run, hosts, code):
        return run.outcome(ExitCode.INTERRUPTED, "interrupted", alone)
    if code == ExitCode.NEEDS_PERSON:
        stuck = ", ".join(h.host for h in hosts if h.state not in _SETTLED)
        unproven = ", ".join(
            h.host for h in hosts if h.state == "restored" and not (h.verified and h.healthy)
        )
        names = ", ".join(filter(None, (stuck, unproven)))
        text = f"{run.version} failed on {failed or names}; NOT restored: {names}"
        return run.outcome(code, "needs_person", text)
    if code == ExitCode.INTERRUPTED:
        return run.outcome(code, "interrupted", _in_doubt(run, hosts, ending))
    touched = [m.name for m in run.members if m.touched and m.state == "restored"]
    if not touched:
        text = f"{run.version} failed on {failed} before anything was touched"
    elif committed:
        text = (
            f"{run.version} is live on {', '.join(committed)}; it failed on {failed}, "
            "which is back on its old version, verified"
        )
    else:
        sick = {(h.host, check) for h in hosts if h.host in touched for check in h.sick}
        text = (
            f"{run.version} failed on {failed}; {_hosts(len(touched))} restored, files verified, "
            f"{_as_before(len(sick))}"
        )
    return run.outcome(code, "rolled_back", text)


def _as_before(sick: int) -> str:
    """How well it is after a restore: no better than it was before the deploy."""
    if not sick:
        return "healthy"
    checks = "1 check was" if sick == 1 else f"{sick} checks were"
    return f"healthy as before: {checks} not healthy then either"


def _left_alone(run: Run, hosts: Sequence[HostOutcome], code: ExitCode) -> str:
    """What to say where only of hosts that restore themselves it is not known; else empty."""
    left = run.context.work.left
    if not left or decide.exit_code([h for h in hosts if h.host not in left]) == code:
        return ""
    return (
        f"{run.version} was given up; {', '.join(left)} cannot be reached from here and restore "
        f"themselves. Run `{_with(run, 'recover')}`"
    )


def _in_doubt(run: Run, hosts: Sequence[HostOutcome], ending: fleet.Ending) -> str:
    """Why it is not ours to say how it ends."""
    taken = ", ".join(h.host for h in hosts if h.state == "taken_over")
    if taken:
        return f"somebody else has taken {taken} over; `{_with(run, 'status')}` says how it stands"
    waiting = ", ".join(h.host for h in hosts if h.state == "prepared")
    because = "".join(f"; {note}" for note in ending.notes)
    return f"in doubt: {waiting} did not hear the decision{because}. Run `{_with(run, 'recover')}`"


def _held(run: Run, failed: str) -> str:
    """What became of a deploy that failed behind a point of no return."""
    held = [member for member in run.members if member.state == "held"]
    tasks = dict.fromkeys(str(member.restored["held"]["task"]) for member in held)
    names = ", ".join(member.name for member in held)
    lost = [m.name for m in run.members if m.touched and m.state not in ("held", *_SETTLED)]
    also = f"; NOT restored: {', '.join(lost)}" if lost else ""
    return (
        f"{run.version} failed on {failed or names} behind a point of no return: "
        f"{', '.join(tasks)} cannot be taken back; held as they are, for a person to choose: "
        f"{names}{also}"
    )


_SETTLED = (
    "committed",
    "restored",
    "aborted",
    "untouched",
    "unreachable",
    "prepared",
    "taken_over",
)


def _refused(run: Run, refusal: DeployguardError) -> Outcome:
    status = "locked" if isinstance(refusal, Locked) else "refused"
    if not isinstance(refusal, (Locked, Refused)):
        status = "failed"
    mend = with_plan(refusal.hint, run.plan.arguments)
    if isinstance(refusal, Refused) and refusal.refusals:
        found = [
            Finding(host, "", "guard", name, message) for host, name, message in refusal.refusals
        ]
        found[-1] = dataclasses.replace(found[-1], evidence=mend)
        return run.outcome(refusal.exit_code, status, refusal.message, tuple(found))
    layer = "guard" if status == "refused" else "connection"
    finding = Finding("", "", layer, status, refusal.message, evidence=mend)
    return run.outcome(refusal.exit_code, status, refusal.message, (finding,))


def _with(run: Run, command: str) -> str:
    return f"deployguard {command} {run.plan.arguments}"


def _hosts(count: int) -> str:
    return f"{count} host" if count == 1 else f"{count} hosts"


def usage_outcome(run: Run, error: DeployguardError) -> Outcome:
    """For the journal: an artifact was no good, so no host was asked for anything."""
    return run.outcome(error.exit_code, "failed", error.message)
