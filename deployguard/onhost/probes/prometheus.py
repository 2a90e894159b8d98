"""A look at a number that Prometheus measures: within its bounds, or as it was before the deploy.

What Prometheus does not answer tells nothing about the service, so all of it is unknown: no answer,
no data, no number. A query that it cannot read stays one, and is told at once.
"""

from __future__ import annotations

import json
import math
from typing import Any, Dict, List, NamedTuple, Optional
from urllib.parse import quote

from deployguard.onhost.excerpts import shorten
from deployguard.onhost.probes import http as probe_http
from deployguard.onhost.probes.base import HEALTHY, UNHEALTHY, UNKNOWN, CheckData, Finding, finding
from deployguard.onhost.probes.conversation import password_of
from deployguard.onhost.protocols.wire import Unsupported
from deployguard.onhost.system import System

EXCERPT = 200
#: Of a query that gives several series, those that findings hold.
MAX_SERIES = 20


class Series(NamedTuple):
    """One series of an instant vector; ``name`` is empty for a scalar."""

    name: str
    value: float


def look(check: CheckData, system: System) -> Finding:
    """One look. ``observed``: ``value`` of a single series (``None``: no data), ``series`` of
    several."""
    base = check["url"].rstrip("/")
    who = "Prometheus at %s" % base
    try:
        headers = _authorization(check)
    except Unsupported as error:
        return finding(UNKNOWN, "%s: %s" % (who, error))
    moment = "&time=%d" % check["time"] if "time" in check else ""
    request: Any = {
        "url": "%s/api/v1/query?query=%s%s" % (base, quote(check["query"], safe=""), moment),
        "headers": headers,
        "verify_tls": check.get("verify_tls", True),
        "timeout": check["timeout"],
    }
    answer = probe_http.request(request, system, who)
    if isinstance(answer, Finding):
        return finding(UNKNOWN, answer.message)
    return judge(check, who, *answer)


def judge(check: CheckData, who: str, status: int, body: bytes) -> Finding:
    """What one answer of the HTTP API means for the check."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.get("status") != "success":
        return _failed(who, status, document)
    series = read_series(document.get("data"))
    if series is None:
        return finding(UNKNOWN, "%s: the query gives no vector and no number" % who, final=True)
    return compare(check, series)


def _failed(who: str, status: int, document: Any) -> Finding:
    if not isinstance(document, dict) or "error" not in document:
        return finding(UNKNOWN, "%s answered %d, and nothing that Prometheus says" % (who, status))
    said = shorten(str(document["error"]), EXCERPT)
    # What it cannot read now it will not read later.
    final = document.get("errorType") == "bad_data"
    return finding(UNKNOWN, "%s refuses the query: %s" % (who, said), final)


def read_series(data: Any) -> Optional[List[Series]]:
    """The series of an instant query, or ``None`` for another kind of answer."""
    if not isinstance(data, dict):
        return None
    kind, result = data.get("resultType"), data.get("result")
    if not isinstance(result, list):
        return None
    if kind == "scalar":
        number = _number(result)
        return None if number is None else [Series("", number)]
    if kind != "vector":
        return None
    found = []
    for item in result:
        number = _number(item.get("value")) if isinstance(item, dict) else None
        if number is None:
            return None
        found.append(Series(_labels(item.get("metric")), number))
    return found


def _number(pair: Any) -> Optional[float]:
    """The number in ``[time, "number"]``."""
    if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[1], str):
        return None
    try:
        return float(pair[1])
    except ValueError:
        return None


def _labels(metric: Any) -> str:
    if not isinstance(metric, dict) or not metric:
        return ""
    pairs = ['%s="%s"' % item for item in sorted(metric.items()) if item[0] != "__name__"]
    return shorten("%s{%s}" % (metric.get("__name__", ""), ",".join(pairs)), EXCERPT)


def compare(check: CheckData, series: List[Series]) -> Finding:
    """The numbers against the bounds of the check; the first that is out of them is named."""
    query = shorten(check["query"], EXCERPT)
    observed: Dict[str, Any] = {"value": None}
    if not series:
        return finding(UNKNOWN, "no data for %s" % query, observed=observed)
    if len(series) == 1:
        observed["value"] = _plain(series[0].value)
    else:
        observed = {"series": {one.name: _plain(one.value) for one in series[:MAX_SERIES]}}
    if any(math.isnan(one.value) for one in series):
        return finding(UNKNOWN, "%s is not a number (NaN)" % query, observed=observed)
    for one in series:
        problem = _beyond(check, one.value)
        if problem:
            name = "%s: %s" % (query, one.name) if len(series) > 1 else query
            message = "%s is %s, %s" % (name, shown(one.value), problem)
            return finding(UNHEALTHY, message, observed=observed)
    words = "%s is %s" % (query, shown(series[0].value))
    if len(series) > 1:
        words = "%s is within its bounds in all of %d series" % (query, len(series))
    return _against_before(check, series, words, observed)


def _against_before(
    check: CheckData, series: List[Series], words: str, observed: Dict[str, Any]
) -> Finding:
    """Against the value that the baseline has; without a baseline there is nothing to ask."""
    before = check.get("baseline")
    if before is None or not ("max_increase" in check or "max_decrease" in check):
        return finding(HEALTHY, words, observed=observed)
    if len(series) > 1:
        message = "%s; to compare it with before it must be one: use sum() or max()" % words
        return finding(UNKNOWN, message, final=True, observed=observed)
    if "value" not in before:
        message = "%s; it could not be measured before the deploy" % words
        return finding(UNKNOWN, message, final=True, observed=observed)
    then = before["value"]
    if not isinstance(then, (int, float)):
        # There was no data: a service that is deployed for the first time, or says what is new.
        message = "%s; it was not there before the deploy to compare with" % words
        return finding(HEALTHY, message, observed=observed)
    words += ", %s before the deploy" % shown(then)
    value = series[0].value
    most, least = (
        _limit(then, check.get("max_increase"), 1),
        _limit(then, check.get("max_decrease"), -1),
    )
    if most is not None and value > most:
        return finding(UNHEALTHY, "%s; at most %s wanted" % (words, shown(most)), observed=observed)
    if least is not None and value < least:
        words = "%s; at least %s wanted" % (words, shown(least))
        return finding(UNHEALTHY, words, observed=observed)
    return finding(HEALTHY, words, observed=observed)


def _limit(then: float, change: Any, sign: int) -> Optional[float]:
    """``then`` and so much more: a number, or a percentage of it as text."""
    if change is None:
        return None
    if isinstance(change, str):
        return then + sign * abs(then) * float(change.rstrip("%")) / 100
    return then + sign * float(change)


def _beyond(check: CheckData, value: float) -> str:
    if "max" in check and value > check["max"]:
        return "at most %s wanted" % shown(check["max"])
    if "min" in check and value < check["min"]:
        return "at least %s wanted" % shown(check["min"])
    return ""


def _plain(value: float) -> Any:
    """A number that JSON has; infinity and NaN as text."""
    return value if math.isfinite(value) else str(value)


def shown(value: float) -> str:
    """A number for people."""
    return "%.6g" % value


def _authorization(check: CheckData) -> Dict[str, str]:
    token = check.get("secret", {}).get("token")
    if token is not None:
        return {"Authorization": "Bearer " + token}
    if not check.get("user"):
        return {}
    import base64

    pair = "%s:%s" % (check["user"], password_of(check) or "")
    return {"Authorization": "Basic " + base64.b64encode(pair.encode("utf-8")).decode("ascii")}
