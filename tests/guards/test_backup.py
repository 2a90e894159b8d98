"""`backup`: there is one, it is young, and it opens."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.guards.conftest import Shop
from tests.onhost.backup_files import KINDS


@pytest.fixture
def folder(shop: Shop) -> Path:
    """Where backups go."""
    made = shop.site.root / "backups"
    made.mkdir()
    return made


def guard(folder: Path, **options: Any) -> dict[str, Any]:
    """The guard as a plan has it."""
    return {"backup": {"path": f"{folder}/*", "younger_than": "24h", **options}}


def aged(path: Path, hours: float) -> Path:
    """The file as if it had been written so many hours ago."""
    then = time.time() - hours * 3600
    os.utime(path, (then, then))
    return path


def test_no_good_backup_is_refused(shop: Shop, folder: Path) -> None:
    """None at all, one that is too old, too small, or does not open: each is said."""
    shop.guarded(guard(folder))
    shop.assert_refused("backup", f"nothing matches {folder}/*")
    KINDS["sql.gz"].good(folder / "a.sql.gz")
    aged(folder / "a.sql.gz", 30)
    shop.assert_refused("backup", "is 30 h old", "younger than 24 h")
    aged(folder / "a.sql.gz", 1)
    shop.guarded(guard(folder, least="1 MiB"))
    shop.assert_refused("backup", "bytes, and 1,048,576 are the least")
    KINDS["sql.gz"].broken(folder / "a.sql.gz")
    shop.guarded(guard(folder))
    shop.assert_refused("backup", "does not open: ")
    shop.guarded(guard(folder, opens=["grep", "-q", "CREATE", "{path}"]))
    shop.assert_refused("backup", "ended with status 1")


def test_a_good_backup_passes(shop: Shop, folder: Path) -> None:
    """One that is being written is newer, and does not stand in the way of a whole one."""
    KINDS["sql.gz"].good(folder / "a.sql.gz")
    aged(folder / "a.sql.gz", 3)
    KINDS["sql.gz"].broken(folder / "b.sql.gz")
    shop.guarded(guard(folder))
    shop.assert_passes("backup", "a.sql.gz is 3 h old, and it opens")


def test_a_backup_on_this_machine(shop: Shop, folder: Path) -> None:
    """Relative to the plan, and asked of no host."""
    KINDS["tar.gz"].good(folder / "a.tar.gz")
    shop.guarded({"backup": {"path": "backups/*", "here": True, "younger_than": "1h"}})
    shop.assert_passes("backup", "and it opens")
