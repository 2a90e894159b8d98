"""Limits the damage, step by step, so that every step can be taken back whatever happens.

What a step is about to do, with its inverse, is in the incident's timeline before it is done. So
what is in force is read from there and never guessed: a step that was begun counts, whether or not
anybody heard how it ended, and is taken back by the undo that was written down then, whatever the
plan says today.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployguard.errors import HostFailure, UsageError
from deployguard.incidents.book import Book
from deployguard.incidents.record import Entry, Incident
from deployguard.incidents.severity import level_named
from deployguard.plan.model import Containment, Plan
from deployguard.plan.order import hosts_in_order, hosts_named
from deployguard.response.asking import bounded
from deployguard.rollout.member import Connect

__all__ = ["Contained", "Done", "Hands", "demand_clean", "in_force", "steps_for"]

#: Kinds of entries: the intent, and what became of it.
BEGUN, ENDED, RELEASED = "containing", "contained", "released"

_WAY = 10.0


@dataclass(frozen=True)
class Contained:
    """A step that is in force on some hosts, or may be; ``undo`` is empty where it needs none."""

    id: str
    step: str
    hosts: tuple[str, ...]
    undo: tuple[str, ...]
    undo_less: str = ""
    certain: bool = True
    timeout: float = 60.0


@dataclass(frozen=True)
class Done:
    """How a step, or its undo, ended: what each host where it failed says."""

    step: str
    hosts: tuple[str, ...]
    failed: Mapping[str, str]

    @property
    def ok(self) -> bool:
        """Whether it went well on every host."""
        return not self.failed


def steps_for(plan: Plan, severity: int) -> list[Containment]:
    """The steps of `contain` that a severity asks for, in the plan's order."""
    return [step for step in plan.respond.contain if severity <= level_named(step.severity)]


def in_force(entries: Iterable[Entry]) -> list[Contained]:
    """What was begun and not taken back, the oldest first. Pure, from a timeline."""
    begun: dict[str, Contained] = {}
    for entry in sorted(entries, key=lambda entry: entry.number):
        detail = entry.detail
        if entry.kind == BEGUN and "id" in detail:
            begun[detail["id"]] = Contained(
                detail["id"],
                detail["step"],
                tuple(detail["hosts"]),
                tuple(detail["undo"]),
                detail.get("undo_less", ""),
                certain=False,
                timeout=float(detail.get("timeout", 60.0)),
            )
        elif entry.kind == ENDED and detail.get("id") in begun:
            one = begun[detail["id"]]
            begun[one.id] = Contained(
                one.id, one.step, one.hosts, one.undo, one.undo_less, True, one.timeout
            )
        elif entry.kind == RELEASED and detail.get("id") in begun:
            one = begun.pop(detail["id"])
            left = tuple(host for host in one.hosts if host not in detail["hosts"])
            if left:
                begun[one.id] = Contained(
                    one.id, one.step, left, one.undo, one.undo_less, one.certain, one.timeout
                )
    return list(begun.values())


def demand_clean(plan: Plan, clean: Callable[[Any], Any]) -> None:
    """Raises :class:`UsageError` where an undo holds a secret: it is written down before the step,
    without its secrets, and could not be run from there."""
    for step in (*plan.respond.contain, *plan.respond.mitigate):
        if step.undo is not None and list(clean(list(step.undo))) != list(step.undo):
            raise UsageError(
                f'the undo of "{step.name}" holds what looks like a secret',
                hint="have the command read it from a file on the host; nothing was done",
            )


class Hands:
    """Does steps on the hosts of a plan and writes each into one incident."""

    def __init__(
        self,
        plan: Plan,
        connect: Connect,
        book: Book,
        incident: Incident,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._plan = plan
        self._connect = connect
        self._book = book
        self._incident = incident.id
        self._tell = tell
        #: What was begun with these hands, the oldest first.
        self.begun: list[Contained] = []

    def do(self, step: Containment, silent: Iterable[str] = ()) -> Done:
        """One step on its hosts; those in ``silent`` do not answer and are not waited for."""
        named = hosts_named(self._plan.hosts, step.hosts)
        hosts = [host for host in hosts_in_order(self._plan) if host in named]
        able = [host for host in hosts if host not in set(silent)]
        hosts = able[:1] if step.once else able
        if not hosts:
            self._book.note(self._incident, f"{step.name}: no host to do it on", kind=ENDED)
            return Done(step.name, (), {"": "no host to do it on"})
        identifier = secrets.token_hex(4)
        where = ", ".join(hosts)
        self._book.note(
            self._incident,
            f"{step.name} on {where}: {' '.join(step.run)}",
            kind=BEGUN,
            detail={
                "id": identifier,
                "step": step.name,
                "hosts": hosts,
                "undo": list(step.undo or ()),
                "undo_less": step.undo_less or "",
                "timeout": step.timeout,
            },
        )
        self.begun.append(
            Contained(
                identifier,
                step.name,
                tuple(hosts),
                step.undo or (),
                step.undo_less or "",
                timeout=step.timeout,
            )
        )
        failed = self._run(hosts, step.run, step.env, step.timeout)
        words = f"{step.name}: done on {where}"
        if failed:
            words = f"{step.name} failed: " + _each(failed)
        self._tell(words)
        detail = {"id": identifier, "failed": failed}
        self._book.note(self._incident, words, kind=ENDED, detail=detail)
        return Done(step.name, tuple(hosts), failed)

    def undo(self, contained: Sequence[Contained]) -> list[Done]:
        """Take steps back, the newest first; those that fail stay in force."""
        env = {
            step.name: step.env
            for step in (*self._plan.respond.contain, *self._plan.respond.mitigate)
        }
        found = []
        for one in reversed(contained):
            failed: dict[str, str] = {}
            if one.undo:
                known = [host for host in one.hosts if host in self._plan.hosts]
                failed = {h: "is not in the plan" for h in one.hosts if h not in known}
                failed |= self._run(known, one.undo, env.get(one.step, {}), one.timeout)
            good = [host for host in one.hosts if host not in failed]
            words = f"{one.step}: taken back on {', '.join(good)}" if good else ""
            if not one.undo:
                words = f"{one.step}: nothing to take back ({one.undo_less})"
            if failed:
                words = "; ".join(filter(None, (words, f"{one.step} stays: {_each(failed)}")))
            self._tell(words)
            detail = {"id": one.id, "hosts": good, "failed": failed}
            self._book.note(self._incident, words, kind=RELEASED, detail=detail)
            found.append(Done(one.step, one.hosts, failed))
        return found

    def _run(
        self, hosts: Sequence[str], argv: Sequence[str], env: Mapping[str, str], timeout: float
    ) -> dict[str, str]:
        """A command on hosts at the same time; what went wrong, by host."""

        def ask(name: str) -> dict[str, Any]:
            with self._connect(name, self._plan.hosts[name]) as session:
                args = {"argv": list(argv), "env": dict(env), "timeout": timeout}
                return session.call("run", args, timeout=timeout + _WAY)

        failed: dict[str, str] = {}
        for name, answer in bounded(hosts, ask, timeout + 3 * _WAY).items():
            if isinstance(answer, dict):
                if answer["status"] != 0:
                    failed[name] = str(answer["message"])
            elif answer is None:
                failed[name] = "no answer in time"
            else:
                reason = answer.reason if isinstance(answer, HostFailure) else answer.message
                failed[name] = reason
        return failed


def _each(failed: Mapping[str, str]) -> str:
    return "; ".join(f"{host}: {why}" if host else why for host, why in failed.items())
