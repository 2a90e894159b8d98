"""``explain``: every code, by number and by every name it goes by."""

from __future__ import annotations

import pytest

from deployguard.errors import EXPLANATIONS, ExitCode
from tests.cli.conftest import Run


def test_every_code_is_explained() -> None:
    """A code that nobody explains is a code that nobody understands."""
    assert list(EXPLANATIONS) == list(ExitCode)
    assert all(e.meaning and e.detail and e.act for e in EXPLANATIONS.values())


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("4", 4),
        ("0", 0),
        ("needs_person", 4),
        ("rolled-back", 3),
        ("RolledBack", 3),
        ("PlanInvalid", 2),
        ("Locked", 6),
        ("unchanged", 0),
        ("interrupted", 7),
        ("10", 10),
    ],
)
def test_by_number_and_by_name(deployguard: Run, word: str, code: int) -> None:
    """Numbers, outcomes and classes of errors all lead to the code."""
    ran = deployguard("explain", word, "--json")
    assert ran.code == 0
    assert [line["exit_code"] for line in ran.lines] == [code]
    assert EXPLANATIONS[ExitCode(code)].act in ran.err


def test_without_a_code_all_are_listed(deployguard: Run) -> None:
    """`deployguard explain` is the table."""
    ran = deployguard("explain", "--json")
    assert [line["exit_code"] for line in ran.lines] == [int(code) for code in ExitCode]
