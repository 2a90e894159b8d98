"""A look at MySQL or MariaDB: sign in, run the plan's query."""

from __future__ import annotations

from typing import Any, Dict, Optional

from deployguard.onhost.probes.base import HEALTHY, UNHEALTHY, CheckData, Finding, finding
from deployguard.onhost.probes.conversation import converse, given, place, unexpected, value_shown
from deployguard.onhost.protocols import mysql
from deployguard.onhost.protocols.wire import Denied, Wire
from deployguard.onhost.system import System


def look(check: CheckData, system: System) -> Finding:
    """One look. ``observed``: ``version``, and ``value``, the answer to the query."""

    def talk(wire: Wire, password: Optional[str]) -> Finding:
        session = mysql.Session(wire)
        greeting = mysql.greet(session)
        tls = (check["tls"], check.get("ca_file"), check["address"])
        mysql.sign_in(session, greeting, check["user"], check["database"], password, tls)
        found = _judge(check, session, greeting.version)
        mysql.hang_up(session)
        return found

    return converse(check, system, "MySQL", talk, lambda error: _refusal(check, error))


def _judge(check: CheckData, session: mysql.Session, version: str) -> Finding:
    observed: Dict[str, Any] = {"version": version}
    who = "%s at %s" % ("MariaDB" if "MariaDB" in version else "MySQL", place(check))
    if check.get("query"):
        answer = _query(check, session, version)
        observed["value"] = value_shown(answer.value())
        problem = unexpected(check, answer.total, answer.value())
        if problem:
            return finding(UNHEALTHY, "%s: %s" % (who, problem), observed=observed)
    return finding(HEALTHY, "%s answers" % who, observed=observed)


def _query(check: CheckData, session: mysql.Session, version: str) -> mysql.Rows:
    """The plan's query. It reads, and a server that takes too long ends it by itself."""
    # A little earlier than we give up, so that it is the server that says so.
    seconds = session.wire.remaining() * 0.9
    limit = "max_execution_time = %d" % max(int(seconds * 1000), 1)
    if "MariaDB" in version:
        limit = "max_statement_time = %.3f" % max(seconds, 0.001)
    try:
        mysql.ask(session, "SET SESSION " + limit)
    except Denied:
        pass  # An older one, or another kind; it is ended with the connection.
    mysql.ask(session, "START TRANSACTION READ ONLY")
    answer = mysql.ask(session, check["query"])
    mysql.ask(session, "ROLLBACK")
    return answer


def _refusal(check: CheckData, error: Denied) -> Optional[str]:
    code, message = error.code, error.message
    if code in ("1040", "1203", "1226"):
        return "has no connection left: %s" % message
    if code in ("1044", "1049"):
        return "does not give %s the database: %s" % (check["user"], message)
    if code in ("1045", "1698"):
        said = message.partition(" (using password")[0]
        return "refuses %s: %s; %s" % (check["user"], said, given(check))
    if code in ("1129", "1130"):
        return "does not let this host in: %s" % message
    if code in ("1969", "3024"):
        return "did not answer the query within %.1f s" % check["timeout"]
    return None
