"""The servers that checks look at."""

from __future__ import annotations

from tests.servers.databases import mariadb, postgres, redis
from tests.servers.prometheus import prometheus

__all__ = ["mariadb", "postgres", "prometheus", "redis"]
