"""A look at PostgreSQL: sign in, count the connections, run the plan's query.

A pool that is larger than the server brings a whole site down, and does so only when the last
connection is gone. So every look counts them, and the message says who holds how many.
"""

from __future__ import annotations

import math
import secrets
from typing import Any, Dict, Optional

from deployguard.onhost.excerpts import shorten
from deployguard.onhost.probes.base import HEALTHY, UNHEALTHY, UNKNOWN, CheckData, Finding, finding
from deployguard.onhost.probes.conversation import converse, given, place, unexpected, value_shown
from deployguard.onhost.protocols import postgres
from deployguard.onhost.protocols.wire import Denied, Wire
from deployguard.onhost.system import System

# Everybody may read these. Our own connection is not one of those that are in use.
_OTHERS = "pid <> pg_backend_pid() AND (backend_type = 'client backend'"
_OTHERS += " OR backend_type IS NULL AND datid IS NOT NULL)"
_OTHERS_BEFORE_10 = "pid <> pg_backend_pid()"
_COUNT = (
    "SELECT (SELECT setting FROM pg_settings WHERE name = 'max_connections'),"
    " (SELECT coalesce(sum(setting::int), 0) FROM pg_settings"
    " WHERE name IN ('superuser_reserved_connections', 'reserved_connections')),"
    " (SELECT count(*) FROM pg_stat_activity WHERE %s)"
)
_HOLDERS = (
    "SELECT coalesce(usename::text, '?'), coalesce(nullif(application_name, ''), '?'), count(*)"
    " FROM pg_stat_activity WHERE %s GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 3"
)


def look(check: CheckData, system: System) -> Finding:
    """One look. ``observed``: ``version``, ``connections`` (``limit``, ``reserved``, ``used``,
    ``free``, ``holders``) and ``value``, the answer to the query."""

    def talk(wire: Wire, password: Optional[str]) -> Finding:
        postgres.encrypt(wire, check["tls"], check.get("ca_file"), check["address"])
        nonce = secrets.token_urlsafe(18)
        session = postgres.sign_in(wire, check["user"], check["database"], password, nonce)
        found = _judge(check, wire, session)
        postgres.hang_up(wire)
        return found

    return converse(check, system, "PostgreSQL", talk, lambda error: _refusal(check, error))


def _judge(check: CheckData, wire: Wire, session: Dict[str, str]) -> Finding:
    observed: Dict[str, Any] = {"version": session.get("server_version", "")}
    who = "PostgreSQL at %s" % place(check)
    counted = _count(wire, observed["version"])
    words = "answers"
    if counted is not None:
        observed["connections"] = counted
        words += "; " + _in_use(counted)
    if check.get("query"):
        answer = _query(check, wire)
        observed["value"] = value_shown(answer.value())
        problem = unexpected(check, answer.total, answer.value())
        if problem:
            return finding(UNHEALTHY, "%s: %s" % (who, problem), observed=observed)
    wanted = check.get("free_connections")
    if wanted is not None:
        if counted is None:
            message = "%s answers, but does not say how many connections are in use" % who
            return finding(UNKNOWN, message, observed=observed)
        least = free_wanted(wanted, counted["limit"])
        if counted["free"] < least:
            message = "%s has too few connections left: %s" % (who, _short_of(check, counted))
            return finding(UNHEALTHY, "%s; %d must be free" % (message, least), observed=observed)
    return finding(HEALTHY, "%s %s" % (who, words), observed=observed)


def free_wanted(wanted: Any, limit: int) -> int:
    """How many connections must be free: a number, or a percentage of all as text."""
    if isinstance(wanted, str):
        return math.ceil(limit * float(wanted.rstrip("%")) / 100)
    return int(wanted)


def _count(wire: Wire, version: str) -> Optional[Dict[str, Any]]:
    """The connections, or ``None`` where the server (or what stands before it) does not say."""
    others = _OTHERS_BEFORE_10 if version.startswith(("8.", "9.")) else _OTHERS
    try:
        row = (postgres.ask(wire, _COUNT % others).rows or [[]])[0]
        holders = postgres.ask(wire, _HOLDERS % others).rows
        limit, reserved, used = (int(value or "") for value in row)
        return {
            "limit": limit,
            "reserved": reserved,
            "used": used,
            "free": max(limit - reserved - used, 0),
            "holders": [_holder(row) for row in holders if len(row) == 3],
        }
    except (Denied, ValueError):
        return None


def _holder(row: Any) -> str:
    name = "" if row[1] in ("?", None) else " (%s)" % shorten(row[1], 60)
    return "%s by %s%s" % (row[2], row[0], name)


def _query(check: CheckData, wire: Wire) -> postgres.Rows:
    """The plan's query. It reads, and a server that takes too long ends it by itself."""
    postgres.ask(wire, "BEGIN READ ONLY")
    # A little earlier than we give up, so that it is the server that says so.
    limit = max(int(wire.remaining() * 900), 1)
    postgres.ask(wire, "SET LOCAL statement_timeout = %d" % limit)
    answer = postgres.ask(wire, check["query"])
    postgres.ask(wire, "ROLLBACK")
    return answer


def _in_use(counted: Dict[str, Any]) -> str:
    return "%d of %d connections in use" % (counted["used"], counted["limit"])


def _short_of(check: CheckData, counted: Dict[str, Any]) -> str:
    words = "%s, %d free beside the %d reserved" % (
        _in_use(counted),
        counted["free"],
        counted["reserved"],
    )
    if counted["holders"]:
        words += ", held " + ", ".join(counted["holders"])
    return words + _before(check)


def _before(check: CheckData) -> str:
    then = check.get("baseline", {}).get("connections")
    return "; %d were in use before the deploy" % then["used"] if then else ""


def _refusal(check: CheckData, error: Denied) -> Optional[str]:
    code, message = error.code, error.message
    if code == "53300":
        return "has no connection left: %s%s" % (message, _before(check))
    if code in ("28P01", "28000"):
        return "refuses %s: %s; %s" % (check["user"], message, given(check))
    if code == "57P03":
        return "is not ready: %s" % message
    if code == "57014":
        return "did not answer the query within %.1f s" % check["timeout"]
    return None
