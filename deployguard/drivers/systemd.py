"""systemd units, of the system manager or a user's.

The unit file and its drop-ins may belong to the component; they are swapped like any managed file,
with a ``daemon-reload`` on either side. A unit that crash-looped has used up its start limit, so
every start, the old version's included, is preceded by ``reset-failed``; without it systemd refuses
to start a perfectly good old version ("start request repeated too quickly").

With ``action: reload`` a unit that is active is not stopped. It is reloaded when the files are
swapped, and once more when they are swapped back. What ``test`` says no to is never loaded.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from deployguard.drivers.base import Action, Observation, Operation, Site, Steps, operation, run
from deployguard.plan.model import Component, ManagedFile, SystemdService

PROPERTIES = "LoadState,ActiveState,SubState,UnitFileState,NRestarts,MainPID,FragmentPath,CanReload"
_RUNNING = ("active", "activating", "reloading")


class SystemdDriver:
    """See the module."""

    name = "systemd"

    def observe(self, component: Component, site: Site) -> list[dict[str, Any]]:
        service = _service(component)
        questions: list[dict[str, Any]] = [
            {
                "field": "unit",
                "kind": "properties",
                "argv": [*_systemctl(service), "show", service.unit, f"--property={PROPERTIES}"],
                "env": _environment(service, site),
                # What must be the same again after a restore.
                "same": ["LoadState", "UnitFileState"],
                "unit": service.unit,
                "scope": service.scope,
                # A file of ours may be the unit, or what a generator makes it of.
                "comes": bool(self.files(component) or component.files),
                "permit": self._permit(service, site),
            }
        ]
        if service.test is not None:
            # What fails before the deploy may fail after its restore.
            questions.append({"field": "test", "kind": "status", "argv": list(service.test)})
        return questions

    def _permit(self, service: SystemdService, site: Site) -> list[str] | None:
        """Asks whether we may stop the unit and stops nothing: systemd looks at who asks, and then
        says that only a start can isolate. Root may, and everybody may in their own manager."""
        if site.uid == 0 or service.scope == "user":
            return None
        words = ["--no-ask-password", "stop", "--job-mode=isolate", service.unit]
        return [*_systemctl(service), *words]

    def files(self, component: Component) -> dict[str, ManagedFile]:
        service = _service(component)
        # The host program knows whose home it is.
        user = service.scope == "user"
        directory = PurePosixPath("~/.config/systemd/user" if user else "/etc/systemd/system")
        files: dict[str, ManagedFile] = {}
        if service.unit_file is not None:
            files[str(directory / service.unit)] = _file(service.unit_file)
        for name, source in service.drop_ins.items():
            files[str(directory / f"{service.unit}.d" / name)] = _file(source)
        return files

    def steps(self, name: str, component: Component, site: Site, observed: Observation) -> Steps:
        service = _service(component)
        unit = observed.get("unit", {})
        was_running = self.running(observed)
        reset = self._run(service, site, "reset-failed", ok=None)
        start = self._run(service, site, "start", timeout=service.start_timeout)
        stop = self._run(
            service,
            site,
            "stop",
            timeout=service.stop_timeout,
            on_timeout=[*_systemctl(service), "kill", "--signal=KILL", service.unit],
        )
        # A unit that was on its way up, or looping, before the deploy need not come up now: it is
        # started all the same, and the checks judge it against the baseline.
        start_old = start if unit.get("ActiveState") == "active" else {**start, "ok": [0, 1]}
        reloads = service.action == "reload" and unit.get("ActiveState") == "active"
        stopping: list[Operation] = []
        if was_running and not reloads:
            stopping.append(
                operation(name, "stop", f"stop {service.unit}", [stop], [reset, start_old])
            )
        reload_ = run(
            [*_systemctl(service), "daemon-reload"], env=_environment(service, site), timeout=60.0
        )
        before: list[Operation] = []
        after: list[Operation] = []
        if reloads:
            before.append(self._reload_old(name, service, site, observed))
        if self.files(component):
            title = "reload systemd"
            before.append(operation(name, "reload-undo", title, [], [reload_]))
            after.append(operation(name, "reload", title, [reload_], []))
        after.extend(self._enablement(name, service, site, str(unit.get("UnitFileState", ""))))
        test = [] if service.test is None else [run(service.test, timeout=service.start_timeout)]
        if reloads:
            # It may have ended since it was looked at: then it starts. Of a unit that cannot be
            # reloaded that would make a restart, which nobody has asked for.
            verb = "reload" if unit.get("CanReload") == "no" else "reload-or-restart"
            again = self._run(service, site, verb, timeout=service.start_timeout)
            title = f"reload {service.unit}"
            return Steps(
                (), before, after, [operation(name, "start", title, [*test, reset, again], [])]
            )
        # A unit that came with the deploy is gone after the restore: stop may find it not loaded.
        starting = operation(
            name,
            "start",
            f"start {service.unit}",
            [*test, reset, start],
            [{**stop, "ok": [0, 5]}, reset],
        )
        # A boot in the middle of the deploy may start it before we do.
        return Steps(stopping, before, after, [{**starting, "undo_always": True}])

    def _reload_old(
        self, name: str, service: SystemdService, site: Site, observed: Observation
    ) -> Operation:
        """Undone when the files are swapped back. The trial may have ended it: then it starts."""
        tested = observed.get("test", {}).get("status", 0)
        again = self._run(
            service,
            site,
            "reload-or-restart",
            timeout=service.start_timeout,
            ok=(0,) if tested == 0 else None,
        )
        reset = self._run(service, site, "reset-failed", ok=None)
        return operation(name, "start-undo", f"reload {service.unit}", [], [reset, again])

    def _enablement(
        self, name: str, service: SystemdService, site: Site, state: str
    ) -> list[Operation]:
        if service.enable is None or (state == "enabled") == service.enable:
            return []
        words = ("enable", "disable") if service.enable else ("disable", "enable")
        undo_ok = None if state in ("", "not-found") else (0,)
        return [
            operation(
                name,
                words[0],
                f"{words[0]} {service.unit}",
                [self._run(service, site, words[0])],
                [{**self._run(service, site, words[1], ok=undo_ok)}],
            )
        ]

    def _run(
        self,
        service: SystemdService,
        site: Site,
        verb: str,
        *,
        timeout: float = 60.0,
        ok: tuple[int, ...] | None = (0,),
        on_timeout: list[str] | None = None,
    ) -> Action:
        return run(
            [*_systemctl(service), verb, service.unit],
            env=_environment(service, site),
            timeout=timeout,
            ok=ok,
            on_timeout=on_timeout,
        )

    def process_probe(self, component: Component, site: Site) -> dict[str, Any]:
        service = _service(component)
        return {
            "driver": "systemd",
            "unit": service.unit,
            "scope": service.scope,
            "argv_prefix": _systemctl(service),
            "env": _environment(service, site),
        }

    def running(self, observed: Observation) -> bool:
        return observed.get("unit", {}).get("ActiveState") in _RUNNING

    def titles(self, component: Component) -> list[str]:
        return [_service(component).unit]


def _service(component: Component) -> SystemdService:
    assert component.service is not None and component.service.systemd is not None
    return component.service.systemd


def _systemctl(service: SystemdService) -> list[str]:
    return ["systemctl", "--user"] if service.scope == "user" else ["systemctl"]


def _environment(service: SystemdService, site: Site) -> dict[str, str]:
    # A connection without a login session does not know where the user manager listens.
    if service.scope == "user":
        return {"XDG_RUNTIME_DIR": f"/run/user/{site.uid}"}
    return {}


def _file(source: str) -> ManagedFile:
    return ManagedFile.model_validate({"source": source, "mode": "0644"})
