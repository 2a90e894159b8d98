"""Checks of numbers against a real Prometheus, and against answers that it might give."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from deployguard.onhost.probes.base import Sample
from tests.health.looking import compiled, judged, look, watched
from tests.servers.prometheus import Metrics

NUMBER = "shop_errors"


def ask(metrics: Metrics, query: str, **options: Any) -> Sample:
    """One look."""
    return look("prometheus", url=metrics.url, query=query, **options)


def scraped(metrics: Metrics, value: float) -> None:
    """Set the number, and wait until Prometheus has seen it."""
    metrics.exporter.value = value
    check = compiled(
        {"prometheus": {"url": metrics.url, "query": f"{NUMBER} == {value}", "min": value,
                        "interval": 0.05, "min_healthy_time": 0, "deadline": 60}}
    )  # fmt: skip
    assert watched(check, "deploy")["healthy"]


def test_a_number_within_its_bounds_and_beyond(prometheus: Metrics) -> None:
    """Of one series, and of each of several."""
    found = ask(prometheus, "vector(0.3)", max=0.5, min=0.1)
    assert found["state"] == "healthy" and found["observed"] == {"value": 0.3}
    assert found["message"] == "vector(0.3) is 0.3"
    found = ask(prometheus, "vector(0.75)", max=0.5)
    assert (found["state"], found["final"]) == ("unhealthy", False)
    assert found["message"] == "vector(0.75) is 0.75, at most 0.5 wanted"
    assert ask(prometheus, "1 / vector(0)", max=5)["state"] == "unhealthy"
    assert "at least 2 wanted" in ask(prometheus, "scalar(vector(1))", min=2)["message"]
    one, other = (
        f'label_replace(vector({n}), "job", "{job}", "", "")' for n, job in ((1, "a"), (9, "b"))
    )
    two = f"{one} or {other}"
    assert ask(prometheus, two, max=9)["state"] == "healthy"
    found = ask(prometheus, two, max=5)
    assert found["state"] == "unhealthy" and '{job="b"} is 9, at most 5 wanted' in found["message"]
    assert found["observed"]["series"] == {'{job="a"}': 1.0, '{job="b"}': 9.0}


@pytest.mark.parametrize(
    ("query", "words", "final"),
    [
        ("no_such_number", "no data for no_such_number", False),
        ("vector(0) / vector(0)", "is not a number (NaN)", False),
        ("sum(", "refuses the query: ", True),
        ("shop_errors[1m]", "gives no vector and no number", True),
        ('"text"', "gives no vector and no number", True),
    ],
)
def test_no_data_is_unknown(prometheus: Metrics, query: str, words: str, final: bool) -> None:
    """And so is no number; what Prometheus cannot read it will never read."""
    found = ask(prometheus, query, max=1e9)
    assert (found["state"], found["final"]) == ("unknown", final)
    assert words in found["message"]


def test_against_the_baseline(prometheus: Metrics) -> None:
    """Twice as many errors as before the deploy, of a number that is scraped."""
    check = compiled(
        {"prometheus": {"url": prometheus.url, "query": NUMBER, "max_increase": "20%",
                        "max_decrease": 5, "min_healthy_time": 0}}
    )  # fmt: skip
    scraped(prometheus, 10)
    baseline = watched(check, "once")
    assert baseline["check"]["state"] == "healthy"
    assert baseline["check"]["observed"] == {"value": 10.0}
    for value, state, words in (
        (12, "healthy", "shop_errors is 12, 10 before the deploy"),
        (20, "unhealthy", "shop_errors is 20, 10 before the deploy; at most 12 wanted"),
        (4, "unhealthy", "shop_errors is 4, 10 before the deploy; at least 5 wanted"),
    ):
        scraped(prometheus, value)
        found = judged(check, "deploy", baseline)
        assert found["state"] == state and words in found["message"]
    # The old version is back, and the number is not yet: the restore waits for it, up to a point.
    impatient = check.copy()
    impatient["deadline"] = 0.5
    assert not watched(impatient, "restore", baseline)["healthy"]
    scraped(prometheus, 10)
    assert watched(check, "restore", baseline)["healthy"]


@pytest.mark.parametrize(
    ("observed", "state", "words"),
    [
        ({"value": None}, "healthy", "it was not there before the deploy"),
        ({}, "unknown", "it could not be measured before the deploy"),
        (None, "unknown", "it could not be measured before the deploy"),
    ],
)
def test_without_a_baseline(
    prometheus: Metrics, observed: dict[str, Any] | None, state: str, words: str
) -> None:
    """No data before is a first deploy; no answer before is nobody's fault but still unknown."""
    check = compiled(
        {"prometheus": {"url": prometheus.url, "query": "vector(1)", "max_increase": 1,
                        "min_healthy_time": 0}}
    )  # fmt: skip
    entry = {"id": check["id"], "state": "unknown", "observed": observed}
    baseline = None if observed is None else {"checks": [entry]}
    found = watched(check, "deploy", baseline)["check"]
    assert found["state"] == state and words in found["message"]


def test_several_series_have_no_baseline(prometheus: Metrics) -> None:
    """Their labels change with each version."""
    two = 'label_replace(vector(1), "job", "a", "", "") or vector(2)'
    check = compiled(
        {"prometheus": {"url": prometheus.url, "query": two, "max_increase": 1,
                        "min_healthy_time": 0}}
    )  # fmt: skip
    found = watched(check, "deploy", watched(check, "once"))["check"]
    assert found["state"] == "unknown" and "use sum() or max()" in found["message"]


def test_nobody_answers() -> None:
    """That says nothing about the service."""
    found = look("prometheus", url="http://127.0.0.1:1", query="up", min=1)
    assert found["state"] == "unknown"
    assert found["message"] == "Prometheus at http://127.0.0.1:1: connection refused"


@contextmanager
def answering(status: int, body: bytes) -> Iterator[tuple[str, list[Any]]]:
    """Something that answers every request in the same way; and the headers it was sent."""
    seen: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, self.headers))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/metrics/", seen
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body"), [(502, b"<html>Bad Gateway"), (200, b"[]"), (200, b"{}"), (401, b"no")]
)
def test_what_is_no_prometheus_is_unknown(status: int, body: bytes) -> None:
    """A proxy before it, a login page."""
    with answering(status, body) as (url, _):
        found = look("prometheus", url=url, query="up", min=1)
    assert found["state"] == "unknown"
    assert f"answered {status}, and nothing that Prometheus says" in found["message"]


def test_a_token_and_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are sent, and stand in nothing that is found."""
    monkeypatch.setenv("PROM_TOKEN", "geheim-token")
    body = b'{"status": "success", "data": {"resultType": "vector", "result": []}}'
    with answering(200, body) as (url, seen):
        found = [
            look("prometheus", url=url, query='up{a="b c"}', min=1, token_env="PROM_TOKEN"),
            look("prometheus", url=url, query="up", min=1, user="u", password_env="PROM_TOKEN"),
        ]
    paths = [path for path, _ in seen]
    assert paths[0] == "/metrics/api/v1/query?query=up%7Ba%3D%22b%20c%22%7D"
    sent = [headers["Authorization"] for _, headers in seen]
    assert sent == ["Bearer geheim-token", "Basic dTpnZWhlaW0tdG9rZW4="]
    assert "geheim" not in repr(found) and "dTpn" not in repr(found)
