"""One deployment to a cluster: a plan, releases of manifests, and the command line.

What a test asserts it reads from the cluster and from what the Service answers, never through
deployguard.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import manifests
from tests.cluster.cluster import Cluster, kubectl
from tests.cluster.images import Image
from tests.cluster.kinds import Json
from tests.scenarios.scene import Result

#: A value that no output may show, as it is or in base64.
SECRET = "s3nt1nel-of-the-cluster"


def answering(version: str, *, status: int = 200, fault: str = "", logs: str = "ready") -> Image:
    """A program that says its version, its health, and what its environment holds."""

    def routes(env: Any) -> Any:
        word = "healthy" if status == 200 else "no database"
        return {
            "/": (200, {"version": version, "greeting": env.get("GREETING")}),
            "/health": (status, {"status": word, "version": version}),
        }

    return Image(version, routes, fault, logs)


class Scene:
    """A plan, its releases and the cluster; ``app`` is a Deployment with a Service before it."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster = cluster
        self.directory = directory
        self.port = cluster.ingress("app")
        self.state = directory / "host-state"
        self.path = str(directory / "srv" / "app")
        self.hosts: Json = {"here": {"transport": "local", "state_directory": str(self.state)}}
        self.service: Json = {
            "context": "production",
            "namespace": "chat",
            "kubeconfig": str(cluster.kubeconfig),
            "program": kubectl(),
            "workloads": ["app"],
            "patience": "1s",
        }
        self.checks: list[Json] = [
            {"process": {}},
            {
                "http": {
                    "url": f"http://{cluster.address}:{self.port}/health",
                    "json": {"status": "healthy", "version": "{{ version }}"},
                    "deadline": "2s",
                }
            },
        ]
        self.extra: Json = {}
        self.environment = {
            "DEPLOYGUARD_STATE": str(directory / "state"),
            "HOME": str(directory),
        }

    # -- what is deployed --------------------------------------------------------------------

    def app(self, version: str, **options: Any) -> Json:
        """The Deployment of a version; it reads a ConfigMap and a Secret."""
        env = [
            {
                "name": "GREETING",
                "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "greeting"}},
            },
            {
                "name": "PASSWORD",
                "valueFrom": {"secretKeyRef": {"name": "database", "key": "password"}},
            },
        ]
        image = f"registry.example.com/app:{version}"
        return manifests.deployment("app", image, container={"env": env}, **options)

    def release(self, version: str, *more: Json, greeting: str = "", **options: Any) -> Path:
        """The manifests of a version: Deployment, Service, ConfigMap, Secret, and ``more``."""
        return self.write(
            version,
            self.app(version, **options),
            manifests.service("app"),
            manifests.config_map("settings", greeting=greeting or f"hello from {version}"),
            manifests.secret("database", password=f"{SECRET}-{version}"),
            *more,
        )

    def write(self, version: str, *objects: Json) -> Path:
        """A release with just these objects."""
        tree = self.directory / "releases" / version
        tree.mkdir(parents=True, exist_ok=True)
        (tree / "app.yaml").write_text(manifests.text(*objects))
        return tree

    def image(self, version: str, **options: Any) -> None:
        """Have the registry know an image."""
        self.cluster.images[f"registry.example.com/app:{version}"] = answering(version, **options)

    def plan(self, version: str) -> None:
        """The plan file, as a user would write it."""
        component = {
            "artifact": "releases/{{ version }}",
            "path": self.path,
            "service": {"kubernetes": self.service},
            "checks": self.checks,
        }
        plan = {
            "name": "app",
            "version": version,
            "lease": "5s",
            "hosts": self.hosts,
            "components": {"app": component},
            "rescue": {"evidence": {"directory": "forensics", "critical_seconds": "60s"}},
            **self.extra,
        }
        text = yaml.safe_dump(plan, sort_keys=False)
        (self.directory / "plan.yaml").write_text(text)

    # -- deploying ---------------------------------------------------------------------------

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin a command, and do not wait for it."""
        return subprocess.Popen(
            [sys.executable, "-m", "deployguard", *arguments],
            cwd=self.directory,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def command(self, *arguments: str) -> Result:
        """Run a command to its end."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=300)
        return Result(
            subprocess.CompletedProcess(arguments, process.returncode, out, err),
        )

    def apply(self, version: str, *options: str) -> Result:
        """Deploy a release that was made before."""
        self.plan(version)
        return self.command("apply", "plan.yaml", "--json", *options)

    def live(self, version: str = "v1") -> None:
        """A first version that runs."""
        self.image(version)
        self.release(version, replicas=2)
        result = self.apply(version)
        assert result.code == 0, result

    def served(self, path: str = "/") -> Json | None:
        """What the Service answers; ``None`` where it does not say 200."""
        status, body = self.cluster.ask(self.port, path)
        return body if status == 200 else None

    def uids(self) -> set[str]:
        """Which pods there are."""
        return {pod["metadata"]["uid"] for pod in self.cluster.pods("app")}

    def greetings(self) -> set[str]:
        """What the ready pods were told to say when they were started."""
        environments = self.cluster.controllers.environments
        return {
            environments[pod["metadata"]["uid"]]["GREETING"]
            for pod in self.cluster.pods("app")
            if pod["metadata"]["uid"] in environments
        }

    # -- what is left ------------------------------------------------------------------------

    def leftovers(self) -> list[str]:
        """Locks, and files with kept objects, on the host."""
        locks = [str(path) for path in (self.state / "locks").glob("*.json")]
        return locks + [str(path) for path in self.state.rglob("kept-*")]

    def forensics(self) -> Path:
        """The one folder of evidence."""
        (folder,) = (self.directory / "forensics").iterdir()
        return folder
