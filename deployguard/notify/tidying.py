"""Forgets what was told long ago of what is over.

Until then it is what the threads hang on, what a repeated write is recognised by, and who was told
in the post-mortem.
"""

from __future__ import annotations

from typing import Any

from deployguard.notify.announce import KIND
from deployguard.store.work import Store, Work

__all__ = ["KEPT", "tidy"]

#: Seconds for which a message is kept after it has arrived, or was given up, and after the incident
#: that it tells of was closed or cancelled.
KEPT = 90 * 86400.0
#: No more are forgotten in one go.
_MOST = 1000


def tidy(store: Store, now: float) -> int:
    """Forget messages; how many those were. What waits is kept, however old it is."""
    before = now - KEPT
    oldest = store.read("SELECT created_at FROM @outbox ORDER BY id LIMIT 1")
    if not oldest or oldest[0]["created_at"] > before:
        return 0

    def within(work: Work) -> int:
        rows = work.rows(
            "SELECT id, lane FROM @outbox WHERE kind = :kind AND lane IS NOT NULL AND "
            "coalesce(delivered_at, rejected_at) < :before ORDER BY id",
            {"kind": KIND, "before": before},
        )
        over: dict[str, bool] = {}
        gone: list[dict[str, Any]] = []
        for row in rows:
            subject = row["lane"].partition("/")[0]
            if subject not in over:
                over[subject] = _over(work, subject, before)
            if over[subject] and len(gone) < _MOST:
                gone.append(row)
        for row in gone:
            work.do("DELETE FROM @outbox WHERE id = :id", {"id": row["id"]})
        for lane in {row["lane"] for row in gone}:
            work.do(
                "DELETE FROM @notify_lanes WHERE lane = :lane AND NOT EXISTS "
                "(SELECT 1 FROM @outbox WHERE lane = :lane)",
                {"lane": lane},
            )
        return len(gone)

    return store.transact(within)


def _over(work: Work, subject: str, before: float) -> bool:
    """Whether an incident was over so long ago; a deploy that is told of is over."""
    rows = work.rows("SELECT state FROM @incidents WHERE id = :id", {"id": subject})
    if not rows:
        return True
    if rows[0]["state"] not in ("closed", "cancelled"):
        return False
    last = work.rows(
        "SELECT max(recorded_at) AS at FROM @incident_entries WHERE incident = :id", {"id": subject}
    )
    return last[0]["at"] is not None and float(last[0]["at"]) < before
