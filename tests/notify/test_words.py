"""The texts: what each audience reads, and what it must not."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployguard.notify.settings import Settings
from deployguard.notify.words import lasted, shipped, words_for
from deployguard.plan.message import KINDS, SAMPLE, problem_of, rendered
from deployguard.plan.template import TemplateFault

AUDIENCES = ("team", "management", "customers", "partners")
SHOP = Settings("shop", "production", "Acme Shop")


@pytest.mark.parametrize("audience", AUDIENCES)
def test_every_kind_has_words(audience: str) -> None:
    """A title in one line for each kind, in each state, with what is empty left empty."""
    assert problem_of(shipped(audience)) is None
    nothing = {name: type(value)() for name, value in SAMPLE.items()}
    for kind in KINDS:
        for state in ("open", "acknowledged", "mitigated", "resolved", "closed", "cancelled"):
            facts = {**SAMPLE, "kind": kind, "state": state}
            for these in (facts, {**nothing, "kind": kind, "state": state}):
                title, text = words_for(SHOP, audience, these)
                assert title
                assert "\n" not in title
                assert "None" not in text


@pytest.mark.parametrize("audience", ["customers", "partners"])
def test_outsiders_read_nothing_of_the_inside(audience: str) -> None:
    """No host, no cause, no words of a deploy or of responders but those of an update."""
    inside = "web1: password rejected by db.internal"
    facts = {
        **SAMPLE,
        "title": inside,
        "text": inside,
        "cause": inside,
        "fix": inside,
        "commander": "ann",
        "service": "shop-backend",
        "links": {"forensics": "/srv/inside"},
    }
    for kind in KINDS:
        words = "\n".join(words_for(SHOP, audience, {**facts, "kind": kind}))
        for secret in ("web1", "db.internal", "ann", "shop-backend", "/srv/inside"):
            assert (secret in words) == (kind == "update" and secret in inside)


def test_customers_read_a_story() -> None:
    """From the first look to the end, under one title."""
    said = [
        words_for(SHOP, "customers", {**SAMPLE, "product": "Acme Shop", "kind": k, "state": s})
        for k, s in (
            ("opened", "open"),
            ("acknowledged", "acknowledged"),
            ("mitigated", "mitigated"),
            ("resolved", "resolved"),
        )
    ]
    assert said == [
        (
            "Problem with Acme Shop",
            "We are looking into a problem with Acme Shop. Some of what it does may not be "
            "available.",
        ),
        ("Problem with Acme Shop", "We are working on a solution."),
        ("Problem with Acme Shop", "Acme Shop works again. We are watching it closely."),
        (
            "Problem with Acme Shop",
            "The problem is solved. We are sorry for the trouble it caused.",
        ),
    ]


def test_the_team_reads_what_to_do() -> None:
    """The id, how it stands, and the command that stops the clock."""
    title, text = words_for(SHOP, "team", {**SAMPLE, "state": "open"})
    assert title == "[high] shop v1.2.4 failed in production"
    assert "INC-20261121-001 · open · since 2026-11-21T03:12:00Z · shop in production" in text
    assert "deployguard incident ack INC-20261121-001" in text


def test_words_of_the_plan() -> None:
    """They replace those of one audience; where they fail late, the shipped ones stand in."""
    own = Settings("shop", "production", "S", templates={"team": "{{ kind }}!\n{{ lasted }}"})
    assert words_for(own, "team", SAMPLE) == ("opened!", "8 s")
    assert words_for(own, "customers", SAMPLE) == words_for(SHOP, "customers", SAMPLE)
    broken = Settings("shop", "production", "S", templates={"team": "{{ links.forensics }}"})
    assert words_for(broken, "team", SAMPLE) == words_for(SHOP, "team", SAMPLE)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ incidnet }}", "incidnet"),
        ("{% if kind %}", "not well formed"),
        ("{{ ''.__class__ }}", 'there is no "__class__"'),
        ("{% if kind == 'opened' %}x{% endif %}", "it says nothing for joined"),
    ],
)
def test_a_template_with_a_mistake(source: str, message: str) -> None:
    """It is found when the plan is loaded, whatever kind of message it is in."""
    problem = problem_of(source)
    assert problem is not None
    assert message in problem[0]
    with pytest.raises(TemplateFault):
        rendered(source, {**SAMPLE, "kind": "joined"})


def test_every_name_is_documented() -> None:
    """What a template may use is on the page."""
    page = (Path(__file__).parents[2] / "docs" / "notifications.md").read_text()
    assert [name for name in (*SAMPLE, *KINDS, *AUDIENCES) if f"`{name}`" not in page] == []


def test_spans() -> None:
    """As people say them."""
    assert [lasted(seconds) for seconds in (0, 8.4, 89, 90, 3600, 5400, 7200, 90061)] == [
        *("0 s", "8 s", "89 s", "2 min", "60 min", "1 h 30 min", "2 h", "25 h 1 min"),
    ]
