"""Reading logs, and errors of a kind that they did not have before."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployguard.onhost.logs import source as logs
from deployguard.onhost.logs.source import Line, Source, Unreadable
from deployguard.onhost.probes import healthcheck
from deployguard.onhost.probes import logs as probe_logs
from deployguard.onhost.probes.base import CheckData
from deployguard.onhost.system import Completed, System
from tests.onhost.fake_system import FakeSystem, completed

system = System()
WORDS = ["error", "fatal", "critical", "panic", "exception", "traceback"]


def check(source: Source, **more: Any) -> CheckData:
    """A check of a log."""
    data: Any = {
        "id": "shop/logs",
        "component": "shop",
        "kind": "logs",
        "name": "logs",
        "critical": True,
        "timeout": 5.0,
        "interval": 0.05,
        "deadline": 5.0,
        "min_healthy_time": 0.0,
        "log": source,
        "history": 100_000,
        "words": WORDS,
        "ignore": [],
        "max_new": 0,
        **more,
    }
    result: CheckData = data
    return result


def watched(data: CheckData, baseline: Optional[Dict[str, Any]], mode: str = "deploy") -> Any:
    """The check in the result of a watch."""
    result = healthcheck.watch([data], system, mode=mode, baseline=baseline)
    return result["checks"][0]


class Log:
    """A log file, and a deploy over it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.check = check({"path": str(path)})
        self.baseline: Optional[Dict[str, Any]] = None

    def write(self, *lines: str) -> None:
        """The service logs."""
        with self.path.open("a") as file:
            file.writelines(line + "\n" for line in lines)

    def before(self) -> Dict[str, Any]:
        """The baseline, and the mark of the switch."""
        self.baseline = healthcheck.watch([self.check], system, mode="once")
        found: Dict[str, Any] = self.baseline["checks"][0]
        return found

    def switch(self) -> None:
        """The service has stopped."""
        self.check["mark"] = probe_logs.mark(self.check, None, system)

    def after(self) -> Any:
        """What the check finds."""
        return watched(self.check, self.baseline)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """A log with two kinds of error in it."""
    log = Log(tmp_path / "shop.log")
    log.write(
        "INFO started",
        "ERROR order 17 not found",
        "ERROR order 18 not found",
        "WARN cache is cold",
        "ValueError: invalid literal for int()",
    )
    return log


def test_old_errors_are_no_news(log: Log) -> None:
    """With other numbers, and however often."""
    before = log.before()
    assert before["state"] == "healthy"
    assert before["observed"]["shapes"] == [
        "ERROR order <*> not found",
        "ValueError: invalid literal for int()",
    ]
    assert before["message"] == f"2 kinds of error among 5 lines of {log.path}"
    log.switch()
    log.write("INFO started", *(f"ERROR order {number} not found" for number in range(50)))
    found = log.after()
    assert found["state"] == "healthy"
    assert found["message"] == f"no new kind of error in {log.path} since the switch"
    assert found["observed"] == {"lines": 51, "errors": 50, "new": []}


def test_a_new_kind_of_error_fails_at_once(log: Log) -> None:
    """Named, with how often it came; nobody waits for it to heal."""
    log.before()
    log.switch()
    log.write(
        "ERROR order 19 not found",
        "ERROR cannot import name 'telemetry'",
        "ERROR payment 1 refused by bank",
        "ERROR payment 2 refused by bank",
    )
    found = log.after()
    assert (found["state"], found["final"]) == ("unhealthy", True)
    assert found["message"] == (
        f"2 new kinds of error in {log.path} since the switch: "
        "ERROR payment <*> refused by bank (2 times); ERROR cannot import name 'telemetry'"
    )
    assert found["observed"]["new"][0] == {
        "shape": "ERROR payment <*> refused by bank",
        "count": 2,
        "first": "ERROR payment 1 refused by bank",
    }


def test_what_the_old_version_logged_before_it_stopped_is_not_the_new_ones(log: Log) -> None:
    """Between the baseline and the stop, and in its shutdown."""
    log.before()
    log.write("ERROR worker killed while it was busy")
    log.switch()
    log.write("INFO started")
    assert log.after()["state"] == "healthy"


def test_what_may_be_new_is_let_pass(log: Log) -> None:
    """By a pattern, as findings print it, and by number."""
    log.before()
    log.switch()
    log.write("2025-11-11 10:00:00 ERROR   retrying in 3 s", "ERROR no such user: bob")
    assert log.after()["state"] == "unhealthy"
    log.check["ignore"] = ["ERROR retrying in <*> s", "no such * bob"]
    assert log.after()["state"] == "healthy"
    log.check["ignore"] = ["ERROR retrying in <*> s"]
    assert log.after()["state"] == "unhealthy"
    log.check["max_new"] = 1
    found = log.after()
    assert found["state"] == "healthy" and "no more than allowed" in found["message"]


def test_a_log_that_was_rotated_is_read_from_its_start(log: Log) -> None:
    """The new file is all news."""
    log.before()
    log.switch()
    os.rename(log.path, log.path.with_suffix(".1"))
    log.write("ERROR brand new")
    assert log.after()["state"] == "unhealthy"


def test_a_line_that_is_half_written_waits_for_its_end(log: Log) -> None:
    """Half a line has another shape than the whole."""
    log.before()
    log.switch()
    with log.path.open("a") as file:
        file.write("ERROR order 1")
    assert log.after()["state"] == "healthy"
    log.write("0 not found")
    assert log.after()["state"] == "healthy"
    assert log.after()["observed"]["errors"] == 1


def test_a_log_that_is_not_there(tmp_path: Path) -> None:
    """Unknown, before and after; once it is there every error in it is new."""
    log = Log(tmp_path / "none.log")
    before = log.before()
    assert before["state"] == "unknown" and "there is no" in before["message"]
    log.switch()
    log.check["deadline"] = 0.1
    assert log.after()["state"] == "unknown"
    log.write("INFO started")
    assert log.after()["state"] == "healthy"
    log.write("ERROR x")
    found = log.after()
    assert found["state"] == "unhealthy"
    assert "there is no log from before the deploy to compare with" in found["message"]


def test_a_log_that_cannot_be_read(tmp_path: Path) -> None:
    """A directory, a pipe that nobody writes to."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(Unreadable):
            logs.read({"path": str(path)}, system, None, 1000, 1.0)


def test_nobody_noted_the_switch(log: Log) -> None:
    """Then nothing can be said about what came after it."""
    log.before()
    log.write("ERROR new")
    log.check["deadline"] = 0.1
    found = log.after()
    assert found["state"] == "unknown" and "nobody noted where" in found["message"]


def test_too_many_kinds_before_to_tell(log: Log) -> None:
    """An error that is not known may have been there all the same."""
    log.write(*(f"{chr(97 + n % 26)}{chr(97 + n // 26)} error" for n in range(300)))
    before = log.before()
    assert before["observed"]["full"]
    log.switch()
    log.check["deadline"] = 0.1
    assert log.after()["state"] == "healthy"
    log.write("a brand new error")
    found = log.after()
    assert found["state"] == "unknown" and "too many kinds" in found["message"]


def test_a_restore_does_not_look(log: Log) -> None:
    """What the old version logs proves nothing about the files."""
    log.before()
    log.switch()
    log.write("ERROR new")
    result = healthcheck.watch([log.check], system, mode="restore", baseline=log.baseline)
    assert result["healthy"] and result["checks"] == []


def test_a_long_log_keeps_its_start_and_its_end(tmp_path: Path) -> None:
    """Of what was written since the switch; of what was there before, the end."""
    path = tmp_path / "x"
    path.write_text("".join(f"line {n}\n" for n in range(10_000)))
    source: Source = {"path": str(path)}
    since = [line.text for line in logs.read(source, system, {"offset": 0}, 1000, 1.0)]
    assert since[0] == "line 0" and since[-1] == "line 9999" and len(since) < 120
    before = [line.text for line in logs.read(source, system, None, 1000, 1.0)]
    assert before[-1] == "line 9999" and len(before) < 120


# --- the journal ----------------------------------------------------------------------------------


def entry(text: Any, instance: str = "new", priority: str = "6", **more: Any) -> str:
    """One entry as journalctl writes it."""
    fields = {"MESSAGE": text, "PRIORITY": priority, "_SYSTEMD_INVOCATION_ID": instance, **more}
    return json.dumps(fields)


class Journal:
    """systemd's journal in a test: what journalctl is asked for, and says."""

    def __init__(self) -> None:
        self.fake = FakeSystem()
        self.before: List[str] = []
        self.after: List[str] = []
        self.status = 0
        self.errors = b""
        self.fake.programs = {
            "--after-cursor=c1": lambda _: self.says(self.after),
            "--lines=1 ": lambda _: completed('{"__CURSOR": "c1"}'),
            "--unit=shop.service": lambda _: self.says(self.before),
        }
        source: Source = {"unit": "shop.service", "scope": "system"}
        self.check = check(source, mark={"cursor": "c1", "since": 12.0})

    def says(self, lines: List[str]) -> Completed:
        """What journalctl prints."""
        text = "\n".join(lines).encode()
        return Completed(("journalctl",), self.status, text, self.errors, False, 0.0)

    def look(self, baseline: Optional[Dict[str, Any]]) -> Any:
        """One look."""
        data = self.check.copy()
        if baseline is not None:
            data["baseline"] = baseline
        return probe_logs.look(data, self.fake)


def test_the_journal_of_a_unit() -> None:
    """Words and priorities; what is no text comes as bytes; an entry may have lines."""
    journal = Journal()
    journal.before = [entry("ERROR a b c", "old"), entry("fine", "old"), "", "torn {", "[]"]
    before = journal.look(None)
    assert before.observed["shapes"] == ["ERROR a b c"]
    assert before.observed["instances"] == ["old"]
    assert "the journal of shop.service" in before.message
    journal.after = [
        entry("ERROR a b c"),
        entry("no word of it", priority="3"),
        entry(list(b"fine\nException: \xff")),
        entry(None),
    ]
    found = journal.look(before.observed)
    assert found.state == "unhealthy"
    assert [new["shape"] for new in found.observed["new"]] == ["no word of it", "Exception: \ufffd"]
    assert journal.fake.ran[-1][:2] == ["journalctl", "--no-pager"]
    assert "--after-cursor=c1" in journal.fake.ran[-1]


def test_the_last_words_of_the_old_run_are_not_the_new_ones() -> None:
    """The journal may be behind when the service has stopped; but where it was not restarted, its
    old run is all there is."""
    journal = Journal()
    journal.after = [entry("ERROR I was killed", "old")]
    assert journal.look({"shapes": [], "lines": 5, "instances": ["old"]}).state == "unhealthy"
    journal.after.append(entry("Started shop.", "", INVOCATION_ID="new"))
    assert journal.look({"shapes": [], "lines": 5, "instances": ["old"]}).state == "healthy"


def test_a_journal_that_may_not_be_read_is_unknown() -> None:
    """journalctl says so, and ends with status 0."""
    journal = Journal()
    journal.errors = b"Hint: You are currently not seeing messages from other users and the system."
    found = journal.look(None)
    assert found.state == "unknown" and "become: true" in found.message
    journal.errors, journal.status = b"No journal files were found.", 1
    found = journal.look({"shapes": []})
    assert found.state == "unknown" and "No journal files" in found.message


def test_a_cursor_that_is_refused_is_replaced_by_the_time() -> None:
    """A journal that was rotated away."""
    journal = Journal()
    journal.fake.programs = {
        "--after-cursor=c1": lambda _: completed("", 1),
        "--since=@12": lambda _: completed(entry("ERROR x")),
    }
    assert journal.look({"shapes": []}).state == "unhealthy"
    assert "--since=@12" in journal.fake.ran[-1]


def test_the_mark_of_a_journal() -> None:
    """A cursor, and the time in its place."""
    journal = Journal()
    assert probe_logs.mark(journal.check, None, journal.fake) == {
        "cursor": "c1",
        "since": journal.fake.now(),
    }


# --- which lines are errors -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("ERROR x", True),
        ("level=error msg=x", True),
        ("[error] x", True),
        ('{"level": 50, "msg": "x"}', True),
        ('{"level":60}', True),
        ('{"level": 30, "msg": "x"}', False),
        ("django.db.utils.OperationalError: x", True),
        ("java.lang.NullPointerException", True),
        ("panic: runtime", True),
        ("E1121 10:11:12 main.go:1] x", True),
        ("Traceback (most recent call last):", True),
        ("0 errors", False),
        ("error_count=0", False),
        ("terror", False),
        ("INFO all is well", False),
    ],
)
def test_what_an_error_is(text: str, error: bool) -> None:
    """A word, a name, a form; not every line that has these letters in it."""
    assert probe_logs.is_error(Line(text), WORDS) is error


@given(
    content=st.binary(max_size=3000),
    shapes=st.lists(st.text(max_size=80), max_size=5),
    ignore=st.lists(st.text(alphabet="aE*<> r", max_size=10), max_size=3),
)
def test_any_bytes_are_a_log(
    tmp_path_factory: pytest.TempPathFactory,
    content: bytes,
    shapes: List[str],
    ignore: List[str],
) -> None:
    """Before and after the switch; the answer is one, and can be sent."""
    path = tmp_path_factory.getbasetemp() / "any.log"
    path.write_bytes(content)
    data = check({"path": str(path)}, history=1000, ignore=ignore, words=["e", "r"])
    before = probe_logs.look(data, system)
    assert before.state == "healthy"
    data["baseline"], data["mark"] = before.observed, {"offset": 0}
    # Everything that is there now was there before, but for what the bounds have cut off.
    after = probe_logs.look(data, system)
    if len(content) <= 1000 and not before.observed["full"]:
        assert after.state == "healthy"
    data["baseline"] = {"shapes": shapes}
    after = probe_logs.look(data, system)
    json.dumps([before.observed, after.observed, after.message])


@given(stdout=st.binary(max_size=2000))
def test_any_answer_of_journalctl_is_lines(stdout: bytes) -> None:
    """Or none."""
    fake = FakeSystem()
    fake.programs = {"journalctl": lambda _: Completed(("journalctl",), 0, stdout, b"", False, 0.0)}
    for line in logs.read({"unit": "x.service"}, fake, {"cursor": "c"}, 1000, 1.0):
        assert isinstance(line.text, str)
