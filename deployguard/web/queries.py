"""What the pages ask the store: one screen at a time, and never an outcome that is not shown.

Ten thousand transactions and a thousand incidents are a store like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deployguard.incidents.machine import STATES
from deployguard.incidents.record import COLUMNS, Incident
from deployguard.incidents.severity import LEVELS
from deployguard.store.work import Store

__all__ = ["PER_PAGE", "Choice", "Listed", "choices", "incidents", "transactions", "unended"]

PER_PAGE = 50

_SHOWN = "id, plan, version, environment, owner, started_at, ended_at, status, exit_code, summary"
_STATUSES = (
    "running",
    "committed",
    "unchanged",
    "rolled_back",
    "needs_person",
    "refused",
    "locked",
    "interrupted",
    "failed",
)


@dataclass(frozen=True)
class Choice:
    """A filter: its name in the address, its label, what there is to choose, and what is chosen."""

    name: str
    label: str
    values: tuple[str, ...]
    chosen: str


@dataclass(frozen=True)
class Listed:
    """One screen of a list; ``more`` when there is another after it."""

    rows: tuple[Any, ...]
    page: int
    more: bool


def transactions(
    store: Store, page: int, *, plan: str = "", environment: str = "", status: str = ""
) -> Listed:
    """The newest first."""
    where, values = _where(plan=plan, environment=environment, status=status)
    rows = store.read(
        f"SELECT {_SHOWN} FROM @transactions {where} "  # noqa: S608 - our own columns
        "ORDER BY started_at DESC, id DESC LIMIT :limit OFFSET :offset",
        {**values, **_slice(page)},
    )
    return _listed(rows, page)


def unended(store: Store) -> list[dict[str, Any]]:
    """Transactions without an end: at work, or killed."""
    return store.read(
        f"SELECT {_SHOWN} FROM @transactions "  # noqa: S608 - our own columns
        "WHERE ended_at IS NULL ORDER BY started_at DESC, id DESC LIMIT 100",
        {},
    )


def incidents(
    store: Store, page: int, *, service: str = "", state: str = "", severity: str = ""
) -> Listed:
    """The newest first."""
    level = next((number for number, name in LEVELS.items() if name == severity), None)
    where, values = _where(service=service, state=state, severity=level)
    rows = store.read(
        f"SELECT {', '.join(COLUMNS)} FROM @incidents {where} "  # noqa: S608 - our own columns
        "ORDER BY opened_at DESC, id DESC LIMIT :limit OFFSET :offset",
        {**values, **_slice(page)},
    )
    return _listed([Incident.of(row) for row in rows], page)


def choices(store: Store, kind: str, chosen: dict[str, str]) -> list[Choice]:
    """The filters of a list: of ``transactions``, of ``incidents``, or of ``metrics``."""
    if kind == "incidents":
        return [
            Choice(
                "service", "Service", _distinct(store, "service", "@incidents"), chosen["service"]
            ),
            Choice("state", "State", STATES, chosen["state"]),
            Choice("severity", "Severity", tuple(LEVELS.values()), chosen["severity"]),
        ]
    name = "service" if kind == "metrics" else "plan"
    places = _distinct(store, "environment", "@transactions")
    found = [
        Choice(name, "Service", _distinct(store, "plan", "@transactions"), chosen[name]),
        Choice("environment", "Environment", places, chosen["environment"]),
    ]
    if kind == "transactions":
        found.append(Choice("status", "Ended as", _STATUSES, chosen["status"]))
    return found


def _distinct(store: Store, column: str, table: str) -> tuple[str, ...]:
    rows = store.read(
        f"SELECT DISTINCT {column} AS value FROM {table} ORDER BY 1 LIMIT 500",  # noqa: S608
        {},
    )
    return tuple(row["value"] for row in rows if row["value"])


def _where(**wanted: str | int | None) -> tuple[str, dict[str, Any]]:
    values = {name: value for name, value in wanted.items() if value not in ("", None)}
    clause = " AND ".join(f"{name} = :{name}" for name in values)
    return (f"WHERE {clause}" if clause else ""), values


def _slice(page: int) -> dict[str, int]:
    return {"limit": PER_PAGE + 1, "offset": page * PER_PAGE}


def _listed(rows: list[Any], page: int) -> Listed:
    return Listed(tuple(rows[:PER_PAGE]), page, len(rows) > PER_PAGE)
