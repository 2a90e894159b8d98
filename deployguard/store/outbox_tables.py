"""The tables of what is to be told to others, the same in both stores.

As those of incidents (:mod:`deployguard.store.incident_tables`): ``@name`` is a table or an index,
and each is made where it is not there.
"""

from __future__ import annotations

__all__ = ["ADDED", "OUTBOX", "TABLES"]

OUTBOX = """
CREATE TABLE IF NOT EXISTS @outbox (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    key TEXT NOT NULL UNIQUE,
    payload TEXT NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    last_error TEXT,
    delivered_at DOUBLE PRECISION,
    rejected_at DOUBLE PRECISION,
    result TEXT,
    lane TEXT,
    not_before DOUBLE PRECISION,
    CHECK (delivered_at IS NULL OR rejected_at IS NULL)
)"""

#: The columns that an outbox of an earlier version lacks.
ADDED = {"lane": "TEXT", "not_before": "DOUBLE PRECISION"}

TABLES: tuple[str, ...] = (
    # A lane is one channel's share of one subject: its messages go in order, and each may need what
    # the one before brought back, such as the thread to answer in.
    """
CREATE TABLE IF NOT EXISTS @notify_lanes (
    lane TEXT PRIMARY KEY,
    told_at DOUBLE PRECISION NOT NULL,
    receipt TEXT NOT NULL
)""",
    # What a plan says about notifications, for those who have no plan at hand.
    """
CREATE TABLE IF NOT EXISTS @notify_plans (
    service TEXT NOT NULL,
    environment TEXT NOT NULL,
    settings TEXT NOT NULL,
    saved_at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (service, environment)
)""",
    "CREATE INDEX IF NOT EXISTS @outbox_by_lane ON @outbox (lane, id)",
    "CREATE INDEX IF NOT EXISTS @outbox_waiting ON @outbox (id) "
    "WHERE delivered_at IS NULL AND rejected_at IS NULL",
)
