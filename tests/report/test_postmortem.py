"""A document that people and the machine write together: neither spoils what the other wrote."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployguard.errors import ExitCode
from deployguard.evidence.timeline import parse_iso
from deployguard.incidents.record import Entry, Incident, Link
from deployguard.report.postmortem.blocks import blocks_of, renewed
from deployguard.report.postmortem.document import PARTS, blocks, document
from deployguard.report.postmortem.facts import Facts
from deployguard.report.postmortem.judge import judge
from deployguard.report.postmortem.page import page
from deployguard.rollout.outcome import Event, Override
from tests.cli.outcomes import finding, host, outcome, rolled_back

NOON = 1795262400.0


def incident(**changes: Any) -> Incident:
    """The shop was rolled back at noon, and Ann is at it."""
    values: dict[str, Any] = {
        "id": "INC-20261121-001",
        "state": "mitigated",
        "severity": 2,
        "title": "shop v2 failed in production",
        "service": "shop",
        "environment": "production",
        "origin": "deploy",
        "opened_at": NOON + 4,
        "detected_at": NOON + 2,
        "clock_at": NOON + 2,
        "acknowledge_by": NOON + 1802,
        "resolve_by": NOON + 14402,
        "impact_at": NOON,
        "mitigated_at": NOON + 3,
        "acknowledged_at": NOON + 3600,
        "acknowledged_by": "ann",
        "postmortem_by": NOON + 2 + 48 * 3600,
    }
    return Incident(**{**values, **changes})


def events(*hosts: str, **back: float) -> tuple[Event, ...]:
    """Switched at noon, failed after two seconds; ``back`` says which host was healthy when."""
    found = []
    for name in hosts:
        found.append(Event(NOON, "switch", "started", name))
        found.append(Event(NOON + 2, "check", "failed", name, "answered 503 | <b>bold</b>"))
        if name in back:
            detail = {"healthy_at": NOON + back[name]}
            found.append(Event(NOON + 3, "restore", "done", name, "restored", detail))
    return tuple(found)


def facts(**changes: Any) -> Facts:
    """What is on record."""
    deploy = rolled_back(
        timeline=events("web1", web1=2.5),
        hosts=(host("web1"),),
        started_at=NOON - 1,
        ended_at=NOON + 4,
    )
    values: dict[str, Any] = {
        "incident": incident(),
        "entries": (
            Entry(1, NOON + 4, NOON + 4, "opened", "deployguard", "high"),
            Entry(2, NOON + 3600, NOON + 3600, "acknowledged", "ann", "on it"),
        ),
        "links": (Link("transaction", deploy.transaction, NOON + 4),),
        "similar": (),
        "deploys": (deploy,),
        "written_at": NOON + 7200,
    }
    return Facts(**{**values, **changes})


def plain(text: str) -> str:
    """Nothing is secret here."""
    return text


WORDS = st.text(st.characters(blacklist_categories=("Cs",)), max_size=60)


@given(written=st.dictionaries(st.sampled_from(PARTS), WORDS, max_size=6), later=WORDS)
def test_what_people_wrote_stays_to_the_letter(written: dict[str, str], later: str) -> None:
    """Whatever they write wherever, a later draft changes the machine's blocks and nothing else."""
    draft = document(facts(), plain)
    for part, text in written.items():
        text = text.replace("<!-- deployguard:", "")
        draft = draft.replace(f"# {part}\n", f"# {part}\n{text}\n", 1)
    entry = Entry(3, NOON + 7200, NOON + 7200, "noted", "bob", later)
    now = facts(entries=(*facts().entries, entry))
    again = renewed(draft, blocks(now, plain))
    assert (
        re.split(r"<!-- deployguard:(?:begin|end).*?-->", draft)[::2]
        == (re.split(r"<!-- deployguard:(?:begin|end).*?-->", again)[::2])
    )
    assert all(block.true for block in blocks_of(again).values())
    assert blocks_of(again).keys() == blocks_of(draft).keys()
    assert renewed(again, blocks(now, plain)) == again


@given(text=st.text(st.characters(blacklist_categories=("Cs",)), max_size=200))
def test_no_text_breaks_out(text: str) -> None:
    """What a host says is in its cell, in no other block, and no mark of ours."""
    deploy = rolled_back(
        timeline=(Event(NOON, "check", "failed", "web1", text),), findings=(finding(message=text),)
    )
    made = document(facts(deploys=(deploy,), incident=incident(title=text or "x")), plain)
    known = blocks_of(made)
    assert list(known) == list(blocks_of(document(facts(), plain)))
    assert all(block.true for block in known.values())
    rows = [row for row in known["timeline"].text.splitlines() if row.startswith("|")]
    assert all(len(re.split(r"(?<!\\)(?:\\\\)*\|", row)) == 7 for row in rows)
    html = page(made, judge(made), NOON)
    assert "<script" not in html.lower().replace("&lt;script", "")
    assert html.count("<table>") == made.count("\n|---|") + made.count("\n| --- |")


@given(text=st.text(max_size=500))
def test_any_file_can_be_judged(text: str) -> None:
    """It is not finished, whatever it is."""
    assert not judge(text).finished
    assert "<h1>" in page("# x\n" + text, judge(text), NOON)


def test_a_secret_is_in_no_block() -> None:
    """Redacted before it is hashed, so that the block is true as it stands."""
    deploy = rolled_back(timeline=(Event(NOON, "check", "failed", "web1", "password hunter2"),))
    made = document(
        facts(deploys=(deploy,)), lambda text: text.replace("hunter2", "[redacted:password:aaaaaa]")
    )
    assert "hunter2" not in made and "[redacted:password:aaaaaa]" in made
    assert all(block.true for block in blocks_of(made).values())


def test_hosts_that_are_not_back() -> None:
    """No box is ticked for them, no moment is made up, and it says so."""
    deploy = outcome(
        ExitCode.NEEDS_PERSON,
        "needs_person",
        hosts=(host("web1"), host("web2", "lost", verified=False, healthy=False)),
        timeline=events("web1", "web2", web1=2.5),
        started_at=NOON - 1,
        ended_at=NOON + 4,
    )
    made = blocks_of(
        document(facts(deploys=(deploy,), incident=incident(mitigated_at=None)), plain)
    )
    assert "- [ ] Not proven: web2" in made["data"].text
    assert "- [x] Every file of the old version is back on web1" in made["data"].text
    assert "nobody saw it" in made["downtime"].text and "2.5 s" in made["downtime"].text
    assert "longer than anybody saw" in made["about"].text
    assert "Not every host is proven to be back" in made["summary"].text
    assert "last host restored" not in made["durations"].text
    assert "was back, verified" not in made["done"].text
    assert "Mitigated | not yet" in made["response"].text


def test_targets_that_were_missed() -> None:
    """An hour is too long for half an hour; half an hour is not."""
    made = blocks_of(document(facts(), plain))["response"].text
    assert (
        "| Acknowledged | 2026-11-21T13:00:00Z | 3598.0 s | by 2026-11-21T12:30:02Z: missed |"
        in made
    )
    kept = incident(acknowledged_at=NOON + 1800)
    assert ": kept |" in blocks_of(document(facts(incident=kept), plain))["response"].text


def test_what_may_have_contributed() -> None:
    """Guards that were overridden, and layers that disagree; otherwise that there is nothing."""
    over = Override("ci", "it is urgent", "ann", ("v2 is not green",))
    torn = finding(layer="disagreement", message="says online, port closed", critical=False)
    deploy = rolled_back(overrides=(over,), findings=(finding(), torn))
    made = blocks_of(document(facts(deploys=(deploy,)), plain))["factors"].text
    assert "- The guard ci was overridden by ann: it is urgent" in made
    assert "- Layers disagreed on web1: says online, port closed" in made
    none = blocks_of(document(facts(), plain))["factors"].text
    assert none.startswith("Nothing is on record")


@pytest.mark.parametrize("depth", ["###", "####"])
def test_deeper_headings_belong_to_their_part(depth: str) -> None:
    """Who writes more than a paragraph may divide it."""
    draft = document(facts(), plain)
    written = re.sub(
        r"(### Business\n)\n.*\n", rf"\1\n#{depth} Money\n\nNone was lost.\n", draft, count=1
    )
    left = judge(written).open
    assert ("Business is not written" in left) is False
    assert "Users is not written" in left


def test_when_it_is_due() -> None:
    """48 hours after the detection, from the file alone."""
    verdict = judge(document(facts(), plain))
    assert verdict.due_at == parse_iso("2026-11-23T12:00:02Z")
    assert verdict.state(NOON) == "open"
    assert verdict.state(NOON + 49 * 3600) == "overdue"
    assert judge(document(facts(incident=incident(postmortem_by=None)), plain)).due_at is None
