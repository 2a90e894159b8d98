"""Events become the rows that a post-mortem prints."""

from __future__ import annotations

from deployguard.evidence.timeline import iso, rows, span
from deployguard.rollout.outcome import Event

EVENTS = [
    Event(1702291802.5, "check", "failed", "web1", "port 3000 is closed"),
    Event(1702291800.0, "switch", "started", "web1"),
    Event(1702291801.0, "stage", "progress", "web1", "3 of 9 MB"),
    Event(1702291803.0, "restore", "done", "web1"),
    Event(1702291804.0, "restore", "done", "web2"),
]


def test_rows_are_in_the_order_of_time_in_utc() -> None:
    """With a word for what happened, and without the progress reports."""
    found = rows(EVENTS)
    assert [(row.time, row.event, row.failed) for row in found] == [
        ("2023-12-11T10:50:00Z", "Switching", False),
        ("2023-12-11T10:50:02Z", "Health check failed", True),
        ("2023-12-11T10:50:03Z", "Restored and verified", False),
        ("2023-12-11T10:50:04Z", "Restored and verified", False),
    ]
    assert found[1].details == "port 3000 is closed" and found[1].host == "web1"
    assert len(rows(EVENTS, progress=True)) == 5
    assert rows(EVENTS)[0].as_dict()["event"] == "Switching"


def test_milliseconds_where_they_matter() -> None:
    """A restore takes less than a second."""
    assert iso(1702291802.5, milliseconds=True) == "2023-12-11T10:50:02.500Z"


def test_the_span_from_detection_to_the_last_restored_host() -> None:
    """The first of the one to the last of the other, or nothing."""
    assert span(EVENTS, ("check", "failed"), ("restore", "done")) == 1.5
    assert span(EVENTS, ("check", "failed"), ("commit", "done")) is None


def test_an_unknown_phase_is_shown_as_it_is() -> None:
    """A journal of a later version."""
    event = Event(0.0, "verify", "done")  # type: ignore[arg-type]
    assert rows([event])[0].event == "verify done"
