"""The tables of incidents, the same in both stores.

The statements are in the dialect that SQLite and PostgreSQL share, as those of
:class:`deployguard.store.work.Work`: ``@name`` is a table or an index, whatever stands before its
name in that store. Each is made where it is not there. JSON is text, so that both give back what
they were given.
"""

from __future__ import annotations

__all__ = ["APPEND_ONLY", "TABLES", "TRANSACTION_INDEXES", "append_only"]

#: What the database says to one who would change the past.
APPEND_ONLY = "the timeline of an incident is append-only"

TABLES: tuple[str, ...] = (
    """
CREATE TABLE IF NOT EXISTS @incidents (
    id TEXT PRIMARY KEY,
    day TEXT NOT NULL,
    number INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (
        state IN ('open', 'acknowledged', 'mitigated', 'resolved', 'closed', 'cancelled')
    ),
    severity INTEGER NOT NULL CHECK (severity BETWEEN 1 AND 4),
    title TEXT NOT NULL,
    service TEXT NOT NULL,
    environment TEXT NOT NULL,
    origin TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    signature TEXT NOT NULL,
    targets TEXT NOT NULL,
    opened_at DOUBLE PRECISION NOT NULL,
    impact_at DOUBLE PRECISION,
    detected_at DOUBLE PRECISION NOT NULL,
    clock_at DOUBLE PRECISION NOT NULL,
    acknowledged_at DOUBLE PRECISION,
    acknowledged_by TEXT NOT NULL,
    mitigated_at DOUBLE PRECISION,
    resolved_at DOUBLE PRECISION,
    closed_at DOUBLE PRECISION,
    acknowledge_by DOUBLE PRECISION NOT NULL,
    resolve_by DOUBLE PRECISION NOT NULL,
    escalations INTEGER NOT NULL,
    escalated_at DOUBLE PRECISION,
    commander TEXT NOT NULL,
    owner TEXT NOT NULL,
    cause TEXT NOT NULL,
    fix TEXT NOT NULL,
    postmortem_by DOUBLE PRECISION,
    UNIQUE (day, number)
)""",
    # Those that are not over are few, however many there were.
    "CREATE INDEX IF NOT EXISTS @incidents_ongoing ON @incidents (fingerprint) "
    "WHERE state IN ('open', 'acknowledged', 'mitigated')",
    "CREATE INDEX IF NOT EXISTS @incidents_by_service "
    "ON @incidents (service, environment, opened_at)",
    "CREATE INDEX IF NOT EXISTS @incidents_by_time ON @incidents (opened_at)",
    """
CREATE TABLE IF NOT EXISTS @incident_entries (
    incident TEXT NOT NULL REFERENCES @incidents (id),
    number INTEGER NOT NULL,
    happened_at DOUBLE PRECISION NOT NULL,
    recorded_at DOUBLE PRECISION NOT NULL,
    kind TEXT NOT NULL,
    actor TEXT NOT NULL,
    said TEXT NOT NULL,
    detail TEXT NOT NULL,
    key TEXT NOT NULL UNIQUE,
    PRIMARY KEY (incident, number)
)""",
    """
CREATE TABLE IF NOT EXISTS @incident_links (
    incident TEXT NOT NULL REFERENCES @incidents (id),
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    linked_at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (incident, kind, value)
)""",
    "CREATE INDEX IF NOT EXISTS @incident_links_by_value ON @incident_links (kind, value)",
)

#: What metrics and `status` ask of transactions, without reading their outcomes, which are long.
TRANSACTION_INDEXES: tuple[str, ...] = (
    "CREATE INDEX IF NOT EXISTS @transactions_counted ON @transactions "
    "(started_at, plan, environment, version, status, ended_at, changed_at, id)",
    "CREATE INDEX IF NOT EXISTS @transactions_unended ON @transactions (plan) "
    "WHERE ended_at IS NULL",
)


def append_only(store: str) -> tuple[str, ...]:
    """What keeps entries as they were written; the one thing the two stores spell differently."""
    if store == "sqlite":
        return tuple(
            f"CREATE TRIGGER IF NOT EXISTS @incident_entries_no_{verb.lower()} "
            f"BEFORE {verb} ON @incident_entries BEGIN SELECT RAISE(ABORT, '{APPEND_ONLY}'); END"
            for verb in ("UPDATE", "DELETE")
        )
    return (
        "CREATE OR REPLACE FUNCTION @append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{APPEND_ONLY}'; END $$",
        "DROP TRIGGER IF EXISTS @incident_entries_stay ON @incident_entries",
        "CREATE TRIGGER @incident_entries_stay BEFORE UPDATE OR DELETE ON @incident_entries "
        "FOR EACH ROW EXECUTE FUNCTION @append_only()",
    )
