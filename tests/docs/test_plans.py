"""The plans that the documentation shows are loaded; docs/plan.md has tests of its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import deployguard
from tests.docs.pages import ROOT, blocks, named, pages

pytestmark = pytest.mark.docs


def _plans() -> list[Any]:
    """Every whole plan in a block of YAML, whatever the page; the rest are parts of one."""
    found = []
    for page in pages():
        if page.name == "plan.md":
            continue
        for text in blocks(page, "yaml"):
            data = yaml.safe_load(text)
            if isinstance(data, dict) and {"components", "hosts"} <= set(data):
                found.append(pytest.param(text, id=named(page)))
    return found


def test_the_readme_shows_one() -> None:
    """Else the test below has nothing to look at."""
    assert any(plan.id == "README.md" for plan in _plans())


@pytest.mark.parametrize("text", _plans())
def test_plans_are_valid(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It loads where the files that it names are."""
    monkeypatch.setenv("PWD", str(tmp_path))
    (tmp_path / "plan.yaml").write_text(text)
    shutil.copytree(ROOT / "playbooks" / "demo" / "app", tmp_path / "releases" / "v1")
    plan = deployguard.load(tmp_path / "plan.yaml")
    assert plan.components
