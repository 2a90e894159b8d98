"""The documentation of the command line is in step with the code."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from deployguard.cli.reference import pages
from deployguard.drills.report import DrillReport, HostDrilled, ScenarioDrilled
from deployguard.errors import Mistake
from deployguard.incidents.record import Entry, Incident, Link
from deployguard.incidents.statistics import Summary
from deployguard.incidents.tally import Cause, Timed, Trend
from deployguard.response.assessment import (
    Assessment,
    CheckSeen,
    Deploy,
    ErrorKind,
    HostSeen,
    LogSeen,
    Metric,
)
from deployguard.response.history import Estimate, Past
from deployguard.response.options import Option
from deployguard.rollout.outcome import PHASES, Event, Finding, HostOutcome, Outcome
from deployguard.rollout.preview import ComponentPreview, HostPreview, Preview
from deployguard.rollout.taken import Taken

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.mark.parametrize("name", ["cli.md", "exit-codes.md"])
def test_generated_pages_are_current(name: str) -> None:
    """Made again, the page is the same; if not: ``python -m deployguard.cli.reference``."""
    assert (DOCS / name).read_text() == pages(DOCS)[DOCS / name]


@pytest.mark.parametrize(
    "record",
    [
        Event,
        Outcome,
        HostOutcome,
        Finding,
        Preview,
        HostPreview,
        ComponentPreview,
        Mistake,
        DrillReport,
        ScenarioDrilled,
        HostDrilled,
        Incident,
        Entry,
        Link,
        Summary,
        Trend,
        Cause,
        Timed,
        Assessment,
        HostSeen,
        Deploy,
        CheckSeen,
        Metric,
        LogSeen,
        ErrorKind,
        Past,
        Taken,
        Option,
        Estimate,
    ],
)
def test_every_json_field_is_documented(record: type) -> None:
    """What a line of ``--json`` holds is in docs/cli.md."""
    text = (DOCS / "cli.md").read_text()
    fields = [field.name for field in dataclasses.fields(record)]
    missing = [field for field in fields if f"`{field}`" not in text]
    assert not missing


def test_every_phase_is_documented() -> None:
    """A program may show phases it has read about."""
    text = (DOCS / "cli.md").read_text()
    assert all(f"`{phase}`" in text for phase in PHASES)
