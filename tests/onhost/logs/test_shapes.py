"""Lines and their shapes: what is the same, what is new, and what any text may do to the miner."""

from __future__ import annotations

from typing import List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployguard.onhost.logs.shapes import MAX_TEXT, MAX_WORDS, Miner, plain, words_of


def shapes(*lines: str) -> List[str]:
    """The shapes of these lines."""
    miner = Miner()
    for line in lines:
        miner.learn(line)
    return [str(shape) for shape in miner.shapes]


@pytest.mark.parametrize(
    ("line", "shape"),
    [
        ("2025-11-11T05:12:11.123Z ERROR order 4711 not found", "ERROR order <*> not found"),
        ("[2025-11-11 05:12:11,123] ERROR in app: x", "ERROR in app: x"),
        ("Nov  1 05:12:11 ERROR x", "ERROR x"),
        ("[Tue Nov 11 05:12:11 2025] [error] x", "[error] x"),
        ("ERROR 10.0.0.1:5432 refused after 250ms", "ERROR <*> refused after <*>"),
        ("ERROR id=550e8400-e29b-41d4-a716-44665544abcd", "ERROR id=<*>"),
        ("ERROR 550e8400-face-dead-beef-aaaaaaaaaaaa gone", "ERROR <*> gone"),
        ("ERROR at 0x7ffd12ab in foo()", "ERROR at <*> in foo()"),
        ("ERROR user=alice9 path=/a/b17/c", "ERROR user=<*> path=/a/<*>/c"),
        ("KeyError: 'telemetry'", "KeyError: 'telemetry'"),
        ('{"level": "error", "msg": "no order 17", "t": 1}', "error: no order <*>"),
        ('{"level": 50, "time": 12, "msg": "no way"}', "error: no way"),
        ('{"severity": "ERROR", "message": "x", "msg": 3}', "ERROR: x"),
        ('{"message": "x"}', "x"),
        ("{not json", "{not json"),
        ('{"level": "error"}', '{"level": "error"}'),
    ],
)
def test_what_varies_from_line_to_line_is_masked(line: str, shape: str) -> None:
    """Numbers, ids, addresses, the time; not names, which tell what is wrong."""
    assert shapes(line) == [shape]


def test_lines_that_say_the_same_are_one_shape() -> None:
    """Where they differ there is a variable from then on."""
    miner = Miner()
    for name in ("alice", "bob", "carol"):
        miner.learn(f"WARN login of {name} failed: bad password")
    (shape,) = miner.shapes
    assert str(shape) == "WARN login of <*> failed: bad password"
    assert shape.count == 3 and shape.example == "WARN login of alice failed: bad password"


def test_a_word_that_was_always_the_same_is_news_when_it_changes() -> None:
    """Only lines that show that a word varies make it a variable."""
    miner = Miner()
    miner.learn("ERROR cannot reach cache at 10.0.0.1")
    assert miner.knows("ERROR cannot reach cache at 10.9.9.9")
    assert not miner.knows("ERROR cannot reach database at 10.0.0.1")
    assert len(miner.shapes) == 1, "nothing is learnt from asking"
    miner.learn("ERROR cannot reach queue at 10.0.0.1")
    assert miner.knows("ERROR cannot reach database at 10.0.0.1")


def test_lines_that_differ_too_much_are_two_shapes() -> None:
    """Or have another number of words, or begin otherwise."""
    assert len(shapes("ERROR a b c d", "ERROR w x y z")) == 2
    assert len(shapes("ERROR a b c", "ERROR a b c d")) == 2
    assert len(shapes("ERROR a b c", "FATAL a b c")) == 2


def test_shapes_that_were_written_down_are_known_again() -> None:
    """The baseline goes over the wire and back."""
    lines = ["ERROR order 17 is gone", "ERROR login of a failed", "ERROR login of b failed"]
    again = Miner()
    again.remember(shapes(*lines))
    assert all(again.knows(line) for line in lines)
    assert again.knows("ERROR order 99 is gone") and again.knows("ERROR login of c failed")
    assert not again.knows("ERROR order 99 is back")


def test_a_log_of_too_many_kinds() -> None:
    """Those beyond the limit are not kept, and that is known."""
    miner = Miner(limit=10)
    for number in range(9):
        miner.learn(f"{'abcdefghij'[number]} one two three")
    assert not miner.full
    for letter in "klmnopq":
        miner.learn(f"{letter} one two three")
    assert miner.full and len(miner.shapes) == 10


LINES = st.one_of(
    st.text(max_size=300),
    st.text(alphabet="ab1 {}\"':<*>.-\t", max_size=300),
    st.from_regex(r"\{\"(msg|level)\": ?[^\n]{0,40}\}", fullmatch=True),
)


@given(lines=st.lists(LINES, max_size=60))
def test_any_lines_are_known_once_they_were_learnt(lines: List[str]) -> None:
    """By the miner that learnt them, and by one that was given its shapes; within the bounds."""
    miner = Miner(limit=20)
    for line in lines:
        miner.learn(line)
    assert len(miner.shapes) <= 20
    assert all(len(str(shape)) <= 4 * MAX_TEXT for shape in miner.shapes)
    if not miner.full:
        again = Miner()
        again.remember([str(shape) for shape in miner.shapes])
        assert len(again.shapes) == len(miner.shapes)
        for line in lines:
            assert miner.knows(line) and again.knows(line)


@given(line=st.text(max_size=5000))
def test_any_line_has_bounds(line: str) -> None:
    """However long it is."""
    words = words_of(line)
    assert len(words) <= MAX_WORDS and sum(map(len, words)) <= 4 * MAX_TEXT
    assert isinstance(plain(line), str)
