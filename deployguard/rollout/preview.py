"""What a deploy would do, as plain data: the answer of ``deployguard plan``.

A preview comes from the same inspection that a deploy begins with, so it cannot promise anything
that the deploy would see differently a moment later.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["ComponentPreview", "GuardPreview", "HostPreview", "Preview"]

#: A guard's name, whether it lets the deploy pass, and its message.
GuardPreview = tuple[str, bool, str]


@dataclass(frozen=True)
class ComponentPreview:
    """What changes of one component on one host.

    ``added``, ``changed`` and ``removed`` are (path, size in bytes) of the new file, or of the old
    one where it goes. ``files`` are the managed files outside the tree with ``same``, ``added`` or
    ``changed``. ``restarts`` are the services that stop and start. ``drift`` are paths that
    were changed by hand since the last commit. ``bytes_to_send`` is what the host lacks.
    ``revision`` says in words from which commit to which a git checkout moves, if it does.
    """

    component: str
    version_live: str | None
    version_new: str
    added: tuple[tuple[str, int], ...] = ()
    changed: tuple[tuple[str, int], ...] = ()
    removed: tuple[tuple[str, int], ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    restarts: tuple[str, ...] = ()
    drift: tuple[str, ...] = ()
    bytes_to_send: int = 0
    revision: str = ""

    @property
    def changes(self) -> bool:
        """Whether a deploy would touch this component at all."""
        return bool(
            self.version_live != self.version_new
            or self.added
            or self.changed
            or self.removed
            or self.revision
            or any(change != "same" for _, change in self.files)
        )


@dataclass(frozen=True)
class HostPreview:
    """One host: its components, and each guard as (name, passed, message).

    With an ``error`` the host could not be inspected and the rest is what was known by then;
    ``hint`` is the mend.
    """

    host: str
    components: tuple[ComponentPreview, ...] = ()
    guards: tuple[GuardPreview, ...] = ()
    error: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Preview:
    """The whole plan against the hosts' real state.

    ``guards`` are those that are asked once for all hosts.
    """

    plan: str
    version: str
    environment: str
    hosts: tuple[HostPreview, ...] = ()
    guards: tuple[GuardPreview, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether an apply would change anything anywhere."""
        return any(component.changes for host in self.hosts for component in host.components)

    @property
    def refused(self) -> bool:
        """Whether a guard would refuse the apply."""
        groups = [self.guards, *(host.guards for host in self.hosts)]
        return any(not passed for guards in groups for _, passed, _ in guards)

    @property
    def failed(self) -> bool:
        """Whether a host could not be inspected, so that the answer is not whole."""
        return any(host.error for host in self.hosts)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "changes": self.changes}
