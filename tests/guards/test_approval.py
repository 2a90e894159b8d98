"""`approval`: a person at a terminal, or a token where there is none."""

from __future__ import annotations

import hashlib
import os
import pty
import select
import signal
import subprocess
import sys
from dataclasses import dataclass

import pytest

from tests.guards.conftest import Shop

TOKEN = "approved-by-the-release-manager"
SHA256 = hashlib.sha256(TOKEN.encode()).hexdigest()


def test_nobody_to_ask_is_refused(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """No terminal and no token; a token that is not the one."""
    monkeypatch.delenv("DEPLOYGUARD_APPROVAL", raising=False)
    shop.guarded({"approval": {}})
    shop.assert_refused("approval", "nobody can be asked: there is no terminal")
    shop.guarded({"approval": {"sha256": SHA256}})
    shop.assert_refused("approval", "$DEPLOYGUARD_APPROVAL is not set")
    monkeypatch.setenv("DEPLOYGUARD_APPROVAL", "yes please")
    refused = shop.assert_refused("approval", "is not the token that the plan asks for")
    assert "yes please" not in refused.err + refused.out


def test_the_token_passes(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is shown nowhere, and that it was given stands in the timeline."""
    monkeypatch.setenv("DEPLOYGUARD_APPROVAL", TOKEN)
    shop.guarded({"approval": {"sha256": SHA256}})
    done = shop.assert_passes("approval", "approved by the token in $DEPLOYGUARD_APPROVAL")
    assert TOKEN not in done.err + done.out
    notes = [event["message"] for event in done.lines[-1]["timeline"]]
    assert "approved by the token in $DEPLOYGUARD_APPROVAL" in notes


def test_it_is_not_overridden(shop: Shop) -> None:
    """Who may approve says yes."""
    shop.guarded({"approval": {}})
    assert shop.apply("--override", "approval=I am in a hurry").code == 2


@dataclass
class Terminal:
    """A deploy on a terminal of its own."""

    process: subprocess.Popen[bytes]
    end: int
    seen: str = ""

    def read_until(self, words: str) -> None:
        """Read what is shown until these words are."""
        while words not in self.seen:
            ready, _, _ = select.select([self.end], [], [], 30)
            assert ready, self.seen
            try:
                self.seen += os.read(self.end, 4096).decode(errors="replace")
            except OSError:
                raise AssertionError(self.seen) from None

    def type(self, line: str) -> None:
        """What a person types, with Enter."""
        os.write(self.end, f"{line}\n".encode())

    def ended(self) -> int:
        """The exit code, when everything that it shows was read."""
        while True:
            try:
                piece = os.read(self.end, 4096)
            except OSError:
                break
            if not piece:
                break
            self.seen += piece.decode(errors="replace")
        return self.process.wait(timeout=30)


def on_a_terminal(shop: Shop) -> Terminal:
    """Begin to deploy v2 as a person would."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "deployguard", "apply", str(shop.site.plan), "--release", "v2"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
    )
    os.close(theirs)
    return Terminal(process, ours)


def test_a_person_says_yes(shop: Shop) -> None:
    """What is going to happen is shown, and the name of the environment has to be typed."""
    shop.guarded({"approval": {}})
    person = on_a_terminal(shop)
    person.read_until("type test to go on")
    assert "demo v2 is about to be deployed to test" in person.seen
    assert "web: v1 → v2 on here" in person.seen
    person.type("test")
    assert person.ended() == 0, person.seen
    assert "v2" in shop.served()


def test_a_person_says_something_else(shop: Shop) -> None:
    """`y` is no yes: fingers say it by themselves."""
    shop.guarded({"approval": {}})
    with shop.untouched():
        person = on_a_terminal(shop)
        person.read_until("type test to go on")
        person.type("y")
        assert person.ended() == 5, person.seen
    assert "did not approve" in person.seen


def test_a_person_interrupts(shop: Shop) -> None:
    """Ctrl-C while it waits is an interrupt, and the hosts are as they were."""
    shop.guarded({"approval": {}})
    with shop.untouched():
        person = on_a_terminal(shop)
        person.read_until("type test to go on")
        person.process.send_signal(signal.SIGINT)
        assert person.ended() == 7, person.seen


def test_nobody_answers(shop: Shop) -> None:
    """The deadline is an answer as well."""
    shop.guarded({"approval": {"deadline": "300ms"}})
    with shop.untouched():
        person = on_a_terminal(shop)
        person.read_until("type test to go on")
        assert person.ended() == 5, person.seen
