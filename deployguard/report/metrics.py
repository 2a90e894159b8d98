"""Metrics as other programs read them: OpenMetrics and CSV.

OpenMetrics is what Prometheus scrapes; it is the older text format as well, which a Pushgateway and
the textfile collector of the node exporter take. Everything is a gauge: it is about a span of time
that moves on, so it may fall.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from deployguard.incidents.metrics import Metrics
from deployguard.incidents.periods import Period
from deployguard.incidents.record import Incident
from deployguard.incidents.severity import LEVELS, name_of
from deployguard.incidents.tally import DURATIONS, Tally

__all__ = ["CONTENT_TYPE", "as_csv", "as_dict", "openmetrics"]

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_FIELDS = ("deployments", "failed_deployments", "deployment_frequency", "change_failure_rate")
_SUMMED = ("n", "mean", "median", "p90")

Sample = tuple[Mapping[str, str], float | None]


def as_dict(metrics: Metrics) -> dict[str, Any]:
    """Plain data for JSON: every period, the whole, trends, causes, and each incident's times."""
    return {
        "by": metrics.kind,
        "service": metrics.service,
        "environment": metrics.environment,
        "since": metrics.periods[0].start,
        "until": metrics.periods[-1].end,
        "periods": [
            {"period": span.name, "start": span.start, "end": span.end, "whole": span.whole}
            | one.as_dict()
            for span, one in zip(metrics.periods, metrics.tallies, strict=True)
        ],
        "total": metrics.whole.as_dict(),
        "compared": list(metrics.compared or ()),
        "trends": [dict(one.__dict__) for one in metrics.trends],
        "causes": [dict(one.__dict__) for one in metrics.causes],
        "incidents": [one.as_dict() for one in metrics.incidents],
    }


def as_csv(metrics: Metrics) -> str:
    """A row for each period and one for all of them; durations in seconds, empty for none."""
    text = io.StringIO()
    columns = [f"{name}_{part}" for name in DURATIONS for part in _SUMMED]
    head = ["period", "start", "end", *_FIELDS, "incidents", *LEVELS.values(), *columns]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for span, one in zip(metrics.periods, metrics.tallies, strict=True):
        writer.writerow(_row(span, one))
    first, last = metrics.periods[0], metrics.periods[-1]
    writer.writerow(_row(Period("all", first.start, last.end, whole=False), metrics.whole))
    return text.getvalue()


def _row(span: Period, one: Tally) -> list[Any]:
    data = one.as_dict()
    summed = [getattr(one.durations[name], part) for name in DURATIONS for part in _SUMMED]
    levels = [one.severities.get(name, 0) for name in LEVELS.values()]
    fields = [data[name] for name in _FIELDS]
    return [span.name, f"{span.start:.0f}", f"{span.end:.0f}", *fields, one.incidents, *levels] + [
        "" if value is None else value for value in summed
    ]


def openmetrics(metrics: Metrics, ongoing: Iterable[Incident], now: float) -> str:
    """Every measure by service and environment, and how the ongoing incidents stand."""
    return "".join(f"{line}\n" for line in _lines(metrics, list(ongoing), now))


def _lines(metrics: Metrics, ongoing: list[Incident], now: float) -> Iterator[str]:
    groups = [
        ({"service": service, "environment": environment}, one)
        for (service, environment), one in metrics.groups.items()
    ]
    begun: list[Sample] = [({}, metrics.periods[0].start)]
    yield from _family("window_start_seconds", "seconds", "Since when the others count.", begun)
    yield from _family(
        "deployments",
        "",
        "Deployments in the window, by how they ended.",
        [
            ({**labels, "result": result}, float(count))
            for labels, one in groups
            for result, count in (
                ("failed", one.failed_deployments),
                ("succeeded", one.deployments - one.failed_deployments),
            )
        ],
    )
    yield from _family(
        "deployment_frequency",
        "",
        "Deployments a day that ended with the new version live.",
        [(labels, one.frequency) for labels, one in groups],
    )
    yield from _family(
        "change_failure_ratio",
        "ratio",
        "Share of deployments that failed.",
        [(labels, one.change_failure_rate) for labels, one in groups],
    )
    for name, words in DURATIONS.items():
        metric = name if name == "lead_time" else f"{name}_time"
        yield from _family(
            f"{metric}_seconds",
            "seconds",
            f"{words.capitalize()}: mean, median and p90.",
            [
                ({**labels, "statistic": part}, getattr(one.durations[name], part))
                for labels, one in groups
                for part in _SUMMED[1:]
            ],
        )
        yield from _family(
            f"{metric}_samples",
            "",
            f"{words.capitalize()}: how many there were.",
            [(labels, float(one.durations[name].n)) for labels, one in groups],
        )
    yield from _family(
        "incidents",
        "",
        "Incidents detected in the window.",
        [
            ({**labels, "severity": level}, float(one.severities.get(level, 0)))
            for labels, one in groups
            for level in LEVELS.values()
        ],
    )
    yield from _family(
        "incidents_ongoing",
        "",
        "Incidents that are not over.",
        [
            (
                {"severity": name_of(level), "overdue": word},
                float(
                    sum(one.severity == level and bool(one.overdue(now)) == late for one in ongoing)
                ),
            )
            for level in LEVELS
            for late, word in ((False, "no"), (True, "yes"))
        ],
    )
    yield "# EOF"


def _family(name: str, unit: str, words: str, samples: Iterable[Sample]) -> Iterator[str]:
    name = f"deployguard_{name}"
    yield f"# TYPE {name} gauge"
    if unit:
        yield f"# UNIT {name} {unit}"
    yield f"# HELP {name} {words}"
    for labels, value in samples:
        if value is not None:
            shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
            yield f"{name}{{{shown}}} {value!r}" if shown else f"{name} {value!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
