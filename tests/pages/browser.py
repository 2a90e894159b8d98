"""A real Chromium, and axe-core from npm, which finds what somebody could not read or reach."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

__all__ = ["Watched", "a_browser", "axe", "serious", "watched"]

#: What comes from npm is kept between runs.
STATE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deployguard-tests"

_PROGRAMS = ("chromium", "google-chrome", "chromium-browser")
_AXE = "axe-core@4.11.0"
#: Milliseconds; a machine may be busy with other tests.
_PATIENCE = 60_000


def _missing(reason: str) -> None:
    """Skips the test, but never in CI."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextlib.contextmanager
def a_browser() -> Iterator[Browser]:
    """The machine's Chromium, without a window."""
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if program is None:
        _missing("chromium is missing: apt-get install chromium")
    # Root has no sandbox to go into.
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=arguments, timeout=_PATIENCE
        )
        yield browser
        browser.close()


def axe() -> str:
    """The source of axe-core, installed once."""
    folder = STATE / "npm" / _AXE
    source = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not source.exists():
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-save"]
        try:
            subprocess.run(
                ["npm", "install", *options, f"--prefix={folder}", _AXE],
                check=True,
                capture_output=True,
            )
        except (OSError, subprocess.CalledProcessError) as error:
            _missing(f"axe-core cannot be had from npm: {error}")
    return source.read_text()


@dataclass
class Watched:
    """A page, and everything that its console said, or that it could not load."""

    page: Page
    said: list[str] = field(default_factory=list)


@contextlib.contextmanager
def watched(browser: Browser, width: int = 1100, dark: bool = False) -> Iterator[Watched]:
    """A new page of a browser without a past."""
    context = browser.new_context(
        viewport={"width": width, "height": 800},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    context.set_default_timeout(_PATIENCE)
    found = Watched(context.new_page())
    found.page.on("console", lambda message: found.said.append(message.text))
    found.page.on("pageerror", lambda error: found.said.append(str(error)))
    found.page.on("requestfailed", lambda request: found.said.append(f"failed: {request.url}"))
    try:
        yield found
    finally:
        context.close()


def serious(page: Page, source: str) -> list[str]:
    """What axe-core finds serious or critical, with the elements."""
    page.evaluate(source)
    result: dict[str, Any] = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes'][:3]]}"
        for one in result["violations"]
        if one["impact"] in ("serious", "critical")
    ]
