"""The host's journal: whole records survive, torn tails go, damage in the middle is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployguard.onhost.state import machine, records
from deployguard.onhost.state.journal import Journal

_VALUES = st.dictionaries(
    st.text(max_size=8), st.one_of(st.integers(), st.text(max_size=20), st.none()), max_size=4
)


def _clock() -> float:
    return 1000.0


@given(st.lists(_VALUES, max_size=8))
def test_records_come_back(written: list[dict[str, Any]]) -> None:
    """What was encoded is parsed to the same, all of it."""
    data = b"".join(records.encode(record) for record in written)
    assert records.parse(data) == (written, len(data))


@given(st.lists(_VALUES, min_size=1, max_size=6), st.data())
def test_torn_tail(written: list[dict[str, Any]], data: st.DataObject) -> None:
    """Cut anywhere, the whole records before the cut are read and the rest is dropped."""
    lines = [records.encode(record) for record in written]
    whole = b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    parsed, good = records.parse(whole[:cut])
    assert parsed == written[: len(parsed)]
    assert good == sum(len(line) for line in lines[: len(parsed)])
    assert cut - good < len(lines[len(parsed)]) if len(parsed) < len(lines) else cut == good


@given(st.lists(_VALUES, min_size=2, max_size=6), st.data())
def test_damage_before_the_end_is_refused(
    written: list[dict[str, Any]], data: st.DataObject
) -> None:
    """One flipped bit in any record but the last is noticed."""
    lines = [bytearray(records.encode(record)) for record in written]
    victim = data.draw(st.integers(0, len(lines) - 2))
    place = data.draw(st.integers(0, len(lines[victim]) - 2))
    lines[victim][place] ^= 1 << data.draw(st.integers(0, 7))
    if b"\n" in lines[victim][:-1]:
        return  # the line fell apart into two damaged ones, which is refused as well
    with pytest.raises(records.JournalDamaged):
        records.parse(b"".join(bytes(line) for line in lines))


def test_one_write_is_torn_anywhere(tmp_path: Path) -> None:
    """Of records that are written together a power cut may leave the later; none of them counts."""
    path = tmp_path / "journal"
    journal = Journal(str(path), _clock)
    journal.enter(machine.BEGIN, "begun")
    journal.append("note", sync=False)
    journal.append("note", sync=False)
    journal.append("intent")
    journal.close()
    lines = path.read_bytes().splitlines(keepends=True)
    for lost in (1, 2):
        torn = lines[:lost] + [b"\0" * len(lines[lost][:-1]) + b"\n"] + lines[lost + 1 :]
        path.write_bytes(b"".join(torn))
        kinds = [record["kind"] for record in Journal(str(path), _clock).records]
        assert kinds == ["begun", "note"][:lost]
    # What was written afterwards shows that the damage is a later one.
    path.write_bytes(b"".join(torn) + records.encode({"kind": "note", "seq": 4}))
    with pytest.raises(records.JournalDamaged):
        Journal(str(path), _clock)


def test_state_survives_reopening(tmp_path: Path) -> None:
    """A new process sees the state and the records of the old one."""
    journal = Journal(str(tmp_path / "journal"), _clock)
    journal.enter(machine.BEGIN, "begun", epoch=3)
    journal.append("note", sync=False, text="x")
    journal.close()
    again = Journal(str(tmp_path / "journal"), _clock)
    assert again.state == machine.BEGUN
    assert [record["kind"] for record in again.records] == ["begun", "note"]
    assert again.last("begun") is not None


def test_appending_after_a_torn_tail(tmp_path: Path) -> None:
    """The tail is cut off before the next record, so that both can be read."""
    path = tmp_path / "journal"
    journal = Journal(str(path), _clock)
    journal.enter(machine.BEGIN, "begun")
    journal.close()
    with path.open("ab") as file:
        file.write(b'deadbeef {"kind":"half')
    again = Journal(str(path), _clock)
    again.enter(machine.STAGE, "staged")
    again.close()
    assert Journal(str(path), _clock).state == machine.STAGED


def test_illegal_event_writes_nothing(tmp_path: Path) -> None:
    """The journal has no record of what was refused."""
    journal = Journal(str(tmp_path / "journal"), _clock)
    with pytest.raises(machine.IllegalEvent):
        journal.enter(machine.COMMIT, "committed")
    journal.close()
    assert not (tmp_path / "journal").exists()
