"""Who carries out the steps of a host's transaction: this process, or a job somewhere else.

The fleet says what is done when, and judges; :class:`Here` does it over connections of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from deployguard.plan.model import Task
from deployguard.rollout import rescue, transaction
from deployguard.rollout.member import Context, Member

__all__ = ["Here", "Step", "Work"]

#: One step for one host. Raises :class:`~deployguard.errors.DeployguardError`.
Step = Callable[[Context, Member], None]


class Work(Protocol):
    """The steps of one host, each called from a thread of the fleet."""

    #: Hosts may be reached while the artifacts are still being read.
    eager: bool
    #: Hosts that were left to themselves although nobody interrupted: they restore alone.
    left: list[str]

    def start(self, context: Context, members: Sequence[Member]) -> None:
        """The releases are open; called once, before any step unless ``eager``."""
        ...

    def connect(self, context: Context, member: Member) -> None: ...

    def begin(self, context: Context, member: Member) -> None: ...

    def inspect(self, context: Context, member: Member) -> None: ...

    def stage(self, context: Context, member: Member) -> None: ...

    def switch(self, context: Context, member: Member) -> None:
        """Switch, check, and vote."""
        ...

    def check_again(self, context: Context, member: Member) -> None: ...

    def commit(self, context: Context, member: Member) -> None:
        """Carry out the decision; it is on disk."""
        ...

    def restore(self, context: Context, member: Member, save: rescue.Save | None) -> None:
        """As :func:`deployguard.rollout.rescue.restore`; raises nothing."""
        ...

    def stop(self, context: Context, member: Member, save: rescue.Save | None) -> None:
        """As :func:`deployguard.rollout.rescue.stop`; raises nothing."""
        ...

    def hold(self, context: Context, member: Member) -> None:
        """As :func:`deployguard.rollout.rescue.hold`; raises nothing."""
        ...

    def reaches(self, member: Member) -> bool:
        """Whether the host can still be asked for something."""
        ...

    def run(self, context: Context, member: Member, task: Task) -> dict[str, Any]:
        """A task of ``always``, on a host that is reached."""
        ...

    def hand_over(self, members: Sequence[Member]) -> None:
        """Leave the hosts to themselves: each restores at once, or waits if it has voted."""
        ...

    def close(self) -> None:
        """The transaction has come to its end."""
        ...


class Here:
    """In this process: a connection to each host."""

    eager = True

    def __init__(self) -> None:
        self.left: list[str] = []

    def start(self, context: Context, members: Sequence[Member]) -> None:
        """Nothing is to be prepared."""

    connect = staticmethod(transaction.connect)
    begin = staticmethod(transaction.begin)
    inspect = staticmethod(transaction.inspect)
    stage = staticmethod(transaction.stage)
    check_again = staticmethod(transaction.check_again)
    commit = staticmethod(transaction.commit)
    restore = staticmethod(rescue.restore)
    stop = staticmethod(rescue.stop)
    hold = staticmethod(rescue.hold)

    def switch(self, context: Context, member: Member) -> None:
        """Switch, check, and vote."""
        transaction.switch(context, member)
        transaction.check(context, member)

    def reaches(self, member: Member) -> bool:
        """Whether there is, or was, a connection."""
        return member.session is not None

    def run(self, context: Context, member: Member, task: Task) -> dict[str, Any]:
        """A task of ``always``. Raises :class:`HostFailure`."""
        return member.call(
            "run", {"argv": list(task.run), "env": task.env, "timeout": task.timeout}
        )

    def hand_over(self, members: Sequence[Member]) -> None:
        """Tell every host, and let go of it."""
        for member in members:
            if member.session is not None:
                member.session.hand_over()
                member.session.close()

    def close(self) -> None:
        """The connections are closed with the run."""
