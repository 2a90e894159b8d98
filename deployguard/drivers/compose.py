"""A compose stack: ``docker compose``, ``docker-compose`` or ``podman-compose``.

What a deploy of a stack can change is more than its tree: which images the names in the compose
file lead to, which containers there are, and with which command line and environment they were
made. All of it is observed, and a restore starts the very images that ran: names are led back to
them, and nothing is built or pulled.

The tool makes the containers and does not start them; its own ``up`` would hold a service back for
ever while another that it needs calls itself unhealthy, though that one may have done so for years.
A new stack is started as its file demands (:mod:`deployguard.onhost.compose.up`). Of an old one
those that ran are started, in order of dependency, each after those before it are as well as they
were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deployguard.drivers.base import Action, Observation, Operation, Site, Steps, operation, run
from deployguard.onhost.compose import stack as compose
from deployguard.plan.model import Component, ComposeService, ManagedFile
from deployguard.plan.stack import project_of

#: How long the services of one level, once healthy, are waited for before the next level starts.
PATIENCE = 60.0

_Call = dict[str, Any]


class ComposeDriver:
    """See the module."""

    name = "compose"

    def observe(self, component: Component, site: Site) -> list[dict[str, Any]]:
        call = _call(component, site, _live(component))
        # What must be the same again after a restore.
        same = ["images", "config"]
        # What is kept comes into the new tree with the swap: it cannot be tried before.
        whole = component.layout == "releases" or not component.keep
        return [{"field": "stack", "kind": "compose", "same": same, "whole": whole, **call}]

    def files(self, component: Component) -> dict[str, ManagedFile]:
        return {}

    def steps(self, name: str, component: Component, site: Site, observed: Observation) -> Steps:
        stack = _Stack(name, component, site, observed.get("stack", {}))
        # What is kept comes into the new tree with the swap, and may be needed to read the file.
        early = component.layout == "releases" or not (component.keep and site.exists)
        making = [stack.make(site.tree if early else _live(component))]
        return Steps(
            prepare=[*stack.hold(), *(making if early else [])],
            stop=stack.stop(),
            refresh_after=[] if early else making,
            start=[stack.start()],
        )

    def process_probe(self, component: Component, site: Site) -> dict[str, Any]:
        service = _service(component)
        return {
            "driver": "compose",
            "tool": service.tool,
            "project": _project(component),
            "env": dict(service.env),
            "record": _record(component, site),
            "one_shot": list(service.one_shot),
        }

    def running(self, observed: Observation) -> bool:
        services = observed.get("stack", {}).get("services", {})
        return any(service["running"] for service in services.values())

    def titles(self, component: Component) -> list[str]:
        return [f"compose project {_project(component)}"]


class _Stack:
    """The operations for one stack, from what was observed of it."""

    def __init__(
        self, name: str, component: Component, site: Site, observed: Mapping[str, Any]
    ) -> None:
        self._name = name
        self._service = _service(component)
        self._new = _call(component, site, _live(component))
        self._seen = observed
        #: How what runs was started.
        self._old: _Call = observed.get("started", self._new)
        self._old_tool: list[str] = list(observed.get("tool", ["docker", "compose"]))
        self._new_tool: list[str] = list(observed.get("next", {}).get("tool", self._old_tool))
        self._engine = str(observed.get("engine", "docker"))
        self._services: Mapping[str, Mapping[str, int]] = observed.get("services", {})
        self._levels: list[list[str]] = observed.get("levels", [])

    def hold(self) -> list[Operation]:
        """The images that run get one more name, or somebody's ``image prune`` takes them."""
        images = self._seen.get("images", {})
        if not images:
            return []
        do = [self._containers("hold", self._old, images=images)]
        return [operation(self._name, "hold", "hold the images that run", do, [self._retag()])]

    def make(self, directory: str) -> Operation:
        """Have the tool read the new file, and make the images, in ``directory``."""
        call = {**self._new, "directory": directory}
        # podman-compose before 1.0.4 has no such command.
        do = [] if self._podman else [self._run(call, ["config", "-q"])]
        if self._service.pull:
            do.append(self._run(call, ["pull"]))
        if self._service.build:
            do.append(self._run(call, ["build"]))
        title = f"read the compose file and make the images of {self._new['project']}"
        return operation(self._name, "images", title, do, [self._retag()])

    def stop(self) -> list[Operation]:
        """Stop the old stack, whether it runs or will by itself; bring back what there was."""
        if not self._services:
            return []
        stop = self._containers("stop", self._old, levels=self._levels, **self._ends())
        title = f"stop {self._old['project']}"
        return [operation(self._name, "stop", title, [stop], list(self._bring_back()))]

    def start(self) -> Operation:
        """Start the new stack; its undo leaves nothing of it that the old one did not have."""
        new, old = self._new, self._old
        same = new["project"] == old["project"]
        do: list[Action] = []
        if self._podman:
            # It does not see that an image, or the file, is another one now.
            do.append(self._containers("drop", new, ids=[], timeout=self._service.timeout))
        timeout = self._service.timeout
        version = self._seen.get("next", self._seen).get("version", "")
        by_level = self._podman or _is_1(version)
        up = {"started": new, "tool": self._new_tool, "by_level": by_level, "timeout": timeout}
        do.append(self._containers("up", new, **up))
        undo = [
            self._containers(
                "clear",
                new,
                keep=sorted(self._services) if same else [],
                networks=self._seen.get("networks", []) if same else [],
                levels=self._levels,
                **self._ends(),
            ),
            self._containers("record", new, data=self._seen.get("recorded")),
        ]
        step = operation(self._name, "start", f"start {new['project']}", do, undo)
        forget = self._containers(
            "forget", old, services=sorted(self._services), timeout=self._service.timeout
        )
        # A boot in the middle of the deploy may start it before we do. Before the trees are swapped
        # it would be the old stack that the undo stops.
        swapped = f"{self._name}:tree"
        return {**step, "undo_always": swapped, "settle": [forget] if same else []}

    def _bring_back(self) -> Iterator[Action]:
        """The containers there were, of the images they had; then those run that ran."""
        if self._podman:
            ids = self._seen.get("ids", [])
            yield self._containers("drop", self._old, ids=ids, timeout=self._service.timeout)
        refs, images = self._seen.get("refs", {}), self._seen.get("images", {})
        for group in self._groups(refs, images):
            tags = {refs[service]: images[service] for service in group if service in refs}
            yield self._containers("retag", self._old, tags=tags)
            counts = [(name, self._services[name]["containers"]) for name in group]
            scale = [f"--scale={name}={count}" for name, count in counts if count != 1]
            words = ["up", "--no-start", "--no-build", *self._never_pull(), *scale]
            yield self._run(self._old, [*words, "--no-deps", *group])
        yield self._retag()
        tended = [] if self._by_level else self._seen.get("tended", [])
        yield self._containers(
            "start",
            self._old,
            **({"tended": tended, "started": self._old, "tool": self._old_tool} if tended else {}),
            levels=self._levels,
            running={name: one["running"] for name, one in self._services.items()},
            healthy=sorted(name for name, one in self._services.items() if one["healthy"]),
            patience=min(PATIENCE, self._service.timeout),
            timeout=self._service.timeout,
        )

    def _groups(self, refs: Mapping[str, str], images: Mapping[str, str]) -> Iterator[list[str]]:
        """Services that can be created by one command.

        docker-compose 1 asks for the health of what a service needs even where nothing is to be
        started, so it gets one level at a time. And two services may run two images of one name.
        """
        known = [[name for name in level if name in self._services] for level in self._levels]
        listed = {name for level in known for name in level}
        known.append(sorted(set(self._services) - listed))
        waves = known if self._by_level else [[name for level in known for name in level]]
        for wave in waves:
            left = wave
            while left:
                leads: dict[str, str] = {}
                group = []
                for name in left:
                    image = images.get(name, "")
                    if leads.setdefault(refs.get(name, name), image) == image:
                        group.append(name)
                yield group
                left = [name for name in left if name not in group]

    @property
    def _podman(self) -> bool:
        return self._engine == "podman"

    @property
    def _by_level(self) -> bool:
        """Of the tool that brings the old stack back."""
        return self._podman or _is_1(self._seen.get("version", ""))

    def _never_pull(self) -> list[str]:
        return [] if self._by_level else ["--pull=never"]

    def _retag(self) -> Action:
        return self._containers("retag", self._old, tags=self._seen.get("tags", {}))

    def _ends(self) -> dict[str, Any]:
        grace = self._service.stop_timeout
        rounded = None if grace is None else max(round(grace), 1)
        return {"grace": rounded, "timeout": self._service.timeout}

    def _containers(self, verb: str, call: _Call, **more: Any) -> Action:
        names = ("project", "env", "record")
        return {
            "act": "containers",
            "verb": verb,
            "engine": self._engine,
            **{name: call[name] for name in names},
            **more,
        }

    def _run(self, call: _Call, words: Sequence[str]) -> Action:
        tool = self._old_tool if call is self._old else self._new_tool
        argv = [*compose.command(call, tool), *words]
        return run(argv, cwd=call["directory"], env=call["env"], timeout=self._service.timeout)


def _call(component: Component, site: Site, directory: str) -> _Call:
    """How the tool is asked for it; :mod:`deployguard.onhost.compose.stack` has the words."""
    service = _service(component)
    return {
        "tool": service.tool,
        "project": _project(component),
        "directory": directory,
        "files": list(service.file),
        "env_file": service.env_file,
        "profiles": list(service.profiles),
        "env": dict(service.env),
        "record": _record(component, site),
    }


def _project(component: Component) -> str:
    return project_of(component, _service(component))


def _is_1(version: str) -> bool:
    """docker-compose 1 asks for the state of what a service needs when it only makes containers."""
    return str(version).startswith("1.")


def _record(component: Component, site: Site) -> str:
    return f"{site.service_stem(component.path)}.stack"


def _live(component: Component) -> str:
    return f"{component.path}/current" if component.layout == "releases" else component.path


def _service(component: Component) -> ComposeService:
    assert component.service is not None and component.service.compose is not None
    return component.service.compose
