"""Nothing put in the outbox is lost, and nothing arrives twice, wherever the process dies."""

from __future__ import annotations

import itertools
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deployguard.delivery import Rejected, Undelivered
from deployguard.report.github import GitHubIssues
from deployguard.store.outbox import Entry, Outbox
from tests.github.server import TOKEN, GitHubServer, checked

PAYLOAD = {"title": "shop v1.2.4 failed", "labels": ["incident"], "log": "\udcff ü"}


class Crash(BaseException):
    """The process ends here."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the outbox is kept."""
    return tmp_path / "state.db"


@pytest.fixture
def box(file: Path) -> Iterator[Outbox]:
    """An outbox in a file of its own."""
    outbox = Outbox(file, clock=lambda: 1000.0)
    yield outbox
    outbox.close()


def _raises(problem: BaseException) -> Callable[[dict[str, Any]], object]:
    def send(payload: dict[str, Any]) -> object:
        raise problem

    return send


def _gives(result: object) -> Callable[[dict[str, Any]], object]:
    def send(payload: dict[str, Any]) -> object:
        return result

    return send


def _found(box: Outbox, key: str) -> Entry:
    entry = box.entry(key)
    assert entry is not None
    return entry


def test_a_report_is_kept_until_it_arrived(box: Outbox, file: Path) -> None:
    """Through a restart, with its payload intact and its result beside it afterwards."""
    assert box.put("github", "k1", PAYLOAD)
    again = Outbox(file, clock=lambda: 2000.0)
    (entry,) = again.pending()
    assert (entry.kind, entry.key, entry.payload) == ("github", "k1", PAYLOAD)
    assert (entry.created_at, entry.attempts, entry.state) == (1000.0, 0, "pending")
    (sent,) = again.deliver({"github": lambda payload: {"url": payload["title"]}})
    assert (sent.state, sent.delivered_at, sent.attempts) == ("delivered", 2000.0, 1)
    assert sent.result == {"url": "shop v1.2.4 failed"}
    assert sent == _found(box, "k1")
    assert box.pending() == []
    assert box.deliver({"github": _raises(AssertionError("sent twice"))}) == []
    again.close()


def test_a_key_is_put_once(box: Outbox) -> None:
    """The first payload stays, even after it arrived."""
    assert box.put("github", "k", {"n": 1})
    assert not box.put("github", "k", {"n": 2})
    box.deliver({"github": lambda payload: payload})
    assert not box.put("github", "k", {"n": 3})
    assert _found(box, "k").result == {"n": 1}
    assert _found(box, "k").state == "delivered"
    assert box.entry("another") is None


def test_undelivered_keeps_and_rejected_ends(box: Outbox) -> None:
    """What may work later is tried again; what was refused waits for a person."""
    box.put("mail", "m", {})
    box.put("github", "g", {})
    senders = {
        "mail": _raises(Undelivered("451 try later", retry_after=30)),
        "github": _raises(Rejected("401", "the token has expired")),
    }
    mail, github = box.deliver(senders)
    assert (mail.state, mail.last_error, mail.attempts) == ("pending", "451 try later", 1)
    assert (github.state, github.last_error) == ("rejected", "401 (the token has expired)")
    assert github.rejected_at == 1000.0
    assert box.pending() == [mail]
    assert box.rejected() == [github]
    assert [entry.key for entry in box.deliver(senders)] == ["m"]

    assert box.reopen("g")
    assert not box.reopen("g")
    assert not box.reopen("m")
    ok = dict.fromkeys(senders, _gives("ok"))
    assert {(entry.key, entry.state) for entry in box.deliver(ok)} == {
        ("m", "delivered"),
        ("g", "delivered"),
    }
    assert _found(box, "m").last_error is None


def test_a_channel_that_is_down_is_not_asked_again_at_once(box: Outbox) -> None:
    """One timeout a call, not one a report; other channels are tried all the same."""
    for key in ("g1", "g2"):
        box.put("github", key, {})
    box.put("mail", "m1", {})
    down = {"github": _raises(Undelivered("down")), "mail": _gives("ok")}
    assert [entry.key for entry in box.deliver(down)] == ["g1", "m1"]
    assert [entry.key for entry in box.pending()] == ["g2", "g1"]
    assert [entry.key for entry in box.deliver(down)] == ["g2"]


def test_a_report_nobody_can_send_waits(box: Outbox) -> None:
    """Its channel may be set up again in the next run."""
    box.put("pager", "p", {})
    assert box.deliver({"github": _gives(None)}) == []
    assert _found(box, "p").attempts == 0


def test_a_bug_in_a_sender_harms_only_its_own_report(box: Outbox) -> None:
    """And the text of an unknown error, which may hold a secret, is not kept."""

    def send(payload: dict[str, Any]) -> object:
        if payload:
            raise KeyError("ghp_secret")
        return object()

    box.put("github", "bad", {"n": 1})
    box.put("github", "good", {})
    bad, good = box.deliver({"github": send})
    assert (bad.state, good.state) == ("pending", "delivered")
    assert bad.last_error is not None
    assert bad.last_error.startswith("unforeseen KeyError at test_outbox.py:")
    assert "object" in good.result


def test_a_report_joins_the_transaction_of_its_outcome(file: Path) -> None:
    """On an open connection it becomes durable with the outcome, or not at all."""
    db = sqlite3.connect(file)
    db.row_factory = sqlite3.Row
    box = Outbox(db, clock=lambda: 0.0)
    db.execute("BEGIN")
    box.put("github", "k", {})
    db.rollback()
    assert box.pending() == []
    db.execute("BEGIN")
    box.put("github", "k", {})
    with pytest.raises(RuntimeError, match="commit first"):
        box.deliver({"github": _gives(None)})
    db.commit()
    box.close()
    assert [entry.key for entry in box.deliver({"github": _gives(None)})] == ["k"]
    db.close()


def test_one_process_delivers_at_a_time(box: Outbox, file: Path) -> None:
    """Two could both look, both find nothing and both create; putting goes on meanwhile."""
    other = Outbox(file, clock=lambda: 0.0)
    inner: list[Any] = []

    def send(payload: dict[str, Any]) -> object:
        inner.append(other.deliver({"github": _gives("twice")}))
        inner.append(other.put("github", "k2", {}))
        return "once"

    box.put("github", "k", {})
    box.deliver({"github": send})
    assert inner == [[], True]
    assert _found(box, "k").result == "once"
    assert [entry.key for entry in other.deliver({"github": _gives("ok")})] == ["k2"]
    other.close()


def test_in_memory() -> None:
    """For a caller without a file; nobody else can be delivering then."""
    box = Outbox(":memory:", clock=lambda: 0.0)
    box.put("github", "k", {})
    assert [entry.state for entry in box.deliver({"github": _gives(1)})] == ["delivered"]
    box.close()


def test_a_failed_write_leaves_no_transaction_open(box: Outbox) -> None:
    """Or nothing could be delivered from then on."""
    with pytest.raises(sqlite3.IntegrityError):
        box.put(None, "k", {})  # type: ignore[arg-type]
    box.put("github", "k", {})
    assert [entry.state for entry in box.deliver({"github": _gives(1)})] == ["delivered"]


DOOMED = """
import json, os, signal, sqlite3, sys
from deployguard.store.outbox import Outbox

state, world, fatal = sys.argv[1], sys.argv[2], int(sys.argv[3])
steps = 0

def step(*_):
    global steps
    steps += 1
    if steps == fatal:
        os.kill(os.getpid(), signal.SIGKILL)

def send(payload):
    step()
    sent = open(world).read().split() if os.path.exists(world) else []
    if payload["n"] not in sent:
        with open(world, "a") as out:
            out.write(payload["n"] + "\\n")
    step()
    return payload["n"]

db = sqlite3.connect(state, isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
db.set_trace_callback(step)
box = Outbox(db, clock=lambda: 0.0)
for key in ("first", "second"):
    box.put("file", key, {"n": key})
    print(key, flush=True)
box.deliver({"file": send})
"""


def _run(file: Path, world: Path, fatal: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", DOOMED, str(file), str(world), str(fatal)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_kill_at_every_step_loses_nothing(tmp_path: Path) -> None:
    """SIGKILL before each SQL statement and around each send; then a second run finishes.

    What ``put`` had returned for must be there without being put again, and the world must hold
    each report once.
    """
    for fatal in itertools.count(1):
        file, world = tmp_path / f"{fatal}.db", tmp_path / f"{fatal}.txt"
        first = _run(file, world, fatal)
        if first.returncode == 0:
            break
        assert first.returncode == -signal.SIGKILL, first.stderr
        box = Outbox(file, clock=lambda: 0.0)
        kept = {key for key in ("first", "second") if box.entry(key)}
        box.close()
        assert set(first.stdout.split()) <= kept
        second = _run(file, world, 0)
        assert second.returncode == 0, second.stderr
        box = Outbox(file, clock=lambda: 0.0)
        assert sorted(world.read_text().split()) == ["first", "second"]
        assert [_found(box, key).state for key in ("first", "second")] == ["delivered"] * 2
        box.close()
    assert fatal > 20  # every statement was reached, or the steps are not counted any more


@pytest.fixture
def github() -> Iterator[GitHubServer]:
    """A GitHub that nothing may be wrong with at the end."""
    with checked() as server:
        yield server


@pytest.mark.parametrize("death", ["before the send", "after the send", "answer lost, then dead"])
def test_an_issue_survives_the_death_of_its_sender(
    github: GitHubServer, file: Path, death: str
) -> None:
    """The outbox sends at least once, the markers make it once: together exactly once."""
    report = {
        "repo": "acme/shop",
        "title": "t",
        "body": "b",
        "labels": ["incident"],
        "fingerprint": "shop/v1.2.4/production",
        "transaction": "t-1",
        "comment": "again",
    }
    sleeps: list[float] = []
    issues = GitHubIssues(
        github.url, "acme/shop", lambda: TOKEN, clock=lambda: 0.0, sleep=sleeps.append
    )

    def die(payload: dict[str, Any]) -> object:
        if death == "answer lost, then dead":
            github.drop("after", method="post")
        if death != "before the send":
            issues.send(payload)
        raise Crash

    box = Outbox(file, clock=lambda: 0.0)
    box.put("github", "github:t-1", report)
    with pytest.raises(Crash):
        box.deliver({"github": die})
    box.close()

    box = Outbox(file, clock=lambda: 0.0)
    assert box.pending()[0].attempts == 1
    (entry,) = box.deliver({"github": issues.send})
    assert entry.state == "delivered"
    assert entry.result["url"] == "https://github.com/acme/shop/issues/1"
    assert len(github.repository.issues) == 1
    assert json.loads(json.dumps(entry.result)) == entry.result
    box.close()
