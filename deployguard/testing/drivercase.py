"""A driver with something real to run, and one transaction after the other that deploys it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from deployguard.artifact.base import Limits, Release
from deployguard.artifact.directory import DirectoryRelease
from deployguard.drivers import procedure
from deployguard.drivers.base import Driver, Operation, Site
from deployguard.errors import HostFailure
from deployguard.plan.model import Component
from deployguard.rollout.targets import site_of
from deployguard.transport.session import Session

__all__ = ["CRASH", "STUBBORN", "DriverCase", "Trial", "early_site"]

#: A version whose program ends with an error as soon as it is started.
CRASH = "crash"
#: A version whose program runs, and pays no attention to SIGTERM.
STUBBORN = "stubborn"


@dataclass(frozen=True)
class DriverCase:
    """What the conformance suite has to know.

    ``component`` gives the component as a plan for a version would have it, and ``release`` a
    directory with that version's tree; versions are ``v1``, ``v2``, :data:`CRASH` and
    :data:`STUBBORN`. ``connect`` opens a session with the host program on the machine in question.
    ``served`` asks the real service which version answers, and gives ``None`` when none does;
    ``stop`` stops it by hand, behind deployguard's back. Each test wants a case of its own, with a
    path, a port and a unit that nothing else uses.
    """

    driver: Driver
    component: Callable[[str], Component]
    release: Callable[[str], Path]
    connect: Callable[[], Session]
    served: Callable[[], str | None]
    stop: Callable[[], None]
    #: What the ``source`` of managed files is relative to.
    directory: Path = field(default_factory=Path)
    #: The component's name in the plan.
    name: str = "app"
    #: Whether the old version serves on until the new one can.
    overlaps: bool = False
    #: How long a service may take to answer, or to be gone; for slow machines.
    patience: float = 30.0

    def await_served(self, version: str | None) -> None:
        """Return when the service serves ``version``; fails with what it serves instead."""
        deadline = time.monotonic() + self.patience
        while (found := self.served()) != version:
            assert time.monotonic() < deadline, f"{found} is served, and not {version}"
            time.sleep(0.05)

    def deploy(self, version: str) -> None:
        """A whole good deploy."""
        with Trial(self, version) as trial:
            trial.switch()
            self.await_served(version)
            trial.session.call("prepare")
            trial.session.call("commit")

    def probe(self, soak: float = 0.0) -> dict[str, Any]:
        """One process check, made as the plan's checks are; with a soak it is watched so long."""
        with self.connect() as session:
            site = early_site(self, session.hello)
            manager = self.driver.process_probe(self.component("v1"), site)
            check = _process_check(self.name, manager, soak)
            # A look is no transaction, and leaves nothing behind.
            looked = session.call(
                "look", {"transaction": _identifier(), "components": [], "checks": [check]}
            )
        found: dict[str, Any] = looked["baseline"]["checks"][0]
        return found


class Trial:
    """One transaction, from a session of its own. Leaving it without an end aborts or restores."""

    def __init__(self, case: DriverCase, version: str) -> None:
        self.case = case
        self.component = case.component(version)
        self.version = version
        self.identifier = _identifier()
        self.session = case.connect()
        self._begin()
        try:
            self.looked = self._look()
        except BaseException:
            # A refusal is an answer that a test may want; it must not leave the lock behind.
            self._withdraw()
            raise
        self.site = site_of(case.name, self.component.layout, self.looked, self.session.hello)
        self.observed: dict[str, Any] = self.looked["observed"]

    def __enter__(self) -> Trial:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.session.closed:
            state = self.session.call("describe")["state"]
            if state not in ("committed", "restored", "aborted", "stuck"):
                self.restore()
            self.session.close()

    def operations(self) -> list[Operation]:
        """The procedure of this deploy, as the product builds it."""
        name = self.case.name
        return procedure.build(
            {name: self.component},
            [name],
            {name: self.site},
            {name: self.observed},
            driver_for=lambda component: self.case.driver,
        )

    def arm(self, operations: list[Operation] | None = None) -> None:
        """Stage the tree and make the undo durable."""
        name = self.case.name
        self.session.call("stage", {"components": [name]})
        self.session.call(
            "arm",
            {
                "procedure": self.operations() if operations is None else operations,
                "checks": [],
                "baseline": None,
                "observe": {name: self._observe()},
                "observed": {name: self.observed},
                "collectors": [],
            },
        )

    def switch(self, operations: list[Operation] | None = None) -> None:
        """Stage, arm and run the procedure."""
        self.arm(operations)
        self.session.call("switch")

    def check(self, soak: float) -> bool:
        """Whether the process is seen running for so many seconds."""
        manager = self.case.driver.process_probe(self.component, self.site)
        check = _process_check(self.case.name, manager, soak)
        return bool(self.session.call("check", {"checks": [check]})["healthy"])

    def restore(self) -> dict[str, Any]:
        """Undo it; the result says whether the proof was found."""
        result = self.session.call("restore")
        if result["state"] == "restored":
            self.session.call("finish")
        return result

    def _begin(self) -> None:
        self.session.call(
            "begin",
            {
                "transaction": self.identifier,
                "epoch": 1,
                "lease": 600.0,
                "owner": "conformance",
                "plan": "conformance",
                "paths": [self.component.path],
            },
        )

    def _withdraw(self) -> None:
        with contextlib.suppress(HostFailure):
            self.session.call("abort")
        self.session.close()

    def _look(self) -> dict[str, Any]:
        release: Release = DirectoryRelease(
            str(self.case.release(self.version)), owner_from_artifact=False, limits=Limits()
        )
        with release:
            manifest = release.manifest
            self.session.call(
                "manifest", {"digest": manifest.digest()}, stream=[manifest.to_bytes()]
            )
            args = {"transaction": self.identifier, "components": [self._target(manifest.digest())]}
            looked = self.session.call("look", args)["components"][self.case.name]
            if looked["missing"]:
                self.session.call(
                    "blobs",
                    {"component": self.case.name},
                    stream=release.blob_stream(looked["missing"]),
                )
        found: dict[str, Any] = looked
        return found

    def _target(self, digest: str) -> dict[str, Any]:
        component = self.component
        files = {**self.case.driver.files(component), **component.files}
        return {
            "name": self.case.name,
            "layout": component.layout,
            "path": component.path,
            "version": self.version,
            "keep": list(component.keep),
            "shared": list(component.shared),
            "ignore": list(component.ignore),
            "retain": component.retain,
            "owner": component.owner,
            "group": component.group,
            "source": {"kind": "manifest", "digest": digest},
            "files": [self._file(path, file) for path, file in files.items()],
            "observe": self._observe(),
        }

    def _observe(self) -> list[dict[str, Any]]:
        site = early_site(self.case, self.session.hello)
        return self.case.driver.observe(self.component, site)

    def _file(self, path: str, file: Any) -> dict[str, Any]:
        data = (
            (self.case.directory / file.source).read_bytes()
            if file.content is None
            else file.content.encode()
        )
        return {
            "path": path,
            "mode": file.mode,
            "owner": file.owner,
            "group": file.group,
            "digest": hashlib.sha256(data).hexdigest(),
            "content": base64.b64encode(data).decode("ascii"),
        }


def early_site(case: DriverCase, hello: Mapping[str, Any]) -> Site:
    """All that is known of the site before the host has looked: questions must do with it."""
    layout = case.component("v1").layout
    state, uid = str(hello["state"]), int(hello["uid"])
    return Site(case.name, layout, "", "", "", state=state, uid=uid)


def _identifier() -> str:
    return f"conformance-{uuid.uuid4().hex[:12]}"


def _process_check(component: str, manager: dict[str, Any], soak: float) -> dict[str, Any]:
    return {
        "id": f"{component}/process",
        "component": component,
        "kind": "process",
        "name": "process",
        "critical": True,
        "timeout": 10.0,
        "interval": 0.2,
        "deadline": soak or 10.0,
        "min_healthy_time": soak,
        "manager": manager,
    }
