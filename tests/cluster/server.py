"""The API over HTTP, as kubectl asks for it."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from tests.cluster import patches
from tests.cluster.controllers import Controllers
from tests.cluster.kinds import BY_PLURAL, KINDS, Json, Kind, unknown_fields
from tests.cluster.store import ApiError, Store

#: Called with method and URL before a request is answered; may block, or raise ApiError.
Gate = Callable[[str, str], None]

_LOOK = 0.5


class Api:
    """The server: it can go away, and come back at the same address."""

    def __init__(self, store: Store, controllers: Controllers, address: str) -> None:
        self.address = address
        self.store = store
        self.controllers = controllers
        self.gates: list[Gate] = []
        self.requests: list[tuple[str, str]] = []
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    def start(self) -> None:
        """Listen; again at the port it had, once it has one."""
        handler = type("Handler", (_Handler,), {"api": self})
        self._server = _Server((self.address, self.port), handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections, and hang up on those there are."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, *arguments: Any) -> None:
        self._connections: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of ours."""


class _Place:
    """What a URL names."""

    def __init__(self, path: str) -> None:
        root, _, rest = _split(path)
        parts = [part for part in rest.split("/") if part]
        self.namespace = ""
        if len(parts) > 2 and parts[0] == "namespaces":
            self.namespace, parts = parts[1], parts[2:]
        self.kind: Kind | None = BY_PLURAL.get((root, parts[0])) if parts else None
        self.name = parts[1] if len(parts) > 1 else ""
        self.sub = parts[2] if len(parts) > 2 else ""


def _split(path: str) -> tuple[str, str, str]:
    found = re.match(r"(/api/v1|/apis/[^/]+/[^/]+)(/?)(.*)", path)
    return (found[1], found[2], found[3]) if found else ("", "", "")


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    api: ClassVar[Api]
    protocol_version = "HTTP/1.1"
    # Head and body in one packet: else the client waits 40 ms before it says that it has the first.
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def do_PATCH(self) -> None:
        self._answer("PATCH")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, method: str) -> None:
        url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        try:
            self.api.requests.append((method, self.path))
            for gate in list(self.api.gates):
                gate(method, self.path)
            self._route(method, url.path, body)
        except ApiError as error:
            self._send(error.code, error.status())
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _send(self, code: int, body: Any) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        kind = "text/plain" if isinstance(body, str) else "application/json"
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    # -- what there is -----------------------------------------------------------------------

    def _route(self, method: str, path: str, body: bytes) -> None:
        found = _discovery(path)
        if found is not None:
            self._send(200, found)
            return
        place = _Place(path)
        if place.kind is None:
            message = "the server could not find the requested resource"
            raise ApiError(404, "NotFound", message)
        self._demand_known(place)
        if method == "GET":
            self._get(place.kind, place)
        elif method == "DELETE":
            self._delete(place.kind, place)
        else:
            self._write(method, place.kind, place, body)

    def _demand_known(self, place: _Place) -> None:
        # As the real one: a list in a namespace that is not there is empty and no error.
        pass

    def _get(self, kind: Kind, place: _Place) -> None:
        if place.sub == "log":
            pod = self.api.store.get("Pod", place.namespace, place.name)
            self._send(200, self.api.controllers.logs.get(pod["metadata"]["uid"], ""))
            return
        if place.sub == "scale":
            self._send(200, _scale(self.api.store.get(kind.name, place.namespace, place.name)))
            return
        if place.name:
            self._send(200, self.api.store.get(kind.name, place.namespace, place.name))
            return
        if self.query.get("watch") in ("1", "true"):
            self._watch(kind, place)
            return
        with self.api.store.changed:
            items = self._selected(self.api.store.list(kind.name, place.namespace))
            version = self.api.store.version
        self._send(
            200,
            {
                "kind": f"{kind.name}List",
                "apiVersion": kind.api_version,
                "metadata": {"resourceVersion": str(version)},
                "items": items,
            },
        )

    def _selected(self, items: list[Json]) -> list[Json]:
        return [item for item in items if _fits(item, self.query)]

    def _watch(self, kind: Kind, place: _Place) -> None:
        if "sendInitialEvents" in self.query:
            raise ApiError(422, "Invalid", "sendInitialEvents: Forbidden: not enabled here")
        version = int(self.query.get("resourceVersion") or 0)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        server = self.api._server
        while self.api._server is server:
            events = list(self.api.store.since(version, kind.name, place.namespace))
            for number, event, obj in events:
                version = max(version, number)
                if _fits(obj, self.query):
                    line = json.dumps({"type": event, "object": obj}) + "\n"
                    self.wfile.write(line.encode())
            self.wfile.flush()
            with self.api.store.changed:
                self.api.store.changed.wait(_LOOK)

    # -- changes -----------------------------------------------------------------------------

    def _write(self, method: str, kind: Kind, place: _Place, body: bytes) -> None:
        store, dry = self.api.store, "dryRun" in self.query
        with store.changed:
            if method == "POST":
                obj = self._parsed(body)
                obj["metadata"].setdefault("namespace", place.namespace)
                if not kind.namespaced:
                    obj["metadata"].pop("namespace")
                self._demand_valid(obj)
                self._send(201, store.create(obj, dry=dry))
                return
            old = store.get(kind.name, place.namespace, place.name)
            obj = self._parsed(body) if method == "PUT" else self._patched(old, body)
            obj.setdefault("apiVersion", kind.api_version)
            obj.setdefault("kind", kind.name)
            if kind.namespaced:
                obj["metadata"]["namespace"] = place.namespace
            self._demand_valid(obj)
            new = store.update(obj, dry=dry)
            self._send(200, _scale(new) if place.sub == "scale" else new)

    def _parsed(self, body: bytes) -> Json:
        try:
            obj = json.loads(body)
        except ValueError as error:
            raise ApiError(400, "BadRequest", f"cannot be read: {error}") from error
        assert isinstance(obj, dict)
        return obj

    def _patched(self, old: Json, body: bytes) -> Json:
        kind = self.headers.get("Content-Type", "")
        patch = json.loads(body)
        if kind.startswith("application/strategic-merge-patch"):
            return dict(patches.strategic(old, patch))
        if kind.startswith("application/merge-patch"):
            return dict(patches.merge(old, patch))
        if kind.startswith("application/json-patch"):
            return dict(patches.operations(old, patch))
        raise ApiError(415, "UnsupportedMediaType", f"no patches of {kind} here")

    def _demand_valid(self, obj: Json) -> None:
        """Raise what the API server says of the mistakes that people make."""
        name = obj["metadata"].get("name", "")
        if self.query.get("fieldValidation") == "Strict":
            unknown = unknown_fields(obj)
            if unknown:
                raise ApiError(
                    400,
                    "BadRequest",
                    f'{obj["kind"]} in version "{obj["apiVersion"]}" cannot be handled as a '
                    f"{obj['kind']}: strict decoding error: {', '.join(unknown)}",
                )
        if obj["kind"] in ("Deployment", "StatefulSet", "DaemonSet"):
            labels = obj["spec"]["template"].get("metadata", {}).get("labels", {})
            wanted = obj["spec"].get("selector", {}).get("matchLabels")
            if not wanted or any(labels.get(key) != value for key, value in wanted.items()):
                raise _invalid(obj, name, "spec.template.metadata.labels: does not match selector")
            if not all(c.get("image") for c in obj["spec"]["template"]["spec"]["containers"]):
                raise _invalid(obj, name, "spec.template.spec.containers[0].image: Required value")
        if obj["kind"] == "Secret":
            import base64

            for value in obj.get("data", {}).values():
                try:
                    base64.b64decode(value, validate=True)
                except ValueError:
                    # As the real one does: with the value, and some of what stands around it.
                    raise ApiError(
                        400,
                        "BadRequest",
                        f'Secret in version "v1" cannot be handled as a Secret: illegal base64 '
                        f"data at input byte 4, error found in #10 byte of ...|{value}|..., "
                        f"bigger context ...|{json.dumps(obj['data'])}|...",
                    ) from None

    def _delete(self, kind: Kind, place: _Place) -> None:
        dry = "dryRun" in self.query
        obj = self.api.store.delete(kind.name, place.namespace, place.name, dry=dry)
        self._send(200, obj)


def _scale(obj: Json) -> Json:
    """The subresource of that name; a patch of it is one of the object."""
    names = ("name", "namespace", "uid", "resourceVersion")
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: obj["metadata"][name] for name in names},
        "spec": {"replicas": obj["spec"]["replicas"]},
        "status": {"replicas": obj.get("status", {}).get("replicas", 0)},
    }


def _invalid(obj: Json, name: str, message: str) -> ApiError:
    return ApiError(422, "Invalid", f'{obj["kind"]} "{name}" is invalid: {message}')


def _fits(item: Json, query: dict[str, str]) -> bool:
    labels = item["metadata"].get("labels", {})
    for part in filter(None, query.get("labelSelector", "").split(",")):
        key, _, value = part.replace("==", "=").partition("=")
        if labels.get(key) != value:
            return False
    for part in filter(None, query.get("fieldSelector", "").split(",")):
        key, _, value = part.replace("==", "=").partition("=")
        found: Any = item
        for step in key.split("."):
            found = found.get(step, {}) if isinstance(found, dict) else {}
        if found != value:
            return False
    return True


# --- discovery ------------------------------------------------------------------------------------

_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


def _discovery(path: str) -> Any:
    if path == "/version":
        return {"major": "1", "minor": "34", "gitVersion": "v1.34.0", "platform": "linux/amd64"}
    if path in ("/readyz", "/livez", "/healthz"):
        return "ok"
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    groups = sorted({(kind.group, kind.version) for kind in KINDS if kind.group})
    if path == "/apis":
        return {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [
                {
                    "name": group,
                    "versions": [{"groupVersion": f"{group}/{version}", "version": version}],
                    "preferredVersion": {"groupVersion": f"{group}/{version}", "version": version},
                }
                for group, version in groups
            ],
        }
    if path.startswith("/openapi/v3"):
        return _openapi(path)
    found = [kind for kind in KINDS if kind.root == path]
    if not found:
        return None
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": found[0].api_version,
        "resources": [
            {
                "name": kind.plural,
                "singularName": kind.name.lower(),
                "namespaced": kind.namespaced,
                "kind": kind.name,
                "verbs": _VERBS,
                "shortNames": list(kind.short),
                **({"categories": ["all"]} if kind.name in ("Pod", "Deployment") else {}),
            }
            for kind in found
        ],
    }


def _openapi(path: str) -> Any:
    """As much as says that the server validates fields itself."""
    roots = {kind.root[1:]: kind for kind in KINDS}
    if path == "/openapi/v3":
        return {"paths": {root: {"serverRelativeURL": f"/openapi/v3/{root}"} for root in roots}}
    root = path.removeprefix("/openapi/v3/")
    if root not in roots:
        return None
    parameters = [
        {"name": name, "in": "query", "schema": {"type": "string"}}
        for name in ("fieldValidation", "dryRun")
    ]
    paths = {}
    for kind in KINDS:
        if kind.root[1:] != root:
            continue
        gvk = {"group": kind.group, "version": kind.version, "kind": kind.name}
        operation = {
            "parameters": parameters,
            "x-kubernetes-group-version-kind": gvk,
            "responses": {},
        }
        paths[f"{kind.root}/{kind.plural}/{{name}}"] = {"patch": operation, "parameters": []}
    return {"openapi": "3.0.0", "info": {"title": "x", "version": "1"}, "paths": paths}
