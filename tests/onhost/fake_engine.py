"""A container engine for tests: it keeps its containers in a list and does what it is told."""

from __future__ import annotations

import json
from typing import Any, Sequence

from deployguard.onhost.system import Completed
from tests.onhost.fake_system import FakeSystem


def container(service: str, state: str = "running", **more: Any) -> dict[str, Any]:
    """What `inspect` says of a container; ``health``, ``policy``, … as the tests need them."""
    number = more.get("number", 1)
    name = f"shop_{service}_{number}"
    labels = {
        "com.docker.compose.project": "shop",
        "com.docker.compose.service": service,
        "com.docker.compose.container-number": str(number),
        "com.docker.compose.oneoff": str(more.get("oneoff", False)),
    }
    found: dict[str, Any] = {
        "Id": more.get("id", f"id-{service}-{number}"),
        "Name": f"/{name}",
        "Created": more.get("created", "2026-01-01T00:00:00Z"),
        "Image": more.get("image", f"sha256:{service}1"),
        "RestartCount": more.get("restarts", 0),
        "State": {
            "Status": state,
            "ExitCode": more.get("exit_code", 0),
            "StartedAt": more.get("started", "2026-01-01T00:00:01Z"),
        },
        "Config": {"Image": more.get("ref", f"{service}:latest"), "Labels": labels},
    }
    if "health" in more:
        log = [{"Output": more.get("said", "")}]
        found["State"]["Health"] = {"Status": more["health"], "Log": log}
        found["Config"]["Healthcheck"] = {"Test": more.get("test", ["CMD-SHELL", "true"])}
    return found


class FakeEngine(FakeSystem):
    """docker, as far as it is asked here. ``told`` has every command that changes something."""

    def __init__(self, *containers: dict[str, Any]) -> None:
        super().__init__()
        self.containers = list(containers)
        self.images: dict[str, str] = {}
        self.networks: list[str] = []
        self.told: list[list[str]] = []
        self.down = 0
        self.stubborn: set[str] = set()

    def run(self, argv: Sequence[str], **_: Any) -> Completed:
        """Answer one command."""
        words = list(argv[1:])
        if self.down > 0:
            self.down -= 1
            message = b"Cannot connect to the Docker daemon. Is the docker daemon running?"
            return Completed(tuple(argv), 1, b"", message, False, 0.0)
        status, text = self._answer(words)
        return Completed(tuple(argv), status, text.encode(), b"", False, 0.0)

    def _answer(self, words: list[str]) -> tuple[int, str]:
        if words[0] == "ps":
            return 0, "\n".join(one["Id"] for one in self.containers)
        if words[0] == "inspect":
            return 0, json.dumps([one for one in self.containers if one["Id"] in words])
        if words[0] == "images":
            return 0, "\n".join(f"{name} {image}" for name, image in self.images.items())
        if words[:2] == ["image", "inspect"]:
            return 1, ""
        if words[:2] == ["network", "ls"]:
            return 0, "\n".join(self.networks)
        self.told.append(words)
        return self._change(words)

    def _change(self, words: list[str]) -> tuple[int, str]:
        chosen = [one for one in self.containers if one["Id"] in words]
        if words[0] in ("start", "stop", "kill"):
            state = "running" if words[0] == "start" else "exited"
            for one in chosen:
                if words[0] == "stop" and one["Id"] in self.stubborn:
                    continue
                one["State"]["Status"] = state
        elif words[0] == "rm":
            self.containers = [one for one in self.containers if one not in chosen]
        elif words[0] == "tag":
            self.images[words[2] if ":" in words[2] else f"{words[2]}:latest"] = words[1]
        elif words[:2] == ["network", "rm"]:
            self.networks.remove(words[2])
        return 0, ""
