"""The containers of a compose project, as the engine (docker or podman) sees them.

Compose tools differ in what they can say and in how truly they say it; the engine's own list of
what carries the project's label does not. So it is the engine that is asked for states, and told to
stop and start what is there.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from deployguard.onhost.system import Completed, System

PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
#: What `compose run` leaves behind is no part of the stack.
ONE_OFF = "com.docker.compose.oneoff"
_NUMBER = "com.docker.compose.container-number"

#: Longer answers of `inspect` would be cut in the middle, and be no JSON any more.
_MAX_ANSWER = 64 * 1024 * 1024
_ASK_SECONDS = 30.0

#: How long an engine that does not answer is waited for.
PATIENCE = 60.0
_AGAIN = 0.5

NEVER_STARTED = ("created", "configured", "initialized")
_AWAKE = ("running", "restarting", "paused", "stopping")

TOOLS = ("docker compose", "docker-compose", "podman-compose")
_PLUGIN_FOLDERS = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)


class EngineFailed(Exception):
    """The engine, or the tool, does not do what it is asked. ``hint`` is the mend."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Container(NamedTuple):
    """One container. ``image`` is an id, ``ref`` the name it was made from.

    ``health`` is the word of its own health check, empty without one; ``test`` is that check's
    command and ``said`` the last thing it printed.
    """

    id: str
    name: str
    service: str
    number: int
    image: str
    ref: str
    state: str
    exit_code: int
    health: str
    test: str
    said: str
    restarts: int
    started: str
    created: str

    @property
    def awake(self) -> bool:
        """It runs, or will without being told to."""
        return self.state in _AWAKE


class Tool(NamedTuple):
    """A compose tool and the engine that it drives."""

    argv: List[str]
    engine: str


def find_tool(wanted: str, env: Optional[Dict[str, str]] = None) -> Tool:
    """The tool of that name, or with ``auto`` the first there is.

    Nothing is run for it. Raises :class:`EngineFailed`.
    """
    path = (env or {}).get("PATH") or os.environ.get("PATH")
    names = TOOLS if wanted == "auto" else (wanted,)
    for name in names:
        engine = "podman" if name == "podman-compose" else "docker"
        program = "docker" if name == "docker compose" else name
        if shutil.which(program, path=path) is None:
            continue
        if name == "docker compose" and not _has_plugin(env or {}):
            continue
        if shutil.which(engine, path=path) is None:
            raise EngineFailed(
                "%s is there and %s is not" % (program, engine),
                "install the %s command on the host, or name another `tool`" % engine,
            )
        return Tool(name.split(), engine)
    missing = wanted if wanted != "auto" else "docker compose, docker-compose or podman-compose"
    raise EngineFailed(
        "there is no %s on the host" % missing,
        "install it there, or name the `tool` that is; PATH is %s" % path,
    )


def _has_plugin(env: Dict[str, str]) -> bool:
    home = env.get("HOME") or os.path.expanduser("~")
    config = env.get("DOCKER_CONFIG") or os.environ.get("DOCKER_CONFIG")
    own = os.path.join(config or os.path.join(home, ".docker"), "cli-plugins")
    return any(
        os.access(os.path.join(folder, "docker-compose"), os.X_OK)
        for folder in (own, *_PLUGIN_FOLDERS)
    )


class Engine:
    """docker or podman, on one host, for one project."""

    def __init__(
        self, program: str, project: str, env: Optional[Dict[str, str]], system: System
    ) -> None:
        self.program = program
        self.project = project
        self._env = env
        self._system = system

    def run(self, *words: str, timeout: float = _ASK_SECONDS) -> Completed:
        """One command of the engine, whatever comes of it."""
        return self._system.run(
            [self.program, *words],
            env=self._env,
            timeout=timeout,
            max_output=_MAX_ANSWER,
            grace=0.5,
        )

    def call(self, *words: str, timeout: float = _ASK_SECONDS) -> str:
        """What a command printed. Raises :class:`EngineFailed` where it failed."""
        done = self.run(*words, timeout=timeout)
        if not done.ok:
            raise EngineFailed(*reason(done))
        return done.text

    def awaited(self, seconds: float = PATIENCE) -> List[Container]:
        """The containers, once the engine answers: after a boot it may come up after us."""
        deadline = self._system.monotonic() + seconds
        while True:
            try:
                return self.containers()
            except EngineFailed:
                if self._system.monotonic() >= deadline:
                    raise
            self._system.sleep(_AGAIN)

    def containers(self, timeout: float = _ASK_SECONDS) -> List[Container]:
        """All containers of the project, in the order they were made."""
        for _ in range(3):
            identifiers = self._identifiers(timeout)
            if not identifiers:
                return []
            done = self.run("inspect", "--type", "container", *identifiers, timeout=timeout)
            if done.ok:
                found = [_container(entry) for entry in _entries(done)]
                return sorted(
                    (one for one in found if one is not None), key=lambda one: one.created
                )
            # One of them may have gone meanwhile.
        raise EngineFailed(*reason(done))

    def _identifiers(self, timeout: float = _ASK_SECONDS) -> List[str]:
        label = "label=%s=%s" % (PROJECT, self.project)
        return self.call("ps", "-a", "-q", "--no-trunc", "--filter", label, timeout=timeout).split()

    def images(self, refs: Sequence[str]) -> Dict[str, str]:
        """The ids of the images with these names; a name that leads nowhere is left out."""
        text = self.call("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}")
        listed = dict(line.rsplit(" ", 1) for line in text.splitlines() if " " in line)
        found = {}
        for ref in refs:
            full = ref if ":" in ref.rpartition("/")[2] else ref + ":latest"
            identifier = listed.get(full)
            if identifier is None:
                # Engines complete names in ways of their own.
                done = self.run("image", "inspect", "--format", "{{.Id}}", ref)
                identifier = done.text.strip() if done.ok else None
            if identifier:
                found[ref] = plain_id(identifier)
        return found

    def networks(self) -> List[str]:
        """The names of the project's networks."""
        label = "label=%s=%s" % (PROJECT, self.project)
        text = self.call("network", "ls", "--filter", label, "--format", "{{.Name}}")
        return sorted(text.split())


def reason(done: Completed) -> Tuple[str, str]:
    """Why a command of the engine failed, and the mend."""
    said = (done.stderr + done.stdout).decode("utf-8", "replace").lower()
    hint = ""
    if "permission denied" in said:
        hint = "use `become: true`, or put the user into the group of the daemon's socket"
    elif "cannot connect" in said or "connection refused" in said or "daemon running" in said:
        hint = "start the daemon (systemctl start docker), or set DOCKER_HOST in the service's env"
    return done.describe(), hint


def plain_id(identifier: str) -> str:
    """Docker writes ``sha256:`` in front of an image's id, and podman does not."""
    return identifier.rpartition(":")[2]


def _entries(done: Completed) -> List[Dict[str, Any]]:
    try:
        entries = json.loads(done.stdout)
    except ValueError:
        raise EngineFailed("%s printed no JSON" % " ".join(done.argv[:2])) from None
    return [entry for entry in entries if isinstance(entry, dict)]


def _container(entry: Dict[str, Any]) -> Optional[Container]:
    config = entry.get("Config") or {}
    labels = config.get("Labels") or {}
    if str(labels.get(ONE_OFF, "")).lower() == "true" or SERVICE not in labels:
        return None
    state = entry.get("State") or {}
    health = state.get("Health") or state.get("Healthcheck") or {}
    log = health.get("Log") or []
    test = (config.get("Healthcheck") or {}).get("Test") or []
    number = str(labels.get(_NUMBER, "1"))
    return Container(
        id=str(entry.get("Id", "")),
        name=str(entry.get("Name", "")).lstrip("/"),
        service=str(labels[SERVICE]),
        number=int(number) if number.isdigit() else 1,
        image=plain_id(str(entry.get("Image", ""))),
        ref=str(config.get("Image") or entry.get("ImageName") or ""),
        state=str(state.get("Status", "unknown")),
        exit_code=int(state.get("ExitCode") or 0),
        health=str(health.get("Status") or "") if test else "",
        test=_test_words(test),
        said=str(log[-1].get("Output", "")).strip() if log else "",
        restarts=int(entry.get("RestartCount") or 0),
        started=str(state.get("StartedAt", "")),
        created=str(entry.get("Created", "")),
    )


def _test_words(test: Sequence[str]) -> str:
    words = [str(word) for word in test]
    if words[:1] == ["NONE"]:
        return ""
    return " ".join(words[1:] if words[:1] in (["CMD"], ["CMD-SHELL"]) else words)
