"""The contract of a driver, and the words procedures are written in.

A driver turns a component and what was observed of it into operations, and does nothing else: it
MUST be pure, it MUST give every operation that changes something the undo that brings back what was
observed, and it MUST NOT compose shell. An undo MUST bear being run twice, and being run where its
operation failed half-way or never ran: after a power cut a restore begins anew. What a driver needs
to know of the host it asks for as data, in :meth:`Driver.observe`; the host program asks the
questions, before anything is touched, and asks them again after a restore. ``docs/drivers.md``
tells the whole contract, :mod:`deployguard.testing.conformance` tests it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from deployguard.plan.model import Component, ManagedFile

__all__ = [
    "Action",
    "Driver",
    "Observation",
    "Operation",
    "Site",
    "Steps",
    "operation",
    "run",
    "swap",
]

Action = dict[str, Any]
Operation = dict[str, Any]
Observation = Mapping[str, Any]


@dataclass(frozen=True)
class Site:
    """Where a component's parts stand on one host, as the host program placed them.

    ``live`` is the name everybody uses (the tree, or the ``current`` link); ``tree`` is where the
    new tree is built; ``beside`` is what is exchanged with ``live``. ``files`` maps each managed
    file to the staged one beside it. ``state`` is the host's state directory and ``uid`` the user
    the host program runs as. ``commit`` is what is live in a git checkout, and ``tag`` what it is
    to be called.
    """

    component: str
    layout: str
    live: str
    tree: str
    beside: str
    files: Mapping[str, str] = field(default_factory=dict)
    exists: bool = True
    state: str = ""
    uid: int = 0
    commit: str = ""
    tag: str = ""

    @property
    def working_directory(self) -> str:
        """The live tree as services see it."""
        return self.live

    def service_stem(self, path: str) -> str:
        """Where the host keeps what it must know of the component's service, without the ending.

        ``path`` is the component's: another plan may have a component of the same name there.
        """
        mark = hashlib.sha256(path.encode()).hexdigest()[:8]
        return f"{self.state}/services/{self.component}-{mark}"


@dataclass(frozen=True)
class Steps:
    """What a driver wants done, by place in the procedure.

    ``prepare`` runs while everything still serves, with the new tree beside the live one; ``stop``
    runs before anything is swapped, ``refresh_before`` and ``refresh_after`` around the swaps (the
    first for its undo, the second for its do), ``start`` at the end.
    """

    stop: Sequence[Operation] = ()
    refresh_before: Sequence[Operation] = ()
    refresh_after: Sequence[Operation] = ()
    start: Sequence[Operation] = ()
    prepare: Sequence[Operation] = ()


class Driver(Protocol):
    """One kind of service."""

    name: str

    def observe(self, component: Component, site: Site) -> list[dict[str, Any]]:
        """Questions to the host: ``{"field", "kind", …}``; ``docs/drivers.md`` has the kinds."""

    def files(self, component: Component) -> dict[str, ManagedFile]:
        """Files the service block brings along, by absolute path."""

    def steps(self, name: str, component: Component, site: Site, observed: Observation) -> Steps:
        """The operations, each with the undo that brings back what was observed."""

    def process_probe(self, component: Component, site: Site) -> dict[str, Any]:
        """How the host samples whether the service runs: the data of a ``process`` check."""

    def running(self, observed: Observation) -> bool:
        """Whether the service ran when it was observed."""

    def titles(self, component: Component) -> list[str]:
        """The services that restart, for ``plan``."""


def operation(
    component: str, name: str, title: str, do: Sequence[Action], undo: Sequence[Action]
) -> Operation:
    """An operation as the host program runs it; ids are unique within a procedure.

    :mod:`deployguard.onhost.transaction.operations` has the table of the actions, and of what else
    an operation may say (``undo_once``, ``undo_always``, ``settle``).
    """
    return {
        "id": f"{component}:{name}",
        "component": component,
        "title": title,
        "do": list(do),
        "undo": list(undo),
    }


def run(
    argv: Sequence[str],
    *,
    timeout: float = 60.0,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    ok: Sequence[int] | None = (0,),
    on_timeout: Sequence[str] | None = None,
    until: float | None = None,
) -> Action:
    """A command. ``ok=None`` accepts any exit status; ``until`` repeats it for so many seconds."""
    action: Action = {"act": "run", "argv": list(argv), "timeout": timeout}
    if env:
        action["env"] = dict(env)
    if cwd is not None:
        action["cwd"] = cwd
    action["ok"] = list(range(256)) if ok is None else list(ok)
    if on_timeout is not None:
        action["on_timeout"] = list(on_timeout)
    if until is not None:
        action["until"] = until
    return action


def swap(component: str, name: str, title: str, live: str, beside: str) -> Operation:
    """Exchange two names, and back."""
    pair = {"live": live, "beside": beside}
    return operation(
        component, name, title, [{"act": "swap", **pair}], [{"act": "swap_back", **pair}]
    )
