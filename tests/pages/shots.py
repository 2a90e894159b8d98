"""Takes the screenshots of docs/pages.md anew: ``python -m tests.pages.shots``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.pages import night
from tests.pages.browser import a_browser, watched
from tests.pages.served import serving

IMAGES = Path(__file__).parents[2] / "docs" / "images"

#: A file, the page, how wide, how much of it, and whether it is dark.
SHOTS = (
    ("report.png", f"transactions/{night.TRANSACTION}", 1000, 1500, False),
    ("metrics.png", "metrics", 1000, 800, True),
    ("phone.png", "incidents/{incident}", 320, 640, False),
)


def main() -> None:
    """All of them."""
    IMAGES.mkdir(exist_ok=True)
    night.HOSTILE = '{"status": "no database", "version": "v2"}'
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder)) as served,
        a_browser() as browser,
    ):
        for name, path, width, height, dark in SHOTS:
            with watched(browser, width, dark) as found:
                found.page.set_viewport_size({"width": width, "height": height})
                found.page.goto(served.url + path.format(incident=served.incident))
                found.page.screenshot(path=IMAGES / name)


if __name__ == "__main__":
    main()
