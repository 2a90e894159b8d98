"""A folder with everything the plans of these tests refer to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deployguard.errors import PlanInvalid
from deployguard.plan import load

Mistakes = Callable[..., list[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with artifacts, a unit file and a drop-in."""
    for name in ("dist/app.tar.gz", "dist/app-v1.tar.gz", "dist/tree/index.html", "app.service"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "limits.conf").write_text("[Service]\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    return tmp_path


@pytest.fixture
def mistakes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Mistakes:
    """The mistakes of a plan text as lines, without the file's name where it is the plan."""
    monkeypatch.chdir(folder)

    def find(text: str | bytes, **arguments: object) -> list[str]:
        data = text.encode() if isinstance(text, str) else text
        (folder / "plan.yaml").write_bytes(data)
        try:
            load("plan.yaml", **arguments)  # type: ignore[arg-type]
        except PlanInvalid as invalid:
            return [str(mistake).removeprefix("plan.yaml:") for mistake in invalid.mistakes]
        return []

    return find
