"""What stands before the Services: HTTP that a ready pod of the Service answers."""

from __future__ import annotations

import itertools
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from tests.cluster.controllers import Controllers, _is_ready
from tests.cluster.kinds import Json
from tests.cluster.store import Store


class Ingress:
    """One port for one Service."""

    def __init__(
        self, store: Store, controllers: Controllers, service: tuple[str, str], address: str
    ) -> None:
        self._store = store
        self._controllers = controllers
        self._namespace, self._service = service
        self._turns = itertools.count()
        handler = type("Handler", (_Handler,), {"ingress": self})
        self._server = ThreadingHTTPServer((address, 0), handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> tuple[int, dict[str, Any]]:
        """What the Service answers: of its ready pods the next one, else 503."""
        with self._store.changed:
            pods = self._pods()
            if not pods:
                return 503, {"error": "no ready pod"}
            pod = pods[next(self._turns) % len(pods)]
            image = self._controllers.image_of(pod)
            assert image is not None
            env = self._controllers.environments[pod["metadata"]["uid"]]
            return image.routes(env).get(path, (404, {"error": "not found"}))

    def _pods(self) -> list[Json]:
        service = self._store.find("Service", self._namespace, self._service)
        if service is None:
            return []
        wanted = service["spec"].get("selector", {}).items()
        return [
            pod
            for pod in self._store.list("Pod", self._namespace)
            if _is_ready(pod) and wanted <= pod["metadata"].get("labels", {}).items()
        ]


class _Handler(BaseHTTPRequestHandler):
    ingress: ClassVar[Ingress]

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""

    def do_GET(self) -> None:
        status, body = self.ingress.answer(self.path)
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
