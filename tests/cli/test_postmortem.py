"""The post-mortem of a deploy that used up a database's connections: drafted, held to the journals
to the second, finished by people, checked and rendered."""

from __future__ import annotations

import html.parser
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deployguard.evidence.timeline import iso, parse_iso, rows
from deployguard.rollout.outcome import Outcome
from tests.cli.conftest import Ran, Run, Site, a_site
from tests.postgres import Postgres, a_server
from tests.report.written import block, table

LIMIT = 40
BROKEN = "raise SystemExit(1)\n"

#: Opens as many connections as its release says, and is healthy when it has them all.
POOL = """\
import http.server, json, sys

import psycopg

wanted = int(open("POOL").read())
pool, problem = [], ""
try:
    for _ in range(wanted):
        pool.append(psycopg.connect(sys.argv[2], autocommit=True))
except psycopg.OperationalError as error:
    problem = str(error).strip().splitlines()[-1]
    for one in pool:
        one.close()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if problem else 200)
        self.end_headers()
        status = problem or "healthy"
        version = open("VERSION").read()
        self.wfile.write(json.dumps({"status": status, "version": version}).encode())

    def log_message(self, *args):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    """A PostgreSQL of 40 connections, three of which are for superusers."""
    with a_server() as server:
        with (server.data / "postgresql.conf").open("a") as file:
            file.write(f"max_connections = {LIMIT}\nsuperuser_reserved_connections = 3\n")
        server.stop("fast")
        server.start()
        yield server


@dataclass
class Scene:
    """A site whose v2 failed and was rolled back, the journal's folder, and the outcome."""

    site: Site
    state: Path
    outcome: dict[str, Any]


@pytest.fixture(scope="module")
def scene(database: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """v1 wants 10 connections and runs; v2 wants 50 and fails."""
    state = tmp_path_factory.mktemp("pool") / "controller-state"
    environment = {name: v for name, v in os.environ.items() if not name.startswith("GITHUB_")}
    environment["DEPLOYGUARD_STATE"] = str(state)
    with a_site(state.parent / "site") as site:
        argv = f'{sys.executable}, server.py, "{site.port}", "{database.url}"'
        text = site.plan.read_text().replace(f'python3, server.py, "{site.port}"', argv)
        site.plan.write_text(text.replace("json: {version", "json: {status: healthy, version"))
        shutil.rmtree(site.root / "releases")
        lines: list[str] = []
        for version, pool, code in (("v1", 10, 0), ("v2", LIMIT + 10, 3)):
            site.release(version, POOL)
            (site.root / "releases" / version / "POOL").write_text(str(pool))
            command = [sys.executable, "-m", "deployguard", "apply", str(site.plan), "--json"]
            ran = subprocess.run(
                [*command, "--release", version],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert ran.returncode == code, ran.stderr
            lines = ran.stdout.splitlines()
        outcome = json.loads(lines[-1])
        assert outcome["report_errors"] == []
        assert f"post-mortem: {outcome['postmortem']}" in ran.stderr
        yield Scene(site, state, outcome)


@pytest.fixture
def failed(deployguard: Run, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The outcome; commands see its journal."""
    monkeypatch.setenv("DEPLOYGUARD_STATE", str(scene.state))
    return scene.outcome


def journals(scene: Scene) -> tuple[Outcome, list[dict[str, Any]], list[dict[str, Any]]]:
    """What is on record: the deploy here, the incident here, and the host's own journal."""
    store = sqlite3.connect(scene.state / "journal.db")
    store.row_factory = sqlite3.Row
    (row,) = store.execute("SELECT outcome FROM transactions WHERE status = 'rolled_back'")
    entries = [dict(e) for e in store.execute("SELECT * FROM incident_entries ORDER BY number")]
    store.close()
    outcome = Outcome.from_dict(json.loads(row["outcome"]))
    host = scene.site.root / "host-state" / "transactions" / outcome.transaction / "journal"
    records = [json.loads(line.partition(" ")[2]) for line in host.read_text().splitlines()]
    return outcome, entries, records


def test_every_row_is_the_journals_to_the_second(scene: Scene) -> None:
    """The timeline row by row, durations, response, downtime, versions, and every box."""
    failed = scene.outcome
    path = Path(failed["postmortem"])
    today = iso(failed["started_at"])[:10]
    folder = scene.site.root / "contexts" / "retrospectives" / "deployment-rollbacks"
    assert path == folder / f"{today}-v2.md"
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    deploy, entries, host = journals(scene)

    shown = table(text, "timeline")
    expected = [
        [row.time, row.host, row.event, " ".join(row.details.split()), "T1"]
        for row in rows(deploy.timeline)
    ]
    assert [row for row in shown if row[4] == "T1"] == expected
    mine = [row for row in shown if row[4] == "INC"]
    # The draft is linked once it is there.
    told = [e for e in entries if e["kind"] not in ("impact", "detected", "linked")]
    told.sort(key=lambda entry: entry["happened_at"])
    assert [row[0] for row in mine] == [iso(entry["happened_at"]) for entry in told]
    assert [row[2] for row in mine] == ["Mitigated", "Incident opened"]
    assert shown == sorted(shown, key=lambda row: row[0])
    assert f"T1 is transaction `{deploy.transaction}`" in block(text, "timeline")

    at = {(e.phase, e.status): e.at for e in reversed(deploy.timeline) if e.host == "here"}
    stop, sign, back = at["switch", "started"], at["check", "failed"], at["restore", "done"]
    assert table(text, "durations") == [
        [what, iso(start), iso(end), f"{end - start:.1f} s"]
        for what, start, end in (
            ("the deploy", deploy.started_at, deploy.ended_at),
            ("from the first stop to the first sign", stop, sign),
            ("from the first sign to the last host restored and verified", sign, back),
            ("from the detection until mitigated", sign, back),
        )
    ]
    response = {row[0]: row[1:] for row in table(text, "response")}
    assert response["Impact began"][0] == iso(stop)
    assert response["Detected"][:2] == [iso(sign), f"{sign - stop:.1f} s"]
    assert response["Mitigated"][:2] == [iso(back), f"{back - sign:.1f} s"]
    assert response["Acknowledged"] == ["not yet", "", f"by {iso(sign + 1800)}: open"]
    assert response["Resolved"] == ["not yet", "", f"by {iso(sign + 4 * 3600)}: open"]

    (down,) = table(text, "downtime")
    record = {one["kind"]: one["at"] for one in host}
    healthy = parse_iso(down[3])
    assert down[:3] == ["T1", "here", iso(stop)]
    # The host's own journal: the undo was armed after the stop began, and it was healthy when it
    # was on record as restored, which its controller heard after that.
    assert int(stop) <= record["armed"] and record["restored"] <= back
    assert int(at["restore", "started"]) <= healthy <= record["restored"] + 1
    assert float(down[4].removesuffix(" s")) <= back - stop + 0.1

    about = dict(table(text, "about"))
    assert about["Incident"] == failed["incident"]
    assert (about["Failed version"], about["Back on"]) == ("v2", "v1")
    assert about["Severity"] == "high (2)" and about["State"] == "mitigated"
    assert about["Due"] == iso(sign + 48 * 3600)
    assert about["Services down"] == f"{down[4]} at most"
    (found,) = [row for row in table(text, "failed") if row[3] == "yes"]
    assert found[:3] == ["here", "web", "http"] and "too many clients" in found[4]
    assert table(text, "safeguards")[0][:6] == ["T1", "here", "restored", "yes", "yes", "v1"]

    boxes = re.findall(r"^- \[(.)\] (.*)$", block(text, "data") + block(text, "done"), re.MULTILINE)
    assert all(mark == "x" for mark, _ in boxes) and len(boxes) == 4
    assert any(what.startswith(f"{iso(back)} Every host that was touched") for _, what in boxes)
    sums = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    assert failed["forensics"] in block(text, "appendix")
    subprocess.run(sums, cwd=failed["forensics"], check=True)


def finish(text: str, completed: str) -> str:
    """Somebody writes what only people know."""
    text = re.sub(
        r"^> TO WRITE: .*$", "The pool wanted 50 of 40 connections.", text, flags=re.MULTILINE
    )
    text = re.sub(r"TO WRITE: ", "Because: ", text)
    text = text.replace(
        "| 1 | TO WRITE | | YYYY-MM-DD | open | |",
        "| 1 | Pool to 20 | @ann | 2026-12-12 | done | OPS-1 |",
    )
    text = text.replace("- [ ] ", "- [x] ")
    for field, value in (
        ("Author", "Ann"),
        ("Completed", completed),
        ("Reviewed by", "Bob"),
        ("Action items tracked in", "OPS-1"),
    ):
        text = text.replace(f"| {field} | |", f"| {field} | {value} |")
    return text


def judged(ran: Ran) -> dict[str, Any]:
    """The one post-mortem that was checked."""
    (line,) = ran.lines
    assert line["type"] == "postmortem"
    return line


def test_what_is_not_true_is_found(
    deployguard: Run, failed: dict[str, Any], tmp_path: Path
) -> None:
    """A row of the journal that was changed, a box that is ticked too early, a date that is none, a
    heading that is gone; and a deadline that is over."""
    path = Path(failed["postmortem"])
    draft = path.read_text()
    whole = finish(draft, iso(failed["ended_at"])[:10])
    late = re.sub(r"\| Due \| \S+ \|", "| Due | 2020-01-01T00:00:00Z |", draft)
    spoilt = {
        "changed by hand": (whole.replace("| restored | yes |", "| restored | NO |"), "open"),
        "ticked and not true: Root cause": (draft.replace("- [ ] Root", "- [x] Root"), "open"),
        "Completed is not a date": (finish(draft, "soon"), "open"),
        "1 has no owner": (whole.replace("| @ann |", "| |"), "open"),
        "1 is due on no date": (whole.replace("2026-12-12", "soon"), "open"),
        "there is none": (whole.replace("| 1 | Pool to 20", "1 | Pool to 20"), "open"),
        "Business is not written": (whole.replace("### Business", "### Trade"), "open"),
        "Data is not written": (whole.replace("- [x] No data was", "- [ ] No data was"), "open"),
        "the block `timeline` is gone": (draft.replace("end timeline", "end"), "open"),
        "not ticked: Lessons": (whole.replace("- [x] Lessons", "- [ ] Lessons"), "open"),
        "ticked and not true: Finished in time": (finish(draft, "2099-01-01"), "open"),
        "Users is not written": (late, "overdue"),
    }
    for words, (text, state) in spoilt.items():
        (tmp_path / "one.md").write_text(text)
        ran = deployguard("postmortem", "check", tmp_path / "one.md", "--json")
        assert (ran.code, judged(ran)["state"]) == (8, state), words
        assert any(words in said for said in judged(ran)["wrong"] + judged(ran)["open"]), words
    (tmp_path / "one.md").write_text(late)
    assert deployguard("postmortem", "check", tmp_path, "--overdue").code == 8
    # The machine's own blocks are written anew.
    path.write_text(spoilt["changed by hand"][0])
    assert deployguard("postmortem", "draft", failed["incident"]).code == 0
    assert deployguard("postmortem", "check", path).code == 0
    path.write_text(draft)


class Reader(html.parser.HTMLParser):
    """Tags, what would be fetched, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember it."""
        self.tags.append(tag)
        self.fetched += [str(value) for name, value in attrs if name in ("src", "srcset", "data")]
        self.fetched += [str(v) for n, v in attrs if tag == "link" and n == "href"]

    def handle_data(self, data: str) -> None:
        """Collect it."""
        self.text += data


def assert_whole(page: str, document: str) -> None:
    """Every table, row and box of the document is on the page, which fetches nothing."""
    reader = Reader()
    reader.feed(page)
    assert reader.fetched == [] and "script" not in reader.tags
    lines = document.splitlines()
    assert reader.tags.count("table") == sum(bool(re.fullmatch(r"\|(-+\|)+", x)) for x in lines)
    assert reader.tags.count("tr") == sum(
        line.startswith("|") for line in lines
    ) - reader.tags.count("table")
    assert page.count('aria-label="done"') == sum(line.startswith("- [x] ") for line in lines)
    assert "deployguard:begin" not in page and "<title>Post-mortem: demo v2" in page
    assert "too many clients" in reader.text


def test_from_the_draft_to_the_page(
    deployguard: Run, failed: dict[str, Any], tmp_path: Path
) -> None:
    """Open, finished by people, kept by a later draft, rendered; then the incident is closed."""
    path, name = Path(failed["postmortem"]), failed["incident"]
    opened = deployguard("postmortem", "check", path, "--json")
    assert (opened.code, judged(opened)["state"]) == (8, "open")
    assert judged(opened)["incident"] == name and judged(opened)["wrong"] == []
    assert "  Root cause is not written" in opened.err.splitlines()
    assert "  Sign-off: Author is empty" in opened.err.splitlines()
    assert deployguard("postmortem", "check", path.parent, "--overdue").code == 0

    assert deployguard("incident", "resolve", name, "--cause", "pool", "--fix", "20").code == 0
    refused = deployguard("incident", "close", name)
    assert refused.code == 5
    assert f"the post-mortem of {name} is not finished" in refused.err

    path.write_text(finish(path.read_text(), iso(failed["ended_at"])[:10]))
    path.chmod(0o640)
    done = deployguard("postmortem", "check", "--json")
    assert (done.code, judged(done)["state"]) == (0, "finished"), done.err

    people = [line for line in path.read_text().splitlines() if "50 of 40" in line]
    again = deployguard("postmortem", "draft", name)
    assert again.code == 0 and "finished" in again.err
    text = path.read_text()
    assert [line for line in text.splitlines() if "50 of 40" in line] == people
    assert path.stat().st_mode & 0o777 == 0o640
    response = {row[0]: row[1:] for row in table(text, "response")}
    assert response["Resolved"][2].endswith(": kept")
    assert "resolved: cause: pool; fix: 20" in block(text, "done")

    page = tmp_path / "page.html"
    assert deployguard("postmortem", "render", path, "-o", page).code == 0
    assert_whole(page.read_text(), text)
    assert deployguard("postmortem", "render", path).out == page.read_text()
    closed = deployguard("incident", "close", name)
    assert closed.code == 0, closed.err
    assert deployguard("postmortem", "check").err == "there is no post-mortem to check\n"

    report = deployguard("incident", "show", name, "--report").out
    assert report.startswith(f"# Incident report {name}: demo v2 failed in test\n")
    assert "## Root cause\n\npool\n" in report and "## Resolution\n\n20\n" in report
    assert f"See the post-mortem: {path}" in report


def test_it_fails_again(deployguard: Run, site: Site) -> None:
    """The same incident: one post-mortem with both deploys. Another one of the same day and version
    gets a name of its own."""
    assert deployguard("apply", site.plan).code == 0
    outcomes = []
    for version in ("v2", "v3"):
        site.release(version, BROKEN)
        ran = deployguard("apply", site.plan, "--release", version, "--json")
        outcomes.append(ran.lines[-1])
    first, second = outcomes
    assert first["incident"] == second["incident"]
    assert first["postmortem"] == second["postmortem"]
    text = Path(first["postmortem"]).read_text()
    assert {row[4] for row in table(text, "timeline")} == {"T1", "T2", "INC"}
    assert dict(table(text, "about"))["Failed version"] == "v2, v3"
    assert deployguard("incident", "cancel", first["incident"]).code == 0
    other = deployguard("apply", site.plan, "--release", "v2", "--json").lines[-1]
    assert other["postmortem"] == first["postmortem"].replace("-v2.md", "-v2-2.md")
    assert other["incident"] not in text


def test_nobody_drafts(deployguard: Run, site: Site) -> None:
    """`draft: false`; an incident that a person opened; one where nothing was touched."""
    site.plan.write_text(site.plan.read_text() + "rescue: {postmortem: {draft: false}}\n")
    assert deployguard("apply", site.plan).code == 0
    broken = site.release("v2", BROKEN)
    ran = deployguard("apply", site.plan, "--release", broken, "--json").lines[-1]
    assert (ran["postmortem"], ran["report_errors"]) == (None, [])
    assert not (site.root / "contexts").exists()
    assert deployguard("postmortem", "check").code == 0
    # By hand one is drafted for any incident, where one says.
    made = deployguard("postmortem", "draft", "--plan", site.plan, "--json")
    assert made.code == 0 and judged(made)["state"] == "open"
    opened = deployguard("incident", "open", "high", "DNS is down", "--json").lines[0]["id"]
    folder = site.root / "retro"
    assert deployguard("postmortem", "draft", opened, "--directory", folder).code == 0
    (path,) = folder.iterdir()
    assert path.name == f"{iso(ran['ended_at'])[:10]}-{opened}.md"
    assert "was opened by a person" in path.read_text()


def test_a_draft_that_cannot_be_written(deployguard: Run, site: Site) -> None:
    """A line in the outcome; the code and the rest of the report are what they were."""
    assert deployguard("apply", site.plan).code == 0
    (site.root / "contexts").write_text("in the way")
    broken = site.release("v2", BROKEN)
    ran = deployguard("apply", site.plan, "--release", broken, "--json")
    outcome = ran.lines[-1]
    assert (ran.code, outcome["postmortem"]) == (3, None)
    assert outcome["incident"] is not None
    (error,) = outcome["report_errors"]
    assert error.startswith("the post-mortem is not drafted: ")
    missing = deployguard("postmortem", "check", "--json")
    assert (missing.code, judged(missing)["open"]) == (8, ["it was never drafted"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "nowhere.md"], "nowhere.md is not there"),
        (["draft"], "no incident is ongoing"),
        (["render", "nowhere.md"], "does not exist"),
    ],
)
def test_what_makes_no_sense(deployguard: Run, arguments: list[str], words: str) -> None:
    """One clear error and exit code 2."""
    ran = deployguard("postmortem", *arguments)
    assert ran.code == 2 and words in ran.err
