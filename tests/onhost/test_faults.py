"""Faults that a test asks for: at their point, as often as asked, and nowhere else."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from deployguard.onhost.faults import Faults


def test_the_disk_is_full_as_often_as_asked() -> None:
    """Once, unless `times` says more; other points are left alone."""
    faults = Faults([{"point": "before armed", "action": "full"}], lambda event: None, lambda: None)
    faults.reach("before staged")
    with pytest.raises(OSError, match="before armed"):
        faults.reach("before armed")
    faults.reach("before armed")


def test_waiting_ends_when_the_file_goes(tmp_path: Path) -> None:
    """What a test does to the host meanwhile, it does at this point."""
    path = tmp_path / "paused"
    faults = Faults(
        [{"point": "after armed", "action": "wait", "path": str(path)}],
        lambda event: None,
        lambda: None,
    )
    waiting = threading.Thread(target=faults.reach, args=("after armed",))
    waiting.start()
    while not path.exists():
        waiting.join(0.01)
        assert waiting.is_alive()
    assert path.read_text() in ("", "after armed")
    path.unlink()
    waiting.join(10)
    assert not waiting.is_alive()
