"""A chat platform in the cluster: an API with four health endpoints, and a user interface.

The API itself and its database are critical, Redis and the AI service are not. Each can be taken
away from a version, or from all that run, while they run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from tests.cluster import manifests
from tests.cluster.cluster import Cluster
from tests.cluster.images import Image

#: Endpoint by what it is about, as monitoring asks for it.
ENDPOINTS = {
    "api": "/api/health",
    "database": "/api/health/database",
    "redis": "/api/health/redis",
    "ai": "/api/health/ai",
}
CRITICAL = ("api", "database")


class ChatPlatform:
    """What the registry and the world around the cluster hold for it.

    ``down`` names dependencies that are away for every version; change it at any time.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.down: set[str] = set()
        # Made once, by somebody with the passwords; no manifest of a release has it.
        cluster.apply(manifests.secret("macro-ai", DATABASE_PASSWORD="chat-sentinel-password"))
        self.port = cluster.ingress("macro-ai-api")

    @property
    def url(self) -> str:
        """Where the API is reached."""
        return f"http://{self.cluster.address}:{self.port}"

    def build(
        self, version: str, *, broken: Collection[str] = (), fault: str = "", logs: str = "ready"
    ) -> None:
        """Push the images of a version; ``broken`` names endpoints of it that answer 503."""

        def routes(env: Mapping[str, str]) -> Mapping[str, tuple[int, dict[str, Any]]]:
            found: dict[str, tuple[int, dict[str, Any]]] = {}
            for name, path in ENDPOINTS.items():
                bad = name in broken or name in self.down
                status = "unhealthy" if bad else "healthy"
                found[path] = (503 if bad else 200, {"status": status, "version": version})
            found["/settings"] = (200, {"model": env.get("MODEL")})
            return found

        registry = self.cluster.images
        registry[f"registry.example.com/macro-ai-api:{version}"] = Image(
            version, routes, fault, logs
        )
        registry[f"registry.example.com/macro-ai-ui:{version}"] = Image(version)

    def health(self) -> dict[str, int]:
        """What each endpoint answers now."""
        return {name: self.cluster.ask(self.port, path)[0] for name, path in ENDPOINTS.items()}

    def version(self) -> str | None:
        """The version that answers, or ``None``."""
        status, body = self.cluster.ask(self.port, ENDPOINTS["api"])
        return str(body["version"]) if status == 200 else None
