"""Counted by hand: which deploys count and which failed, from when to when each time runs, periods,
trends, causes; then as JSON, CSV, OpenMetrics and a table."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from deployguard.incidents.lookup import Lookup
from deployguard.incidents.metrics import Metrics, measure
from deployguard.report.metrics import as_csv, as_dict, openmetrics
from deployguard.store.journal import Journal, SqliteJournal
from deployguard.store.postgres import PostgresJournal
from deployguard.web import queries
from tests.cli.conftest import Run, deployguard  # noqa: F401 - a fixture
from tests.metrics.known import DAY, NOVEMBER, NOW, OCTOBER, SEPTEMBER, Known
from tests.postgres import a_server


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def journal(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Journal]:
    """The store, of either kind, filled once."""
    opened: Journal
    if request.param == "sqlite":
        opened = SqliteJournal(tmp_path_factory.mktemp("metrics") / "journal.db")
        fill(Known(opened))
        yield opened
        opened.close()
        return
    with a_server() as server:
        opened = PostgresJournal(server.url)
        fill(Known(opened))
        yield opened
        opened.close()


def fill(known: Known) -> None:
    """Twelve deployments of the shop, of which four failed, and four incidents."""
    # October: four that are live; the lead times are 110 s, 210 s, 310 s and not known.
    for number, changed in enumerate((100, 200, 300, None)):
        at = OCTOBER + number * DAY
        known.deploy(at, changed_at=None if changed is None else at - changed)
    # November: two are live, three were rolled back, one needs a person, one turned out bad later.
    known.deploy(NOVEMBER + 1)
    known.deploy(NOVEMBER + 2)
    joined = [
        known.deploy(NOVEMBER + 100, "rolled_back"),
        known.deploy(NOVEMBER + 200, "rolled_back"),
    ]
    known.incident(
        NOVEMBER + 110, *joined, impact=5, ack=60, mitigated=20, resolved=600, cause="pool"
    )
    stuck = known.deploy(NOVEMBER + 1000, "needs_person")
    known.incident(NOVEMBER + 1010, stuck, impact=10, ack=100, mitigated=1000, severity=1)
    bad = known.deploy(NOVEMBER + 2000)
    fixed = known.deploy(NOVEMBER + 2500)
    slow: dict[str, Any] = {"origin": "person", "signature": ("checkout is slow",)}
    known.incident(
        NOVEMBER + 2400, bad, fixed, ack=200, mitigated=300, resolved=300, cause="pool", **slow
    )
    # None of these is a deployment.
    known.deploy(NOVEMBER + 3000, "refused")
    known.deploy(NOVEMBER + 3001, "unchanged")
    nothing = known.deploy(NOVEMBER + 3002, "rolled_back")
    known.incident(NOVEMBER + 3010, nothing, severity=3)
    # Nor does what was cancelled make a failure of one that is live.
    known.cancelled(NOVEMBER + 4010, known.deploy(NOVEMBER + 4000))
    # Another service, and what is too old.
    known.deploy(NOVEMBER + 5000, plan="blog")
    known.incident(
        NOVEMBER + 5000, service="blog", signature=("disk",), origin="person", severity=4
    )
    known.deploy(SEPTEMBER - 1)
    known.incident(SEPTEMBER - 1, mitigated=1)


@pytest.fixture
def found(journal: Journal) -> Metrics:
    """The shop in September, October and November."""
    return measure(journal, NOW, by="month", count=3, service="shop", environment="production")


def test_what_counts_as_a_deployment_and_as_a_failure(found: Metrics) -> None:
    """Those that touched something live; rolled back, stuck, or linked to what came after."""
    names = [period.name for period in found.periods]
    assert names == ["2026-09", "2026-10", "2026-11"]
    assert [(one.deployments, one.failed_deployments) for one in found.tallies] == [
        (0, 0),
        (4, 0),
        (8, 4),
    ]
    september, october, november = found.tallies
    assert september.change_failure_rate is None and september.frequency == 0
    assert october.frequency == pytest.approx(4 / 31)
    assert november.frequency == pytest.approx(4 / 20.5)
    assert november.change_failure_rate == 4 / 8
    assert found.whole.change_failure_rate == 4 / 12


def test_from_when_to_when_each_time_runs(found: Metrics) -> None:
    """Mean and median by hand; no 90th percentile of so few."""
    _, october, november = found.tallies
    lead = october.durations["lead_time"]
    assert (lead.n, lead.mean, lead.median, lead.p90) == (3, 210.0, 210.0, None)
    assert november.durations["lead_time"].n == 0
    seconds = {name: sorted(values) for name, values in november.values.items()}
    assert seconds == {
        "lead_time": [],
        # From the impact: 5 + 20, 10 + 1000; where that is not known from the detection: 300.
        "recovery": [25.0, 300.0, 1010.0],
        "detect": [5.0, 10.0],
        "acknowledge": [60.0, 100.0, 200.0],
        "mitigate": [20.0, 300.0, 1000.0],
        "resolve": [300.0, 600.0],
    }
    assert (november.durations["recovery"].mean, november.durations["recovery"].median) == (
        pytest.approx(1335 / 3),
        300.0,
    )
    assert november.durations["detect"].median == 7.5
    assert november.severities == {"critical": 1, "high": 2, "medium": 1}
    by_id = {one.incident: one for one in found.incidents}
    assert len(by_id) == 4
    assert [one.recovery for one in found.incidents] == [25.0, 1010.0, 300.0, None]


def test_causes_and_groups(journal: Journal, found: Metrics) -> None:
    """What somebody wrote, then the check that failed; each service by itself."""
    assert [(one.cause, one.incidents, one.share) for one in found.causes] == [
        ("check failed: web http http", 2, 0.5),
        ("pool", 2, 0.5),
    ]
    every = measure(journal, NOW, by="month", count=3)
    assert {key: (one.deployments, one.incidents) for key, one in every.groups.items()} == {
        ("blog", "production"): (1, 1),
        ("shop", "production"): (12, 4),
    }
    assert every.whole.deployments == 13
    assert "not written down" in [one.cause for one in every.causes]
    assert measure(journal, NOW, by="month", count=3, environment="staging").whole.deployments == 0


def test_too_few_to_say(found: Metrics) -> None:
    """September and October are over; four deployments are no trend."""
    assert found.compared == ("2026-09", "2026-10")
    assert {one.verdict for one in found.trends} == {"too few to say"}


def test_weeks_and_quarters(journal: Journal) -> None:
    """Weeks begin on Monday and are numbered as ISO 8601 does; the last one is not over."""
    weeks = measure(journal, NOW, by="week", count=4).periods
    assert [one.name for one in weeks] == ["2026-W44", "2026-W45", "2026-W46", "2026-W47"]
    assert [one.whole for one in weeks] == [True, True, True, False]
    assert weeks[-1].days == 5.5
    quarters = measure(journal, NOW, by="quarter", count=2)
    assert [one.name for one in quarters.periods] == ["2026-Q3", "2026-Q4"]
    assert [one.deployments for one in quarters.tallies] == [1, 13]


def test_lists_of_the_pages(journal: Journal) -> None:
    """Either kind of store answers what the pages ask of it."""
    first = queries.transactions(journal, 0)
    assert len(first.rows) == 17 and not first.more
    assert first.rows[0]["started_at"] > first.rows[-1]["started_at"]
    stuck = queries.transactions(journal, 0, plan="shop", status="needs_person").rows
    assert [row["started_at"] for row in stuck] == [NOVEMBER + 1000]
    assert queries.transactions(journal, 1).rows == () and queries.unended(journal) == []
    (one,) = queries.incidents(journal, 0, service="shop", severity="critical").rows
    assert one.detected_at == NOVEMBER + 1010
    asked = {"plan": "", "environment": "", "status": ""}
    found = {one.name: one.values for one in queries.choices(journal, "transactions", asked)}
    assert found["plan"] == ("blog", "shop") and found["environment"] == ("production",)


def test_openmetrics(journal: Journal, found: Metrics) -> None:
    """Prometheus' own parser takes it, strict and old, and finds the numbers."""
    every = measure(journal, NOW, by="month", count=3)
    text = openmetrics(every, Lookup(journal).ongoing(), NOW)
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    shop = (("environment", "production"), ("service", "shop"))

    def value(name: str, **labels: str) -> float:
        return float(samples[f"deployguard_{name}", tuple(sorted((*shop, *labels.items())))])

    assert value("deployments", result="failed") == 4
    assert value("deployments", result="succeeded") == 8
    assert value("change_failure_ratio") == pytest.approx(4 / 12)
    assert value("recovery_time_seconds", statistic="median") == 300
    assert value("recovery_time_samples") == 3
    assert value("incidents", severity="critical") == 1
    late = (("overdue", "yes"), ("severity", "critical"))
    assert samples["deployguard_incidents_ongoing", late] == 1
    assert samples["deployguard_window_start_seconds", ()] == SEPTEMBER
    if shutil.which("promtool"):
        checked = subprocess.run(
            ["promtool", "check", "metrics"],
            input=text,
            text=True,
            capture_output=True,
            check=False,
        )
        assert "error while linting" not in checked.stderr and checked.returncode in (0, 3)


def test_csv_and_json(found: Metrics) -> None:
    """A row for each period and one for all; JSON holds the same."""
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert [row["period"] for row in rows] == ["2026-09", "2026-10", "2026-11", "all"]
    assert (rows[2]["deployments"], rows[2]["failed_deployments"]) == ("8", "4")
    assert (rows[2]["recovery_median"], rows[2]["recovery_p90"]) == ("300.0", "")
    data = json.loads(json.dumps(as_dict(found)))
    assert data["periods"][2]["recovery"]["n"] == 3 and data["total"]["deployments"] == 12
    assert data["incidents"][0]["severity"] == "high"


def test_the_command(deployguard: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """A table for people, JSON for programs, a file for a collector."""
    monkeypatch.setattr("time.time", lambda: NOW)
    journal = SqliteJournal(tmp_path / "controller-state" / "journal.db")
    fill(Known(journal))
    journal.close()
    ran = deployguard("metrics", "--periods", "3", "--service", "shop")
    lines: list[Any] = [line.split() for line in ran.err.splitlines()]
    assert ran.code == 0 and ran.out == ""
    assert ["deployments", "0", "4", "8", "12"] in lines
    assert ["change", "failure", "rate", "-", "0%", "50%", "33%"] in lines
    assert ["time", "to", "acknowledge", "3", "2", "min", "100", "s", "-"] in lines
    assert "too few to say" in ran.err
    assert "nothing is on record" not in ran.err
    slip = deployguard("metrics", "--service", "shpo", "--environment", "production")
    assert 'nothing is on record of the service shpo; did you mean "shop"?' in slip.err
    assert "of the environment" not in slip.err
    ran = deployguard("metrics", "--periods", "3", "--service", "shop", "--json")
    assert ran.lines[0]["total"]["failed_deployments"] == 4
    file = tmp_path / "deployguard.prom"
    asked = ("metrics", "--periods", "3", "--format", "openmetrics")
    assert deployguard(*asked, "-o", file).code == 0
    assert file.read_text() == deployguard(*asked).out
    assert file.read_text().endswith("# EOF\n")
    assert deployguard("metrics", "-o", file).code == 2
    assert file.stat().st_mode & 0o777 == 0o644, "a collector is somebody else"
    refused = deployguard(*asked, "-o", file / "below")
    assert refused.code == 2 and "cannot be written" in refused.err
