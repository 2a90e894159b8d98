"""The pages in a real Chromium: content, filters, light and dark, 320 pixels, print, keyboard;
no word on the console, nothing that axe-core finds serious."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from deployguard.cli import main as entry
from deployguard.store.journal import SqliteJournal
from tests.metrics.known import NOW
from tests.pages.browser import a_browser, axe, serious, watched
from tests.pages.night import HOSTILE, HOSTS, TRANSACTION, outcome
from tests.pages.served import Served, serving

TOKEN = "a-token-of-the-test-that-is-long"
PATHS = (
    "/",
    "/history",
    "/incidents",
    "/metrics",
    "/postmortems",
    "/token",
    "/incidents/{incident}",
    f"/transactions/{TRANSACTION}",
    "/transactions/20261121T115900-shop-0live0",
    "/postmortems/{incident}",
    "report",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for all."""
    with a_browser() as found:
        yield found


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Started with a token."""
    with serving(tmp_path_factory.mktemp("browsed"), TOKEN) as found:
        yield found


@pytest.fixture(scope="module")
def source() -> str:
    """axe-core."""
    return axe()


@pytest.fixture(scope="module")
def report(served: Served) -> Path:
    """The report of the night as a file."""
    path = served.state.parent / "night.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEPLOYGUARD_STATE", str(served.state))
        assert entry.run(["report", TRANSACTION, "-o", str(path)]) == 0
    return path


@pytest.fixture
def address(served: Served, report: Path, request: pytest.FixtureRequest) -> str:
    """Where a page is."""
    path: str = request.param
    if path == "report":
        return report.as_uri()
    return served.url.rstrip("/") + path.format(incident=served.incident)


@pytest.mark.parametrize("address", PATHS, indirect=True)
def test_a_page_for_everybody(browser: Browser, address: str, source: str) -> None:
    """Wide and light, wide and dark, 320 pixels: no sideways scrolling of the page, silence on the
    console, and no serious finding."""
    backgrounds = set()
    for width, dark in ((1100, False), (1100, True), (320, False)):
        with watched(browser, width, dark) as found:
            found.page.goto(address)
            wide = found.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width
            body = "getComputedStyle(document.body).backgroundColor"
            backgrounds.add((dark, found.page.evaluate(body)))
            assert serious(found.page, source) == []
            assert found.page.locator("script:not([src='/static/live.js'])").count() == 0
            assert found.page.locator("h1").count() == 1
            assert found.said == []
    assert len(backgrounds) == 2, "dark is not light"


def test_what_a_log_said_stays_text(browser: Browser, report: Path) -> None:
    """Nothing of it became an element, and the words are there to be read."""
    with watched(browser) as found:
        found.page.goto(report.as_uri())
        assert found.page.locator("img").count() == 0
        assert HOSTILE in found.page.inner_text("#content")
        lanes = found.page.get_by_role("img", name="Timeline of hosts and phases")
        assert lanes.locator("g.bar.failed").count() == 1
        assert lanes.locator("g.bar").count() == 6 * len(HOSTS)
        assert found.page.locator("td.unhealthy").count() > 0
        # On paper everything is unfolded.
        event = found.page.get_by_role("cell", name="Restored and verified").first
        assert not event.is_visible()
        found.page.emulate_media(media="print")
        assert event.is_visible()
        assert len(found.page.pdf()) > 10_000


def test_evidence_is_one_click_away(browser: Browser, served: Served) -> None:
    """From the transaction to the log, which is text."""
    with watched(browser) as found:
        found.page.goto(f"{served.url}transactions/{TRANSACTION}")
        found.page.click("text=web2/backend-service.log")
        found.page.wait_for_url("**/backend-service.log")
        assert HOSTILE in found.page.inner_text("body")
        assert found.said == []


def test_filters(browser: Browser, served: Served) -> None:
    """By hand: choose, show, and turn the page; the choice stays."""
    with watched(browser) as found:
        page = found.page
        page.goto(f"{served.url}history")
        page.get_by_label("Service").select_option("blog")
        page.get_by_label("Ended as").select_option("committed")
        page.get_by_role("button", name="Show").click()
        page.wait_for_url("**plan=blog**")
        rows = page.locator("tbody tr").all_inner_texts()
        assert rows and all("blog v2" in row and "committed" in row for row in rows)
        assert page.get_by_label("Service").input_value() == "blog"
        page.goto(f"{served.url}history")
        page.get_by_role("link", name="Older").click()
        page.wait_for_url("**page=1")
        assert page.locator("tbody tr").count() == 50
        assert found.said == []


def test_by_keyboard(browser: Browser, served: Served) -> None:
    """The first stop leads to the content, the next ones through the pages."""
    with watched(browser) as found:
        found.page.goto(f"{served.url}incidents")
        focused = "document.activeElement.textContent"
        found.page.keyboard.press("Tab")
        assert found.page.evaluate(focused) == "To the content"
        found.page.keyboard.press("Tab")
        assert found.page.evaluate(focused) == "Now"
        current = found.page.locator("[aria-current=page]")
        assert current.inner_text() == "Incidents"


def test_what_is_at_work_renews_itself(browser: Browser, served: Served) -> None:
    """A deploy that begins while somebody looks is there without a reload."""
    with watched(browser) as found:
        found.page.clock.install()
        found.page.goto(served.url)
        assert "blog v9" not in found.page.inner_text("#live")
        journal = SqliteJournal(served.state / "journal.db")
        about = {"plan": "blog", "version": "v9", "environment": "staging", "source": "plan.yaml"}
        values = {"id": "20261121T115930-blog-000009", "owner": "ann", "started_at": NOW, **about}
        journal.begin(values, ["web1"])
        journal.close()
        found.page.clock.fast_forward(6000)
        found.page.wait_for_selector("#live >> text=blog v9 in staging")
        assert found.said == []


def test_what_was_at_work_ends(browser: Browser, served: Served) -> None:
    """Whoever looks at a transaction is shown its report when it is over."""
    with watched(browser) as found:
        found.page.clock.install()
        name = "20261121T115945-blog-00000a"
        journal = SqliteJournal(served.state / "journal.db")
        about = {"plan": "blog", "version": "v9", "environment": "staging", "source": "plan.yaml"}
        journal.begin({"id": name, "owner": "ann", "started_at": NOW, **about}, ["web1"])
        found.page.goto(f"{served.url}transactions/{name}")
        assert "no end yet" in found.page.inner_text("h1")
        journal.end(name, outcome(transaction=name).as_dict())
        journal.close()
        found.page.clock.fast_forward(6000)
        found.page.wait_for_selector("text=Restore proof")
        assert found.said == []


def test_with_the_token(browser: Browser, served: Served) -> None:
    """Whoever gives it writes a note in a form, and sees it in the timeline."""
    with watched(browser) as found:
        page = found.page
        page.goto(f"{served.url}incidents/{served.incident}")
        assert page.get_by_text("Write a note").count() == 0
        page.get_by_role("link", name="Token").click()
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Enter").click()
        page.wait_for_url(served.url)
        page.goto(f"{served.url}incidents/{served.incident}")
        page.locator("summary", has_text="Write a note").click()
        page.locator("#note-text").fill("it was the pool")
        page.get_by_role("button", name="Write a note").click()
        page.wait_for_selector("td >> text=it was the pool")
        assert found.said == []
