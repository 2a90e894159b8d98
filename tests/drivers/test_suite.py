"""The conformance suite finds what is wrong with a driver: each mistake fails its test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deployguard.drivers.process import ProcessDriver
from deployguard.testing import DriverCase, DriverConformance
from tests.drivers.cases import process_case
from tests.drivers.spoilt import (
    Blind,
    Impure,
    Mute,
    NotData,
    NoUndo,
    Optimist,
    Placed,
    SameId,
    Shell,
    StartsThePlans,
)


@pytest.fixture
def case(tmp_path: Path) -> Iterator[DriverCase]:
    """A good driver, to be spoilt."""
    case = process_case(tmp_path)
    yield case
    case.stop()


@pytest.mark.parametrize(
    ("driver", "test"),
    [
        (Impure(), "test_it_is_pure"),
        (NotData(), "test_it_is_pure"),
        (NoUndo(), "test_every_change_has_an_undo"),
        (NoUndo(), "test_a_stopped_service_and_back"),
        (Shell(), "test_no_shell_is_composed"),
        (SameId(), "test_operations_are_well_formed"),
        (StartsThePlans(), "test_a_running_service_and_back"),
        (Optimist(), "test_the_probe_tells"),
        (Blind(), "test_a_running_service_and_back"),
        (Placed(), "test_questions_need_no_places"),
        (Mute(), "test_it_has_titles"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_mistake_is_found(case: DriverCase, driver: ProcessDriver, test: str) -> None:
    """The test that is for it fails; with the good driver all of them pass elsewhere."""
    with pytest.raises(AssertionError):
        getattr(DriverConformance(), test)(replace(case, driver=driver, patience=2.0))
