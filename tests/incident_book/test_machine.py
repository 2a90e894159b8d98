"""The table of states: what it allows is done and written down, the rest changes nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployguard.errors import UsageError
from deployguard.incidents.book import Book
from deployguard.incidents.change import rebuilt
from deployguard.incidents.entries import Opening
from deployguard.incidents.machine import (
    EVENTS,
    ONGOING,
    PAST,
    STATES,
    TRANSITIONS,
    Event,
    State,
    step,
)
from deployguard.store.journal import SqliteJournal

NOON = 1795262400.0

#: The table once more, drawn by hand: ``(state, event): state``; everything else is an error.
DRAWN = """
open          acknowledge acknowledged   mitigate mitigated   resolve resolved   cancel cancelled
acknowledged                             mitigate mitigated   resolve resolved   cancel cancelled
mitigated     acknowledge mitigated      reopen open          resolve resolved   cancel cancelled
resolved      close closed               reopen open
closed        reopen open
cancelled     reopen open
"""


def drawn() -> dict[tuple[str, str], str]:
    """The drawing as a table."""
    found = {}
    for line in DRAWN.strip().splitlines():
        state, *rest = line.split()
        for event, following in zip(rest[::2], rest[1::2], strict=True):
            found[state, event] = following
    return found


def test_the_table_is_the_one_that_was_drawn() -> None:
    """Every pair of a state and an event, the forbidden ones included."""
    assert drawn() == TRANSITIONS
    for state in STATES:
        for event in EVENTS:
            if (state, event) in TRANSITIONS:
                assert step("INC-1", state, event) == TRANSITIONS[state, event]
                continue
            with pytest.raises(UsageError) as caught:
                step("INC-1", state, event)
            assert caught.value.message == f"INC-1 is {state}; it cannot be {PAST[event]}"
            assert caught.value.hint.startswith("`deployguard incident ")


def test_every_state_is_reached_and_none_is_a_trap() -> None:
    """From ``open`` to each, and from each back to ``open``."""

    def reach(start: State) -> set[State]:
        seen, left = {start}, [start]
        while left:
            here = left.pop()
            new = {to for (of, _), to in TRANSITIONS.items() if of == here} - seen
            seen |= new
            left += new
        return seen

    assert reach("open") == set(STATES)
    assert all("open" in reach(state) for state in STATES)
    assert set(ONGOING) == {of for of, event in TRANSITIONS if event == "cancel"}


@contextmanager
def a_book() -> Iterator[tuple[Book, list[float]]]:
    """An empty book in a file of its own, and its clock."""
    clock = [NOON]
    with tempfile.TemporaryDirectory() as folder:
        journal = SqliteJournal(Path(folder) / "journal.db")
        yield Book(journal, actor="ann", clock=lambda: clock[0]), clock
        journal.close()


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(EVENTS), st.booleans(), st.integers(0, 7200)), max_size=12
    ),
    level=st.sampled_from([1, 2, 3, 4]),
)
def test_any_night(steps: list[tuple[Event, bool, int]], level: int) -> None:
    """Whatever people try in whatever order: the state is the table's, an error leaves the incident
    and its timeline as they were, and the timeline alone adds up to the incident."""
    with a_book() as (book, clock):
        name = book.open(Opening("down", level)).id  # type: ignore[arg-type]
        for event, person, wait in steps:
            clock[0] += wait
            before, entries = book.lookup.get(name), book.lookup.timeline(name)
            wanted = TRANSITIONS.get((before.state, event))
            if event == "acknowledge" and before.acknowledged_at is not None:
                wanted = None
            if wanted is None:
                with pytest.raises(UsageError):
                    book.move(name, event, person=person)
                assert book.lookup.get(name) == before
                assert book.lookup.timeline(name) == entries
                continue
            after = book.move(name, event, person=person)
            assert after.state == wanted
            assert after == book.lookup.get(name) == rebuilt(book.lookup.timeline(name))
            assert book.lookup.timeline(name)[:-1] == entries
            assert book.lookup.timeline(name)[-1].kind == PAST[event]
            assert (after.acknowledged_at is None) or after.acknowledged_by == "ann"
            moments = [after.clock_at, after.mitigated_at, after.resolved_at, after.closed_at]
            known = [moment for moment in moments if moment is not None]
            assert known == sorted(known)
            if after.state in ("resolved", "closed"):
                assert after.mitigated_at is not None and after.resolved_at is not None
            if not person and event == "mitigate":
                assert after.acknowledged_at == before.acknowledged_at
