"""A store of some months with the night in it, and `deployguard serve` on it, as a program."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from deployguard.incidents.book import Book
from deployguard.incidents.deploys import failed
from deployguard.incidents.lookup import Lookup
from deployguard.incidents.severity import Targets
from deployguard.report.postmortems import draft
from deployguard.report.redaction import Redaction
from deployguard.rollout.outcome import Event
from deployguard.store.journal import SqliteJournal
from deployguard.store.trail import Trail
from tests.metrics.known import DAY, NOW, Known
from tests.pages.night import HOSTILE, HOSTS, START, TRANSACTION, evidence, outcome

__all__ = ["LIVE", "Answer", "Served", "filled", "serving"]

#: The transaction that is at work.
LIVE = "20261121T115900-shop-0live0"


@dataclass(frozen=True)
class Answer:
    """What was answered."""

    status: int
    headers: Mapping[str, str]
    body: str


@dataclass
class Served:
    """Where it is served, from which state; ``forensics`` is the folder of the night."""

    url: str
    state: Path
    forensics: Path
    incident: str

    def ask(self, path: str, method: str = "GET", body: str = "", **headers: str) -> Answer:
        """One request; the path goes over the wire as it is written here."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 0, timeout=60)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if method == "POST":
            sent.setdefault("content-type", "application/x-www-form-urlencoded")
        try:
            connection.putrequest(method, path, skip_host="host" in sent)
            for name, value in {**sent, "content-length": str(len(body))}.items():
                connection.putheader(name, value)
            connection.endheaders(body.encode())
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, text)
        finally:
            connection.close()


def filled(folder: Path) -> tuple[Path, Path, str]:
    """A journal with the night, its incident and its post-mortem, after some quiet months."""
    state = folder / "state"
    journal = SqliteJournal(state / "journal.db")
    known = Known(journal)
    for number in range(120):
        status = "rolled_back" if number % 11 == 0 else "committed"
        at = NOW - (number + 1) * 1.5 * DAY
        plan = "blog" if number % 5 == 0 else "shop"
        one = known.deploy(at, status, plan=plan, changed_at=at - 3600 - number)
        if status == "rolled_back":
            known.incident(at + 8, one, service=plan, impact=3, ack=60, mitigated=9, resolved=3600)
    known.deploy(NOW - 60, "committed", environment="staging")
    forensics = evidence(folder / "site" / "forensics")
    about = {"plan": "shop", "version": "v2", "environment": "production", "source": "plan.yaml"}
    journal.begin(
        {"id": TRANSACTION, "owner": "ann@laptop", "started_at": START, **about}, list(HOSTS)
    )
    ended = outcome(forensics=str(forensics))
    book = Book(journal, clock=lambda: START + 10)
    found = failed(ended, book, targets=Targets(), postmortem=48 * 3600.0)
    assert found is not None
    incident = found[0].id
    path = draft(incident, book, journal, folder / "site" / "retro", Redaction(None), ended)
    journal.end(TRANSACTION, outcome(forensics=str(forensics), incident=incident).as_dict())
    journal.begin(
        {"id": LIVE, "owner": "bob@ci", "started_at": NOW - 30, **about},
        ["web9", "web10"],
    )
    trail: Trail[Event] = Trail(None)
    trail.begin(journal.path, LIVE)
    for phase, status, said in (
        ("switch", "done", ""),
        ("check", "failed", f"answered 503: {HOSTILE}"),
        ("restore", "started", ""),
    ):
        trail(Event(NOW - 20, phase, status, "web9", said))  # type: ignore[arg-type]
    assert path.is_file() and Lookup(journal).ongoing()
    journal.close()
    return state, forensics, incident


@contextlib.contextmanager
def serving(folder: Path, token: str = "") -> Iterator[Served]:
    """`deployguard serve` on a store that was filled, on a free port."""
    state, forensics, incident = filled(folder)
    environment = {**os.environ, "DEPLOYGUARD_STATE": str(state)}
    arguments = ["serve", "--port", "0", "--json"]
    if token:
        file = folder / "token"
        file.write_text(f"{token}\n")
        file.chmod(0o600)
        arguments += ["--token-file", str(file)]
    process = subprocess.Popen(
        [sys.executable, "-m", "deployguard", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        yield Served(url, state, forensics, incident)
    finally:
        process.terminate()
        process.wait(30)
