"""The table of scenarios: names, what is chosen, and points that the code comes to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deployguard.drills.scenarios import SCENARIOS, Scenario, chosen
from deployguard.errors import UsageError
from deployguard.onhost.faults import ACTIONS
from tests.docs.pages import table, words

ROOT = Path(__file__).parents[2]


def test_names_are_given_once() -> None:
    """A name stands for one scenario, and no name is a group's as well."""
    names = [scenario.name for scenario in SCENARIOS]
    assert len(set(names)) == len(names)
    assert not {s.group for s in SCENARIOS if s.when} & set(names)


def test_all_are_chosen_by_default() -> None:
    """In the order of the table."""
    assert chosen() == SCENARIOS


def test_names_and_groups() -> None:
    """Both may be given, and nothing is run twice."""
    found = chosen(["interrupted", "interrupted-after-vote", "bad-health"])
    assert [s.name for s in found] == [
        "bad-health",
        "interrupted-after-switch",
        "interrupted-after-vote",
    ]


def test_a_slip_is_answered() -> None:
    """With the name that was meant."""
    with pytest.raises(UsageError) as caught:
        chosen(["disk-ful"])
    assert caught.value.hint == 'did you mean "disk-full"?'


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_points_are_reached(scenario: Scenario) -> None:
    """A misspelt point would never be reached, and the drill would show nothing."""
    faults = scenario.faults("web1", "shop")
    assert scenario.controller or scenario.host or scenario.unhealthy
    verbs = {words(row[0])[0] for row in table(ROOT / "docs" / "protocol.md", "verbs")}
    for fault in faults["controller"]:
        found = re.fullmatch(r"(before|after) (decide|(\w+) web1)", fault["point"])
        assert found, fault
        assert found[3] is None or found[3] in verbs
    kinds = {words(row[0])[0] for row in table(ROOT / "docs" / "protocol.md", "records")}
    for fault in faults["hosts"]["web1"]:
        found = re.fullmatch(r"(before|after) (\w+)( shop:tree)?", fault["point"])
        assert found and found[2] in kinds, fault
        assert fault["action"] in ACTIONS
    assert faults["incidents"] is False


@pytest.mark.docs
def test_scenarios_are_documented() -> None:
    """Every one of them with what it does, in the order of the table, and no other."""
    found = [words(row[0])[0] for row in table(ROOT / "docs" / "drill.md", "scenarios")]
    assert found == [scenario.name for scenario in SCENARIOS]
