"""A look at Redis: sign in, PING, run the plan's command."""

from __future__ import annotations

from typing import Any, Dict, Optional

from deployguard.onhost.probes.base import HEALTHY, UNHEALTHY, CheckData, Finding, finding
from deployguard.onhost.probes.conversation import converse, given, place, unexpected, value_shown
from deployguard.onhost.protocols import redis
from deployguard.onhost.protocols.wire import Denied, Garbled, Wire
from deployguard.onhost.system import System


def look(check: CheckData, system: System) -> Finding:
    """One look. ``observed``: ``value``, the answer to the command."""

    def talk(wire: Wire, password: Optional[str]) -> Finding:
        if check["tls"] != "disable" and not wire.local:
            wire.secure(check["tls"], check.get("ca_file"), check["address"])
        if password is not None:
            user = [check["user"]] if check["user"] else []
            redis.ask(wire, ["AUTH", *user, password])
        if check["database"] not in ("", "0"):
            redis.ask(wire, ["SELECT", check["database"]])
        answer = redis.ask(wire, ["PING"])
        if answer != "PONG":
            raise Garbled("it answers %r to PING" % (value_shown(answer),))
        wire.trusted = True
        return _judge(check, wire)

    return converse(check, system, "Redis", talk, lambda error: _refusal(check, error))


def _judge(check: CheckData, wire: Wire) -> Finding:
    observed: Dict[str, Any] = {}
    who = "Redis at %s" % place(check)
    if check.get("argv"):
        answer = redis.ask(wire, check["argv"])
        value = None if answer is None else _text(answer)
        observed["value"] = value_shown(value)
        problem = unexpected(check, 1, value)
        if problem:
            return finding(UNHEALTHY, "%s: %s" % (who, problem), observed=observed)
    return finding(HEALTHY, "%s answers" % who, observed=observed)


def _text(answer: redis.Answer) -> str:
    """As redis-cli prints it: the items of a list one a line."""
    if isinstance(answer, list):
        return "\n".join("" if item is None else _text(item) for item in answer)
    return str(answer)


def _refusal(check: CheckData, error: Denied) -> Optional[str]:
    code, message = error.code, error.message
    if code in ("NOAUTH", "WRONGPASS", "NOPERM"):
        who = check["user"] or "the default user"
        return "refuses %s: %s; %s" % (who, message.rstrip("."), given(check))
    if code in ("LOADING", "BUSY", "MASTERDOWN"):
        return "is not ready: %s" % message
    if code == "MISCONF":
        return "cannot save, and takes no writes: %s" % message
    if "max number of clients" in message:
        return "has no connection left: %s" % message
    return "says: %s" % message if code == "ERR" else None
