"""`deployguard serve` as a program: what it shows, whom it lets in, and what it never hands out."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from deployguard.incidents.lookup import Lookup
from deployguard.store.journal import SqliteJournal
from deployguard.web.peer import is_ours
from tests.cli.conftest import Run, deployguard  # noqa: F401 - a fixture
from tests.pages.night import HOSTILE, TRANSACTION
from tests.pages.served import LIVE, Served, serving

TOKEN = "a-token-of-the-test-that-is-long"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Started with a token."""
    with serving(tmp_path_factory.mktemp("served"), TOKEN) as found:
        yield found


PAGES = {
    "/": "Incidents that are not over",
    "/history": "shop v2 in production",
    "/incidents": "shop v2 failed in production",
    "/metrics": "failed deployment recovery time",
    "/postmortems": "2026-11-21-v2.md",
    "/incidents/{incident}": "services were stopped for v2 on web1, web2, web3",
    f"/transactions/{TRANSACTION}": "Restore proof",
    f"/transactions/{LIVE}": "no end yet",
    "/postmortems/{incident}": "Five whys",
}


@pytest.mark.parametrize("path", PAGES)
def test_every_page(served: Served, path: str) -> None:
    """What it is about is on it; its policy is strict; what a log said is text."""
    answer = served.ask(path.format(incident=served.incident))
    assert answer.status == 200 and PAGES[path] in answer.body
    assert HOSTILE not in answer.body
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert " style=" not in answer.body and not re.search(r"\son\w+=\"", answer.body)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


def test_now(served: Served) -> None:
    """What is at work, and the incidents that are not over."""
    body = served.ask("/").body
    assert LIVE in body and "bob@ci" in body and served.incident in body
    assert "restore started on 1" in body


def test_a_transaction_at_work(served: Served) -> None:
    """The last step of each host, all that were made, and what a log said as text."""
    body = re.sub(r"<[^>]+>", " ", served.ask(f"/transactions/{LIVE}").body)
    assert re.search(r"web9\s+restore started", body)
    assert re.search(r"web10\s+none yet", body)
    assert "web9 check failed: answered 503" in body


@pytest.mark.parametrize(
    ("query", "has", "has_not"),
    [
        ({"plan": "blog"}, "blog v2 in production", "shop v2 in production"),
        ({"environment": "staging"}, "shop v2 in staging", "in production"),
        ({"status": "rolled_back"}, "rolled back</span>", "committed</span>"),
        ({"plan": "'; DROP TABLE transactions; --"}, "There is none.", "shop v2"),
        ({"page": "1"}, "Newer", LIVE),
        ({"page": "-1"}, LIVE, "Newer"),
    ],
)
def test_filters_of_the_history(
    served: Served, query: dict[str, str], has: str, has_not: str
) -> None:
    """Only what is asked for; what makes no sense finds nothing and breaks nothing."""
    answer = served.ask(f"/history?{urlencode(query)}")
    (rows,) = re.findall(r"<tbody>.*</nav>", answer.body, re.DOTALL)
    assert answer.status == 200 and has in rows and has_not not in rows


def test_filters_of_the_incidents(served: Served) -> None:
    """By state and severity; an old one is found on its own page."""
    body = served.ask("/incidents?state=mitigated&severity=high&service=shop").body
    rows = body.partition("<tbody>")[2]
    assert served.incident in rows and "resolved</span>" not in rows
    assert "There is none." in served.ask("/incidents?severity=low").body


def test_a_scrape(served: Served) -> None:
    """OpenMetrics, with its own type."""
    answer = served.ask("/openmetrics")
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    names = [family.name for family in text_string_to_metric_families(answer.body)]
    assert "deployguard_deployments" in names


@pytest.mark.parametrize(
    "path",
    [
        "/evidence/{t}/../../../token",
        "/evidence/{t}/..%2f..%2f..%2ftoken",
        "/evidence/{t}/%2e%2e/%2e%2e/%2e%2e/token",
        "/evidence/{t}//etc/passwd",
        "/evidence/{t}/%2fetc%2fpasswd",
        "/evidence/{t}/web1/link",
        "/evidence/{t}/linked/passwd",
        "/evidence/{t}/web1",
        "/evidence/{t}/nothing%00.txt",
        "/evidence/nothing/metadata.json",
        f"/evidence/{LIVE}/metadata.json",
        "/transactions/nothing",
        "/incidents/INC-20200101-001",
        "/postmortems/INC-20260604-001",
        "/static/../app.py",
    ],
)
def test_nothing_else_is_handed_out(served: Served, path: str) -> None:
    """A name outside of the folder, over a link, or of nothing."""
    link, folder = served.forensics / "web1" / "link", served.forensics / "linked"
    if not link.is_symlink():
        link.symlink_to("/etc/passwd")
        folder.symlink_to("/etc")
    answer = served.ask(path.format(t=TRANSACTION))
    assert answer.status == 404 and "root:" not in answer.body and TOKEN not in answer.body


def test_evidence_is_text(served: Served) -> None:
    """A log that looks like a page is shown as it is, and may do nothing."""
    answer = served.ask(f"/evidence/{TRANSACTION}/web2/backend-service.log")
    assert answer.status == 200 and HOSTILE in answer.body
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "sandbox" in answer.headers["content-security-policy"]


def test_a_folder_of_something_else(served: Served) -> None:
    """A journal that others write to may name any folder: it has to be that transaction's."""
    (served.forensics / "metadata.json").rename(served.forensics / "away.json")
    try:
        answer = served.ask(f"/evidence/{TRANSACTION}/web2/backend-service.log")
        assert answer.status == 404
    finally:
        (served.forensics / "away.json").rename(served.forensics / "metadata.json")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8377", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost@evil.example", 403),
        ("192.0.2.1:8377", 403),
        ("[::1", 403),
        ("", 403),
    ],
)
def test_only_names_of_this_machine(served: Served, host: str, status: int) -> None:
    """A name that was made to point here gets nothing (DNS rebinding)."""
    answer = served.ask("/history", host=host)
    assert answer.status in (status, 400 if status == 403 else status)
    assert ("shop" in answer.body) == (status == 200)


def test_another_user_of_the_machine(served: Served) -> None:
    """The port is open to everybody; the pages are not."""
    assert not is_ours(None, ("127.0.0.1", 1)) and not is_ours(("unix", 0), ("127.0.0.1", 1))
    setpriv = shutil.which("setpriv")
    if setpriv is None or os.getuid() != 0:
        pytest.skip("needs root, to be somebody else")
    ask = (
        "import http.client, sys\n"
        f"c = http.client.HTTPConnection('127.0.0.1', {served.url.split(':')[2].strip('/')})\n"
        "c.request('GET', sys.argv[1]); r = c.getresponse(); print(r.status, r.read()[:60])"
    )
    other = [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3"]
    asked = {"/history": "403", "/token": "200", "/openmetrics": "200", "/evidence/x/y": "403"}
    for path, status in asked.items():
        ran = subprocess.run([*other, "-c", ask, path], capture_output=True, text=True, check=True)
        assert ran.stdout.startswith(status), ran.stdout


def session(served: Served) -> tuple[str, str]:
    """Somebody gives the token: the cookie, and the key of the forms."""
    answer = served.ask("/token", "POST", urlencode({"token": TOKEN}))
    assert answer.status == 303
    whole = answer.headers["set-cookie"].lower()
    assert "httponly" in whole and "samesite=strict" in whole
    cookie = answer.headers["set-cookie"].partition(";")[0]
    body = served.ask(f"/incidents/{served.incident}", cookie=cookie).body
    found = re.search(r'name="key" value="([^"]+)"', body)
    assert found is not None
    return cookie, found[1]


def test_only_who_has_the_token_changes_anything(served: Served) -> None:
    """Without a session, without the key of the form, or from another page: nothing happens."""
    cookie, key = session(served)
    path = f"/incidents/{served.incident}/acknowledge"
    form = urlencode({"key": key, "text": "on it"})
    assert served.ask("/token", "POST", urlencode({"token": "wrong"})).status == 403
    assert served.ask(path, "POST", form).status == 403
    assert served.ask(path, "POST", "text=on+it", cookie=cookie).status == 403
    assert served.ask(path, "POST", form, cookie="deployguard=guessed").status == 403
    for origin in ("http://evil.example", "null"):
        assert served.ask(path, "POST", form, cookie=cookie, origin=origin).status == 403
    assert served.ask(path, "POST", form, cookie=cookie, sec_fetch_site="cross-site").status == 403
    assert served.ask(path, "DELETE", "", cookie=cookie).status == 403
    assert served.ask("/token", "POST", "x" * 300_000).status == 413

    journal = SqliteJournal(served.state / "journal.db")
    assert Lookup(journal).get(served.incident).acknowledged_at is None
    done = served.ask(path, "POST", form, cookie=cookie)
    assert (done.status, done.headers["location"]) == (303, f"/incidents/{served.incident}")
    found = Lookup(journal).get(served.incident)
    assert found.acknowledged_at is not None and "@" in found.acknowledged_by
    again = served.ask(path, "POST", form, cookie=cookie)
    assert again.status == 409 and "is acknowledged already" in again.body
    note = f"/incidents/{served.incident}/note"
    secret = urlencode({"key": key, "text": "the password=hunter2-sentinel was in the log"})
    assert served.ask(note, "POST", secret, cookie=cookie).status == 303
    journal.close()
    body = served.ask(f"/incidents/{served.incident}").body
    assert "on it" in body and "[redacted:" in body and "hunter2-sentinel" not in body
    assert (
        served.ask(f"/incidents/{served.incident}/close", "POST", form, cookie=cookie).status == 404
    )


def test_without_a_token(tmp_path: Path) -> None:
    """It is read-only: there is no form, and no way in."""
    with serving(tmp_path) as served:
        assert "<textarea" not in served.ask(f"/incidents/{served.incident}").body
        assert "/token" not in served.ask("/").body
        assert served.ask("/token").status == 404
        path = f"/incidents/{served.incident}/acknowledge"
        assert served.ask(path, "POST", urlencode({"key": ""})).status == 403


def test_what_makes_no_sense(
    deployguard: Run,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One clear error, and exit code 2."""
    token = tmp_path / "token"
    token.write_text("short")
    token.chmod(0o600)
    ran = deployguard("serve", "--token-file", token)
    assert ran.code == 2 and "fewer than 16 letters" in ran.err
    token.write_text(TOKEN)
    token.chmod(0o644)
    ran = deployguard("serve", "--token-file", token)
    assert ran.code == 2 and f"others may read {token}" in ran.err
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "uvicorn", None)
        ran = deployguard("serve")
    assert ran.code == 2 and "pip install 'deployguard[serve]'" in ran.err
    assert quote(TOKEN) not in ran.err
