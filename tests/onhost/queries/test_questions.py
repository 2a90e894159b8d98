"""What guards ask of a host: its limits, and whether a backup opens."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict

import pytest

from deployguard.onhost.queries import backups
from deployguard.onhost.queries.questions import answer_all
from deployguard.onhost.system import System
from tests.onhost.backup_files import KINDS


def look(pattern: Path, **options: Any) -> Dict[str, Any]:
    """The answer about the backups that match."""
    asked: Dict[str, Any] = {"younger_than": 3600.0, "least": 0, "opens": True, "deadline": 10.0}
    return backups.look(dict(asked, pattern=str(pattern), **options), System())


@pytest.mark.parametrize("kind", KINDS)
def test_a_backup_opens_or_does_not(kind: str, tmp_path: Path) -> None:
    """Every kind is read to its end: one that was cut off does not pass."""
    path = tmp_path / ("backup." + kind)
    KINDS[kind].good(path)
    found = look(path)
    assert (found["path"], found["broken"]) == (str(path), "")
    assert abs(found["age"]) < 60 and found["bytes"] == path.stat().st_size
    KINDS[kind].broken(path)
    assert look(path)["broken"]
    assert look(path, opens=False)["broken"] == ""


def test_an_archive_that_ends_behind_a_member(tmp_path: Path) -> None:
    """Cut off between two members it reads well, and is not whole."""
    path = tmp_path / "a.tar"
    KINDS["tar"].good(path)
    whole = path.read_bytes().rstrip(b"\0")
    path.write_bytes(whole + b"\0" * (-len(whole) % 512))
    assert "was cut off" in look(path)["broken"]


def test_a_dump_of_postgresql_is_listed(tmp_path: Path) -> None:
    """What is called a dump and is none does not open, whether or not `pg_restore` is there."""
    path = tmp_path / "shop.dump"
    path.write_bytes(b"PGDMP and then nothing that pg_restore knows")
    assert "pg_restore" in look(path)["broken"]


def test_a_folder_is_a_backup_too(tmp_path: Path) -> None:
    """An empty one is none; its size is that of what is in it."""
    folder = tmp_path / "base"
    folder.mkdir()
    assert look(folder)["broken"] == "it is an empty directory"
    (folder / "data").write_bytes(b"x" * 100)
    found = look(folder)
    assert (found["broken"], found["bytes"]) == ("", 100)


def test_the_newest_that_is_good(tmp_path: Path) -> None:
    """A few of those that are not are gone over; with none the newest is told of."""
    for number in range(4):
        path = tmp_path / ("%d.sql" % number)
        KINDS["sql"].good(path) if number < 2 else KINDS["sql"].broken(path)
        os.utime(str(path), (1_000_000 + number, 1_000_000 + number))
    old = {"younger_than": 1e12}
    assert look(tmp_path / "*.sql", **old)["path"].endswith("1.sql")
    (tmp_path / "1.sql").unlink()
    (tmp_path / "0.sql").unlink()
    assert look(tmp_path / "*.sql", **old)["path"].endswith("3.sql")
    assert look(tmp_path / "*.none") == {"count": 0}


def test_one_that_takes_too_long(tmp_path: Path) -> None:
    """The deadline is for reading as well as for a command."""
    path = tmp_path / "a.sql"
    KINDS["sql"].good(path)
    assert look(path, deadline=-1.0)["broken"] == "it could not be read to its end in time"
    slow = look(path, deadline=0.2, opens=["tail", "--follow", "{path}"])
    assert "did not end within" in slow["broken"]


def test_a_command_opens_it(tmp_path: Path) -> None:
    """Its path stands where the plan says so, also with a space in it."""
    path = tmp_path / "a b.bin"
    path.write_bytes(b"MAGIC")
    assert look(path, opens=["grep", "-q", "MAGIC", "{path}"])["broken"] == ""
    assert "status 1" in look(path, opens=["grep", "-q", "OTHER", "{path}"])["broken"]


def test_limits_of_this_machine() -> None:
    """Memory and open files, as the kernel says; a unit that is not there has no bound."""
    asked = {"id": "0/web", "kind": "limits", "unit": "no-such.service"}
    found = answer_all([asked], System())["0/web"]
    assert found["memory"] > 1024**2
    files = found["open_files"]
    assert files["most"] > files["used"] > 0 and files["process"] > 0
    assert "unit" not in files


def test_a_question_nobody_understands() -> None:
    """A newer controller hears that, instead of nothing."""
    answers = answer_all([{"id": "1/x", "kind": "phase of the moon"}], System())
    assert "does not know how to find out" in answers["1/x"]["unknown"]
