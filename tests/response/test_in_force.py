"""What is in force is read from the timeline: begun counts, heard or not."""

from __future__ import annotations

from typing import Any

import yaml

from deployguard.incidents.record import Entry
from deployguard.plan.respond import Respond
from deployguard.response.containment import in_force
from tests.docs.pages import ROOT, blocks


def timeline(*said: tuple[str, dict[str, Any]]) -> list[Entry]:
    """Entries in their order."""
    return [
        Entry(number, 100.0 + number, 100.0 + number, kind, "ann", "", detail)
        for number, (kind, detail) in enumerate(said, 1)
    ]


def begun(identifier: str, *hosts: str) -> tuple[str, dict[str, Any]]:
    """The intent."""
    detail = {"id": identifier, "step": identifier, "hosts": list(hosts), "undo": ["undo"]}
    return "containing", detail


def ended(identifier: str) -> tuple[str, dict[str, Any]]:
    """What became of it."""
    return "contained", {"id": identifier, "failed": {}}


def released(identifier: str, *hosts: str) -> tuple[str, dict[str, Any]]:
    """Taken back there."""
    return "released", {"id": identifier, "hosts": list(hosts), "failed": {}}


def test_what_was_begun_counts() -> None:
    """Also where the controller died before it heard how it ended."""
    (one,) = in_force(timeline(("noted", {}), begun("a", "web1", "web2")))
    assert (one.step, one.hosts, one.certain) == ("a", ("web1", "web2"), False)
    (one,) = in_force(timeline(begun("a", "web1"), ended("a")))
    assert one.certain


def test_host_by_host() -> None:
    """It stays in force where the undo did not work, and goes on in the order it was done."""
    entries = timeline(
        begun("a", "web1", "web2"),
        ended("a"),
        begun("b", "web1"),
        released("a", "web1"),
    )
    assert [(one.id, one.hosts) for one in in_force(entries)] == [
        ("b", ("web1",)),
        ("a", ("web2",)),
    ]
    assert in_force([*entries, *timeline(released("x", "web1"))]) == in_force(entries)
    gone = timeline(begun("a", "web1"), released("a", "web1"), ended("a"))
    assert in_force(gone) == []


def test_the_steps_that_the_page_shows() -> None:
    """They are valid, and all that the page names is among them."""
    (text,) = blocks(ROOT / "docs" / "response.md", "yaml")
    respond = Respond.model_validate(yaml.safe_load(text)["respond"])
    assert len(respond.contain) == 6 and len(respond.mitigate) == 1
    for step in (*respond.contain, *respond.mitigate):
        assert (step.undo is None) != (step.undo_less is None)
