"""The report of a transaction: everything is on it, it fetches nothing, and runs nothing."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
from pathlib import Path

import pytest

from deployguard.errors import ExitCode
from deployguard.report.page.health import matrix
from deployguard.report.page.lanes import MOST, WIDTH, lanes
from deployguard.rollout.outcome import Event, HostOutcome
from deployguard.store.journal import SqliteJournal
from tests.cli.conftest import Run, deployguard  # noqa: F401 - a fixture
from tests.pages.night import HOSTILE, HOSTS, START, TRANSACTION, evidence, outcome


class Reader(html.parser.HTMLParser):
    """Tags, attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember it."""
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        """Collect it."""
        self.text.append(data)


def begin(journal: SqliteJournal, transaction: str, at: float) -> None:
    """Put a transaction into a journal."""
    about = {"plan": "shop", "version": "v2", "environment": "production", "source": "plan.yaml"}
    values = {"id": transaction, "owner": "ann@laptop", "started_at": at, **about}
    journal.begin(values, list(HOSTS))


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """The journal has the night, and its evidence lies beside the site's plan; the folder."""
    journal = SqliteJournal(tmp_path / "controller-state" / "journal.db")
    folder = evidence(tmp_path / "site" / "forensics")
    about = {"plan": "shop", "version": "v2", "environment": "production"}
    journal.begin(
        {
            "id": TRANSACTION,
            "source": "plan.yaml",
            "owner": "ann@laptop",
            "started_at": START,
            **about,
        },
        list(HOSTS),
    )
    ended = outcome(forensics=str(folder), incident="INC-20261121-001")
    journal.end(TRANSACTION, ended.as_dict())
    journal.close()
    return folder


def test_everything_is_on_the_page(deployguard: Run, kept: Path, tmp_path: Path) -> None:  # noqa: F811
    """The newest transaction, in a file of its own; links lead to the evidence from there."""
    page = tmp_path / "pages" / "night.html"
    ran = deployguard("report", "--output", page, "--json")
    assert (ran.code, ran.lines) == (0, [{"type": "page", "path": str(page)}])
    read = Reader(page.read_text())
    text = " ".join(" ".join(read.text).split())
    for words in (
        "It failed; the old version is back, verified and healthy (exit code 3)",
        "v2 failed on web2; 3 hosts restored",
        "7.0 s after the start, on web2: check failed",
        "web3: restore done, 2.30 s",
        "backend: v1 → v2, and back on web1, web2, web3",
        "app/pool.py",
        "settings.json",
        "ERROR pool <*> exhausted",
        "INC-20261121-001",
        "The guard window was overridden by ann: it is Friday",
        "2026-11-21T09:00:09.100Z",
    ):
        assert words in text, words
    # Lanes and matrix: five phases a host, and each check of each host.
    assert read.tags.count("rect") == 6 * len(HOSTS)
    assert text.count("backend/http") == len(HOSTS)
    links = [value for tag, name, value in read.attributes if (tag, name) == ("a", "href")]
    files = [link for link in links if not link.startswith("#")]
    assert f"../site/forensics/{kept.name}/web2/checks.json" in files
    assert all((page.parent / link).is_file() for link in files)


def test_nothing_is_fetched_or_run(deployguard: Run, kept: Path) -> None:  # noqa: F811
    """What a log said stays text; the policy allows the page's own style and nothing else."""
    page = deployguard("report", TRANSACTION[:20], "-o", "-").out
    read = Reader(page)
    assert HOSTILE in "".join(read.text) and HOSTILE not in page
    assert not {"script", "link", "iframe", "object", "embed", "form", "img"} & set(read.tags)
    names = {name for _, name, _ in read.attributes}
    assert not {"src", "srcset", "style", "data"} & names
    assert not [name for name in names if name.startswith("on")]
    assert not [value for _, name, value in read.attributes if name == "href" and ":" in value]
    (policy,) = (value for _, name, value in read.attributes if "default-src" in value)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def test_the_evidence_is_elsewhere(deployguard: Run, kept: Path) -> None:  # noqa: F811
    """A page without it says so; so does one of a transaction without an end."""
    kept.rename(kept.with_name("moved"))
    ran = deployguard("report", "-o", "-")
    assert ran.code == 0 and "It is not on this machine" in ran.out
    journal = SqliteJournal()
    about = {
        "plan": "shop",
        "version": "v3",
        "environment": "production",
        "source": "",
        "owner": "",
    }
    journal.begin({"id": "20261121T100000-shop-000001", "started_at": START + 3600, **about}, [])
    ran = deployguard("report")
    assert ran.code == 2 and "has no end here" in ran.err
    assert deployguard("report", "nothing").code == 2


def test_no_transaction_yet(deployguard: Run) -> None:  # noqa: F811
    """One clear error."""
    ran = deployguard("report")
    assert ran.code == 2 and "no transaction was run" in ran.err


def test_lanes() -> None:
    """Those that failed come first; bars lie within the drawing, in the order of time."""
    drawn = lanes(outcome())
    assert [lane.host for lane in drawn.lanes] == ["web2", "web1", "web3"]
    bars = drawn.lanes[0].bars
    assert [(bar.phase, bar.status) for bar in bars] == [
        ("connect", "done"),
        ("inspect", "done"),
        ("stage", "done"),
        ("switch", "done"),
        ("check", "failed"),
        ("restore", "done"),
    ]
    assert [bar.x for bar in bars] == sorted(bar.x for bar in bars)
    assert all(bar.x + bar.width <= WIDTH for lane in drawn.lanes for bar in lane.bars)
    check = bars[4]
    assert check.x < (drawn.sign_x or 0) <= check.x + check.width + 0.1


def test_lanes_of_many_and_of_none() -> None:
    """A picture has room for so many; a host that was cut off has a phase without an end."""
    hosts = tuple(HostOutcome(f"h{number}", "lost") for number in range(MOST + 5))
    cut = (Event(START + 1, "check", "started", "h64"), Event(START + 2, "check", "failed", "h3"))
    drawn = lanes(outcome(hosts=hosts, timeline=cut))
    assert (len(drawn.lanes), drawn.left_out) == (MOST, 5)
    assert drawn.lanes[0].host == "h3"
    only = lanes(outcome(hosts=hosts[-1:], timeline=cut[:1])).lanes[0].bars[0]
    assert (only.status, only.end) == ("unfinished", START + 10)
    empty = lanes(outcome(hosts=(), timeline=(), ended_at=START))
    assert empty.lanes == () and empty.sign_x is None


def test_health_over_time() -> None:
    """Each check at the end of each slice, as the hosts told it; unhealthy ones first."""
    found = matrix(outcome())
    assert found is not None and len(found.columns) == 12
    first = found.rows[0]
    assert (first.host, first.check, first.ended) == ("web2", "backend/http", "healthy")
    step = 10 / 12
    states = [cell.state for cell in first.cells]
    assert states[int(4.7 // step) - 1] == ""
    assert states[int(5.9 // step)] == "unhealthy" and states[-1] == "healthy"
    # Once it goes back nobody looks, until the old version is judged.
    assert states[int(7.6 // step)] == "" and found.rows[-1].cells[int(7.6 // step)].state == ""
    assert len(found.rows) == 6
    assert matrix(outcome(timeline=())) is None
    json.dumps(outcome(exit_code=ExitCode.ROLLED_BACK).as_dict())
