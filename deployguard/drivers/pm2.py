"""Processes of PM2: known to it by name, or started from an ecosystem file of the release.

A process that PM2 knows is stopped and restarted as it is; what it runs came with the tree. One
from an ecosystem file is deleted and started anew, because on a restart PM2 takes no new script,
directory or number of instances from a file. With ``action: reload`` neither is stopped: PM2 starts
the new ones first, as far as they run in cluster mode.

The way back is the same for all of them, and needs neither file nor plan: the host has kept the
processes as PM2 saves them, with their environment, and PM2 resurrects them
(:mod:`deployguard.onhost.pm2.actions`). The files that ``pm2 save`` writes come back byte for byte.
"""

from __future__ import annotations

import posixpath
from typing import Any

from deployguard.drivers.base import Action, Observation, Site, Steps, operation
from deployguard.plan.model import Component, ManagedFile, Pm2Service


class Pm2Driver:
    """See the module."""

    name = "pm2"

    def observe(self, component: Component, site: Site) -> list[dict[str, Any]]:
        service = _service(component)
        return [
            {
                "field": "pm2",
                "kind": "pm2",
                # Without a file that starts them, PM2 has to know them, and to run what is here.
                "service": {
                    **_whose(service),
                    "known": service.ecosystem is None,
                    "path": component.path,
                },
                "same": ["apps", "saved"],
            }
        ]

    def files(self, component: Component) -> dict[str, ManagedFile]:
        return {}

    def steps(self, name: str, component: Component, site: Site, observed: Observation) -> Steps:
        service = _service(component)
        apps = observed.get("pm2", {}).get("apps", {})
        halt = _act(service, "stop" if service.ecosystem is None else "delete")
        back = _act(
            service,
            "restore",
            component=name,
            stopped={app: known["stopped"] for app, known in apps.items()},
        )
        shown = " and ".join(service.names)
        start = self._start(component, service, site)
        if self._save(service, observed):
            start.append(_act(service, "run", argv=["save"]))
        stopping = operation(
            name, "stop", f"stop {shown}", [] if service.action == "reload" else [halt], [back]
        )
        starting = operation(name, "start", f"{service.action} {shown}", start, [halt])
        # A boot in the middle of the deploy may have PM2 start them before we do.
        return Steps(stop=[stopping], start=[{**starting, "undo_always": True}])

    def _start(self, component: Component, service: Pm2Service, site: Site) -> list[Action]:
        reset = _act(service, "reset")
        if service.ecosystem is None:
            if service.action == "reload":
                reloads = [_act(service, "run", argv=["reload", name]) for name in service.names]
                return [reset, *reloads]
            return [reset, _act(service, "run", argv=["restart", *service.names])]
        file = posixpath.join(site.working_directory, service.ecosystem)
        inside = not service.ecosystem.startswith("/")
        directory = site.working_directory if inside else posixpath.dirname(file)
        words = [file, "--only", ",".join(service.names)]
        if component.layout == "releases" and inside:
            # PM2 would follow the link, and keep the directory of this very release.
            words += ["--cwd", directory]
        if service.ecosystem_env is not None:
            words += ["--env", service.ecosystem_env]
        more = {"cwd": directory, "env": dict(service.env)}
        if service.action == "reload":
            return [reset, _act(service, "run", argv=["startOrReload", *words], **more)]
        return [_act(service, "run", argv=["start", *words], **more)]

    def _save(self, service: Pm2Service, observed: Observation) -> bool:
        if service.save is not None:
            return service.save
        saved = observed.get("pm2", {}).get("saved") or [None]
        return service.ecosystem is not None and saved[0] is not None

    def process_probe(self, component: Component, site: Site) -> dict[str, Any]:
        service = _service(component)
        return {"driver": "pm2", **_whose(service), "reloaded": service.action == "reload"}

    def running(self, observed: Observation) -> bool:
        return bool(observed.get("pm2", {}).get("running"))

    def titles(self, component: Component) -> list[str]:
        return list(_service(component).names)


def _service(component: Component) -> Pm2Service:
    assert component.service is not None and component.service.pm2 is not None
    return component.service.pm2


def _whose(service: Pm2Service) -> dict[str, Any]:
    """What the host has to know to find them."""
    return {
        "names": list(service.names),
        "user": service.user,
        "home": service.home,
        "program": service.program,
    }


def _act(service: Pm2Service, verb: str, **more: Any) -> Action:
    whose = _whose(service)
    return {"act": "pm2", "verb": verb, "service": whose, "timeout": service.timeout, **more}
