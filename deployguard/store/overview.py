"""Where each service stood when this journal last heard of it. No host is asked for it."""

from __future__ import annotations

from typing import Any

from deployguard.store.work import Store

__all__ = ["newest_of_each", "without_end"]

_COLUMNS = "id, plan, environment, version, source, owner, started_at, ended_at, status, exit_code"


def newest_of_each(store: Store) -> list[dict[str, Any]]:
    """The newest transaction that has ended, of each service and environment: by name."""
    return store.read(
        f"SELECT {_COLUMNS}, summary FROM @transactions WHERE id IN (SELECT id FROM ("  # noqa: S608
        "SELECT id, ROW_NUMBER() OVER (PARTITION BY plan, environment "
        "ORDER BY started_at DESC, id DESC) AS place "
        "FROM @transactions WHERE ended_at IS NOT NULL) AS placed WHERE place = 1) "
        "ORDER BY plan, environment"
    )


def without_end(store: Store) -> list[dict[str, Any]]:
    """Transactions that are at work, or whose run was killed: the oldest first."""
    return store.read(
        f"SELECT {_COLUMNS} FROM @transactions WHERE ended_at IS NULL "  # noqa: S608
        "ORDER BY started_at, id"
    )
