"""What controller and jobs write to each other, in a real database."""

from __future__ import annotations

import pytest

from deployguard.store.mailbox import Mailbox, Run
from deployguard.store.postgres import PostgresJournal


@pytest.fixture
def mailbox(journal: PostgresJournal) -> Mailbox:
    """For the transaction `one` with two hosts."""
    about = {"plan": "shop", "version": "v2", "environment": "e", "source": "", "owner": "ann"}
    journal.begin({"id": "one", "started_at": 1.0, **about}, ["web1", "web2"])
    opened = journal.mailbox()
    opened.open("one", ["web1", "web2"])
    opened.open("one", ["web1", "web2"])
    yield opened
    journal._database.do("TRUNCATE deployguard_transactions CASCADE")


def test_an_order_and_its_answer(mailbox: Mailbox) -> None:
    """Numbered, and heard once."""
    entry = mailbox.enter("one", "web1", "worker:1")
    assert entry is not None and (entry.attempt, entry.held) == (1, 0)
    mailbox.order("one", "web1", 1, b"switch")
    (job,) = mailbox.jobs("one", ["web1"])
    assert (job.ordered, job.answered, job.content, job.worker) == (1, 0, b"switch", "worker:1")
    mailbox.say("one", "web1", 1, [(10, b"event"), (11, b"done")], answered=1, held=1)
    mailbox.say("one", "web1", 1, [(11, b"done")], answered=1, held=1)
    heard = mailbox.hear("one", {"web1": 0, "web2": 0})
    assert [(m.host, m.number, m.content) for m in heard] == [
        ("web1", 10, b"event"),
        ("web1", 11, b"done"),
    ]
    assert mailbox.hear("one", {"web1": 11, "web2": 0}) == []
    (job,) = mailbox.jobs("one", ["web1"])
    assert (job.answered, job.held) == (1, 1)


def test_an_earlier_entry_is_not_heard(mailbox: Mailbox) -> None:
    """The second knows what the first has held; what the first says now is lost."""
    mailbox.enter("one", "web1", "worker:1")
    mailbox.say("one", "web1", 1, [], held=1)
    second = mailbox.enter("one", "web1", "worker:2")
    assert second is not None and (second.attempt, second.held) == (2, 1)
    mailbox.say("one", "web1", 1, [(99, b"late")], answered=5, held=9)
    assert mailbox.hear("one", {"web1": 0}) == []
    (job,) = mailbox.jobs("one", ["web1"])
    assert (job.answered, job.held, job.worker) == (0, 1, "worker:2")
    before = job.beats
    mailbox.alive("one", {"web1": 1})
    mailbox.alive("one", {"web1": 2, "web2": 0})
    assert [job.beats for job in mailbox.jobs("one", ["web1"])] == [before + 1]


def test_nobody_enters_any_more(mailbox: Mailbox) -> None:
    """A host that was withdrawn, a controller that has left, a transaction that has ended."""
    mailbox.withdraw("one", "web1")
    assert mailbox.enter("one", "web1", "worker:1") is None
    assert mailbox.enter("one", "web2", "worker:1") is not None
    mailbox.beat("one")
    assert mailbox.run("one") == Run(beats=1, closed=False)
    mailbox.close("one")
    assert mailbox.run("one") == Run(beats=1, closed=True)
    assert mailbox.enter("one", "web2", "worker:1") is None
    assert mailbox.run("two") is None and mailbox.enter("two", "web1", "worker:1") is None


def test_parcels(mailbox: Mailbox, journal: PostgresJournal) -> None:
    """In pieces, and put again when it was not known whether they had been; gone at the end."""
    mailbox.put("one", "plan", [b"a", b"b"])
    mailbox.put("one", "plan", [b"a", b"c"])
    assert list(mailbox.take("one", "plan")) == [b"a", b"c"]
    assert list(mailbox.take("one", "nothing")) == []
    ended = {"ended_at": 2.0, "status": "committed", "exit_code": 0, "summary": ""}
    journal.end("one", ended)
    assert list(mailbox.take("one", "plan")) == [] and mailbox.run("one") is None
    assert mailbox.jobs("one") == []
