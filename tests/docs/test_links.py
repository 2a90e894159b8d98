"""Every link leads somewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import ROOT, anchors, links, named, pages

pytestmark = pytest.mark.docs


@pytest.mark.parametrize("page", pages(), ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    """The file is in the repository, and where a heading is named the page has it."""
    broken = []
    for target in links(page):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, anchor = target.partition("#")
        to = (page.parent / file).resolve() if file else page
        there = to.exists() and to.is_relative_to(ROOT)
        if not there or (anchor and (to.suffix != ".md" or anchor not in anchors(to))):
            broken.append(target)
    assert not broken


def test_every_page_is_reached() -> None:
    """The readme leads to every page of the documentation, over other pages or directly."""
    seen: set[Path] = set()
    left = [ROOT / "README.md"]
    while left:
        page = left.pop()
        if page in seen:
            continue
        seen.add(page)
        for target in links(page):
            to = (page.parent / target.partition("#")[0]).resolve()
            if to.suffix == ".md" and to.exists():
                left.append(to)
    missing = [named(page) for page in (ROOT / "docs").rglob("*.md") if page not in seen]
    assert not missing
