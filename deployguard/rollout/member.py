"""One host while the rollout runs: its connection, and what was learnt of it so far."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from deployguard import faults
from deployguard.drivers.base import Operation, Site
from deployguard.errors import ActionFailed, DeployguardError, HostFailure
from deployguard.guards.base import World
from deployguard.onhost.probes.base import CheckData
from deployguard.plan.model import Component, Host, Plan
from deployguard.rollout.outcome import Event, Finding, HostOutcome, Listener
from deployguard.rollout.targets import Source
from deployguard.transport.session import Session

if TYPE_CHECKING:
    from deployguard.rollout.keeping import Keeper
    from deployguard.rollout.restoring import Restoring
    from deployguard.rollout.work import Work

__all__ = ["Context", "Member", "Migration", "Recorder", "live_version"]

Connect = Callable[[str, Host], Session]

#: Ends an earlier transaction on a host, by host name, session and id; its state, or empty.
Settle = Callable[[str, Session, str], str]


class Recorder:
    """Collects the timeline and passes each event on, one at a time, from any thread."""

    def __init__(self, listen: Listener | None, clock: Callable[[], float] = time.time) -> None:
        self._listen = listen
        self._clock = clock
        self._lock = threading.Lock()
        self.events: list[Event] = []

    def __call__(
        self, phase: Any, status: Any, host: str = "", message: str = "", **detail: Any
    ) -> None:
        with self._lock:
            event = Event(self._clock(), phase, status, host, message, detail)
            # Progress is for the eyes; the timeline keeps what a person reads afterwards.
            if status != "progress":
                self.events.append(event)
            if self._listen is not None:
                self._listen(event)


@dataclass(frozen=True)
class Migration:
    """One migration of the transaction. ``down`` takes back what an earlier transaction did."""

    task: str
    kind: Literal["reversible", "expand_only", "irreversible"]
    host: str
    direction: Literal["up", "down"] = "up"

    @property
    def no_return(self) -> bool:
        """Whether there is no way back once it has begun."""
        return self.kind == "irreversible" and self.direction == "up"


@dataclass
class Context:
    """What every step of one transaction shares; nothing in it changes while hosts are at work.

    But for the epoch, which a takeover raises, and what only the batches before can have shown.
    """

    plan: Plan
    transaction: str
    epoch: int
    owner: str
    sources: dict[str, Source]
    record: Recorder
    connect: Connect
    stop: threading.Event
    settle: Settle
    work: Work
    world: World
    version: str
    drift: str | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    fix: bool = False
    rollback: bool = False
    #: Set once the hosts that take part are known: where what runs only once runs.
    migrations: tuple[Migration, ...] = ()
    once: Mapping[str, str] = field(default_factory=dict)
    #: The migration without return that has begun on a host of an earlier batch.
    crossed: str = ""
    #: Takes a snapshot of what is live, where the plan asks for one.
    keeper: Keeper | None = None
    #: The snapshot that is deployed, where it is no release.
    restoring: Restoring | None = None
    #: What was found that concerns no single host.
    findings: list[Finding] = field(default_factory=list)

    @property
    def saves_handmade(self) -> bool:
        """Whether a person said to go on over what was made by hand: it is kept then."""
        return self.drift == "save" or not {"drift", "structure"}.isdisjoint(self.overrides)


@dataclass
class Member:
    """One host of the transaction."""

    name: str
    host: Host
    components: dict[str, Component]
    connecting: Future[DeployguardError | None] | None = None
    session: Session | None = None
    state: str = "untouched"
    begun: bool = False
    touched: bool = False
    failure: HostFailure | None = None
    looked: dict[str, Any] = field(default_factory=dict)
    sites: dict[str, Site] = field(default_factory=dict)
    #: What this host gets, where that is not what all of them get.
    sources: dict[str, Source] = field(default_factory=dict)
    #: Passwords are in them.
    checks: list[CheckData] = field(default_factory=list, repr=False)
    procedure: list[Operation] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    #: Whether what a restore destroys was collected already.
    collected: bool = False
    check_results: dict[str, Any] = field(default_factory=dict)
    restored: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    forensics: str | None = None

    def source(self, context: Context, component: str) -> Source:
        """Where a component's new tree comes from on this host."""
        return self.sources.get(component) or context.sources[component]

    @property
    def order(self) -> list[str]:
        """Names of the components here, dependencies first."""
        return list(self.components)

    def wire(self) -> Session:
        """The open session. Raises :class:`HostFailure` when there is none."""
        if self.session is None:
            raise HostFailure(self.name, "there is no connection")
        return self.session

    def call(self, verb: str, args: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        """One request; the state it leaves the host in is remembered."""
        faults.reach(f"before {verb} {self.name}")
        try:
            result = self.wire().call(verb, args, **options)
        except ActionFailed as error:
            if error.kind == "stale_epoch":
                self.state = "taken_over"
            raise
        faults.reach(f"after {verb} {self.name}")
        if isinstance(result.get("state"), str):
            self.state = result["state"]
        return result

    def outcome(self) -> HostOutcome:
        """How this host stands now."""
        versions = {
            name: live_version(looked["live"])
            for name, looked in self.looked.get("components", {}).items()
        }
        committed = self.state == "committed"
        held = self.restored.get("held") or {}
        new = committed or (self.state == "held" and held.get("live") == "new")
        untouched = self.state in ("untouched", "aborted", "unreachable")
        return HostOutcome(
            host=self.name,
            state=self.state,
            verified=committed or untouched or bool(self.restored.get("verified")),
            healthy=committed or untouched or bool(self.restored.get("healthy")),
            versions_before=versions,
            versions_after={
                name: (self.new_version(name) if new else version)
                for name, version in versions.items()
            },
            error=self.failure.reason if self.failure is not None else "",
            seconds={name: round(value, 3) for name, value in self.seconds.items()},
            forensics=self.forensics,
            sick=self._sick() if self.state == "restored" else (),
        )

    def _sick(self) -> tuple[str, ...]:
        """Ids of the checks that were not healthy before the deploy, and are not after its end."""
        before, after = (
            {check["id"] for check in (seen or {}).get("checks", []) if check["state"] != "healthy"}
            for seen in (self.looked.get("baseline"), self.restored.get("health"))
        )
        return tuple(sorted(before & after))

    def said(self, error: DeployguardError) -> str:
        """What went wrong, without this host's name in front: it is shown beside it already."""
        return error.message.removeprefix(f"{self.name}: ")

    def new_version(self, component: str) -> str | None:
        """The version the transaction brings to a component."""
        version = self.looked.get("new_versions", {}).get(component)
        return str(version) if version is not None else None


def live_version(live: Mapping[str, Any]) -> str | None:
    """The version of what is live; ``None`` where nothing is.

    A tree that deployguard did not deploy is "adopted", as it is on record once it is replaced.
    """
    version: str | None = live.get("version")
    return "adopted" if version is None and live.get("state") == "foreign" else version
