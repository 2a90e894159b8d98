"""The live display's contents: which host is where, and which rows a small terminal shows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from deployguard.cli.board import Board
from deployguard.rollout.outcome import PHASES, Event


def events(*steps: tuple[str, str, str]) -> list[Event]:
    """Events of (host, phase, status)."""
    return [
        Event(float(at), phase, status, host)  # type: ignore[arg-type]
        for at, (host, phase, status) in enumerate(steps)
    ]


def board_after(hosts: list[str], *steps: tuple[str, str, str]) -> Board:
    """A board that has seen these steps."""
    board = Board(hosts)
    for event in events(*steps):
        board(event)
    return board


def test_rows_are_in_the_plans_order() -> None:
    """A host keeps its place whatever happens on the others."""
    board = board_after(["b", "a"], ("a", "connect", "done"), ("b", "connect", "started"))
    rows, left = board.rows(10)
    assert [row.host for row in rows] == ["b", "a"]
    assert left == ""


def test_restore_column_only_in_a_rescue() -> None:
    """A deploy that goes well shows no column for what did not happen."""
    assert "restore" not in board_after(["a"], ("a", "check", "done")).phases
    assert board_after(["a"], ("a", "restore", "started")).phases == list(PHASES)


def test_trouble_is_never_hidden() -> None:
    """With more hosts than rows, failed hosts are shown and the rest is counted."""
    hosts = [f"web{i}" for i in range(60)]
    steps = [(host, "stage", "done") for host in hosts]
    board = board_after(hosts, *steps, ("web57", "check", "failed"), ("web3", "switch", "started"))
    rows, left = board.rows(5)
    assert {"web57", "web3"} <= {row.host for row in rows}
    assert len(rows) == 4
    assert left == "+ 56 more: 56 stage"


def test_headline_counts_every_host_once() -> None:
    """The headline says how many committed, failed, were restored and wait."""
    board = board_after(
        ["a", "b", "c", "d"],
        ("a", "commit", "done"),
        ("b", "check", "failed"),
        ("c", "check", "failed"),
        ("c", "restore", "done"),
    )
    assert board.headline() == "1 committed, 1 failed, 1 restored, 1 waiting"


steps = st.tuples(
    st.sampled_from([f"h{i}" for i in range(30)]),
    st.sampled_from([*PHASES, "report"]),
    st.sampled_from(["started", "progress", "done", "failed", "note"]),
)


@given(st.lists(steps, max_size=60), st.integers(min_value=1, max_value=40))
def test_height_is_kept(taken: list[tuple[str, str, str]], height: int) -> None:
    """Whatever happens, rows and the line about the rest fit into the height given."""
    board = board_after(["h0", "h1"], *taken)
    rows, left = board.rows(height)
    assert len(rows) + bool(left) <= max(height, 2)
    counted = sum(int(part.split()[0]) for part in board.headline().split(", "))
    assert counted == len(board.rows(1000)[0])
