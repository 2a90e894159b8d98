"""The state table: legal events lead where the table says, illegal ones change nothing."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployguard.onhost.state import machine


@pytest.mark.parametrize(("state", "event"), sorted(machine.TRANSITIONS))
def test_legal_event(state: str, event: str) -> None:
    """Every transition leads to a known state."""
    assert machine.step(state, event) == machine.TRANSITIONS[(state, event)]
    assert machine.step(state, event) in machine.STATES


@pytest.mark.parametrize(
    ("state", "event"),
    sorted(set(itertools.product(machine.STATES, machine.EVENTS)) - set(machine.TRANSITIONS)),
)
def test_illegal_event(state: str, event: str) -> None:
    """Everything outside the table is refused, naming state and event."""
    with pytest.raises(machine.IllegalEvent) as caught:
        machine.step(state, event)
    assert (caught.value.state, caught.value.event) == (state, event)


@given(st.lists(st.sampled_from(machine.EVENTS), max_size=40))
def test_never_leaves_the_table(events: list[str]) -> None:
    """Whatever comes in whatever order, the state is one of the table's, and an end is an end."""
    state = machine.IDLE
    ended = None
    for event in events:
        try:
            state = machine.step(state, event)
        except machine.IllegalEvent:
            pass
        assert state in machine.STATES
        if ended is not None:
            assert state == ended
        if state in machine.TERMINAL:
            ended = state


@given(st.lists(st.sampled_from(machine.EVENTS), max_size=40))
def test_no_commit_without_a_vote_and_no_switch_without_an_undo(events: list[str]) -> None:
    """``committed`` is only reached through ``prepared``, ``switched`` only through ``armed``."""
    state = machine.IDLE
    visited = [state]
    for event in events:
        try:
            state = machine.step(state, event)
        except machine.IllegalEvent:
            continue
        visited.append(state)
    if machine.COMMITTED in visited:
        assert machine.PREPARED in visited
    if machine.SWITCHED in visited:
        assert machine.ARMED in visited


def test_every_state_has_a_way_out_or_is_an_end() -> None:
    """No state but the terminal ones is a dead end."""
    leaving = {state for state, _ in machine.TRANSITIONS}
    assert set(machine.STATES) - leaving == set(machine.TERMINAL)
