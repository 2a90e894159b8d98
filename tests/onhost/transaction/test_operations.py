"""Procedures: what was done is undone, from any point; a failing undo does not stop the rest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict, List

import pytest

from deployguard.onhost.state.journal import Journal
from deployguard.onhost.state.supervised import running
from deployguard.onhost.system import System
from deployguard.onhost.transaction.operations import Executor, OperationFailed
from deployguard.onhost.trees.kept import carry, matches


def _executor(folder: Path) -> Executor:
    journal = Journal(str(folder / "journal"), lambda: 0.0)
    return Executor(journal, System(), lambda event: None, lambda component: None)


def _op(name: str, do: List[Dict[str, Any]], undo: List[Dict[str, Any]]) -> Dict[str, Any]:
    return {"id": "c:" + name, "component": "c", "title": name, "do": do, "undo": undo}


def _touch(path: Path) -> Dict[str, Any]:
    return {"act": "run", "argv": ["touch", str(path)], "timeout": 10.0}


def _remove(path: Path) -> Dict[str, Any]:
    return {"act": "run", "argv": ["rm", str(path)], "timeout": 10.0}


def test_do_then_undo_in_reverse(tmp_path: Path) -> None:
    """Each undo runs, last first: the second's undo would fail in any other order."""
    directory, file = tmp_path / "d", tmp_path / "d" / "f"
    make = {"act": "run", "argv": ["mkdir", str(directory)], "timeout": 10.0}
    drop = {"act": "run", "argv": ["rmdir", str(directory)], "timeout": 10.0}
    procedure = [_op("a", [make], [drop]), _op("b", [_touch(file)], [_remove(file)])]
    executor = _executor(tmp_path)
    executor.do(procedure)
    assert file.exists()
    assert executor.undo(procedure) == []
    assert not directory.exists()


def test_failure_names_the_step_and_its_output(tmp_path: Path) -> None:
    """The error has the title, the command, the status and what it said."""
    broken = {"act": "run", "argv": ["ls", str(tmp_path / "absent")], "timeout": 10.0}
    executor = _executor(tmp_path)
    with pytest.raises(OperationFailed) as caught:
        executor.do([_op("look", [broken], [])])
    assert caught.value.operation == "c:look"
    assert "status 2" in str(caught.value) and "absent" in str(caught.value)


def test_an_undo_that_fails_does_not_keep_the_others(tmp_path: Path) -> None:
    """The failure is reported, and the operations before it are undone all the same."""
    first, second = tmp_path / "1", tmp_path / "2"
    procedure = [
        _op("a", [_touch(first)], [_remove(first)]),
        _op("b", [_touch(second)], [_remove(tmp_path / "never-there")]),
    ]
    executor = _executor(tmp_path)
    executor.do(procedure)
    failures = executor.undo(procedure)
    assert [failure["title"] for failure in failures] == ["b"]
    assert not first.exists() and second.exists()


def test_undo_from_a_new_process_after_the_intent(tmp_path: Path) -> None:
    """A swap whose ``done`` was never written is undone if it happened, left alone if not."""
    for happened in (True, False):
        folder = tmp_path / str(happened)
        folder.mkdir()
        live, beside = folder / "live", folder / "beside"
        live.mkdir()
        (live / "old").touch()
        beside.mkdir()
        (beside / "new").touch()
        pair = {"live": str(live), "beside": str(beside)}
        procedure = [_op("swap", [{"act": "swap", **pair}], [{"act": "swap_back", **pair}])]
        journal = Journal(str(folder / "journal"), lambda: 0.0)
        executor = Executor(journal, System(), lambda event: None, lambda component: None)
        facts = executor._facts(procedure[0])
        journal.append("intent", operation=0, id="c:swap", facts=facts)
        if happened:
            os.rename(str(live), str(folder / "tmp"))
            os.rename(str(beside), str(live))
            os.rename(str(folder / "tmp"), str(beside))
        journal.close()
        assert _executor(folder).undo(procedure) == []
        assert (live / "old").exists() and (beside / "new").exists()


def test_a_second_undo_is_a_whole_one(tmp_path: Path) -> None:
    """A reboot may have undone the undo; only what says so is not repeated once it is done."""
    file, log = tmp_path / "f", tmp_path / "log"
    again = {"act": "run", "argv": ["touch", str(log)], "timeout": 10.0}
    procedure = [
        _op("a", [_touch(file)], [again]),
        dict(_op("task", [], [_remove(file)]), undo_once=True),
    ]
    _executor(tmp_path).do(procedure)
    assert _executor(tmp_path).undo(procedure) == []
    log.unlink()
    assert _executor(tmp_path).undo(procedure) == []
    assert log.exists()


def test_an_undo_once_that_failed_is_tried_again(tmp_path: Path) -> None:
    """Once means once with success."""
    file = tmp_path / "f"
    procedure = [dict(_op("task", [], [_remove(file)]), undo_once=True)]
    executor = _executor(tmp_path)
    executor.do(procedure)
    assert len(executor.undo(procedure)) == 1
    file.touch()
    assert executor.undo(procedure) == [] and not file.exists()
    assert executor.undo(procedure) == []


def test_until_the_answer_is_right(tmp_path: Path) -> None:
    """A command that is asked again gives the right status the third time, or fails for good."""
    count = tmp_path / "count"
    script = 'echo x >> "$1"; test "$(wc -l < "$1")" -ge 3'
    ask = {"act": "run", "argv": ["sh", "-c", script, "sh", str(count)], "timeout": 10.0}
    _executor(tmp_path).do([_op("ask", [dict(ask, until=60.0)], [])])
    assert count.read_text() == "x\nx\nx\n"
    count.unlink()
    with pytest.raises(OperationFailed):
        _executor(tmp_path).do([_op("ask", [dict(ask, until=0.0)], [])])
    assert count.read_text() == "x\n"


def test_a_program_that_ends_at_once_does_not_run(tmp_path: Path) -> None:
    """It has no start time on record, and so has every pid that is not in use."""
    pid_file = str(tmp_path / "pid")
    spawn = {
        "act": "spawn",
        "argv": ["true"],
        "env": {},
        "cwd": str(tmp_path),
        "log": str(tmp_path / "log"),
        "pid_file": pid_file,
    }
    stop = {"act": "terminate", "pid_file": pid_file, "signal": "TERM", "timeout": 5.0}

    class Late(System):
        """Never in time to see the program alive."""

        def process_start_time(self, pid: int) -> None:
            return None

    journal = Journal(str(tmp_path / "journal"), lambda: 0.0)
    executor = Executor(journal, Late(), lambda event: None, lambda component: None)
    procedure = [_op("start", [spawn], [stop])]
    executor.do(procedure)
    assert running(pid_file, Late()) is None
    assert executor.undo(procedure) == []
    assert not os.path.exists(pid_file)


def test_swap_of_a_first_deploy(tmp_path: Path) -> None:
    """Where nothing was live the swap is a rename, and the undo leaves nothing live."""
    live, beside = tmp_path / "live", tmp_path / "beside"
    beside.mkdir()
    pair = {"live": str(live), "beside": str(beside)}
    procedure = [_op("swap", [{"act": "swap", **pair}], [{"act": "swap_back", **pair}])]
    executor = _executor(tmp_path)
    executor.do(procedure)
    assert live.is_dir() and not beside.exists()
    assert executor.undo(procedure) == []
    assert beside.is_dir() and not live.exists()


def test_swap_back_refuses_strangers(tmp_path: Path) -> None:
    """If somebody replaced both trees meanwhile, nothing is moved and it says so."""
    live, beside = tmp_path / "live", tmp_path / "beside"
    live.mkdir()
    beside.mkdir()
    pair = {"live": str(live), "beside": str(beside)}
    procedure = [_op("swap", [{"act": "swap", **pair}], [{"act": "swap_back", **pair}])]
    executor = _executor(tmp_path)
    executor.do(procedure)
    live.rename(tmp_path / "x")
    beside.rename(tmp_path / "y")
    live.mkdir()
    beside.mkdir()
    (failure,) = executor.undo(procedure)
    assert "somebody moved them" in failure["message"]


def test_carry_moves_and_brings_back(tmp_path: Path) -> None:
    """Kept paths go over by rename, come back with what was written meanwhile, times as before."""
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "data" / "uploads").mkdir(parents=True)
    (old / "data" / "uploads" / "a").write_text("before")
    (old / ".env").write_text("SECRET=1")
    (old / "data" / "code").write_text("release")
    (new / "data").mkdir(parents=True)
    os.utime(str(old / "data"), ns=(10**18, 10**18))
    os.utime(str(old), ns=(10**18 + 5, 10**18 + 5))
    patterns = ["data/uploads/", ".env", "*.sqlite3"]
    procedure = [
        _op(
            "keep",
            [{"act": "carry", "source": str(old), "target": str(new), "patterns": patterns}],
            [{"act": "carry", "source": str(new), "target": str(old), "patterns": patterns}],
        )
    ]
    executor = _executor(tmp_path)
    executor.do(procedure)
    assert (new / "data" / "uploads" / "a").read_text() == "before"
    assert not (old / ".env").exists() and (old / "data" / "code").exists()
    (new / "data" / "uploads" / "b").write_text("written during the trial")
    (new / "db.sqlite3").write_text("made during the trial")
    assert executor.undo(procedure) == []
    assert (old / "data" / "uploads" / "b").read_text() == "written during the trial"
    assert (old / "db.sqlite3").exists() and (old / ".env").read_text() == "SECRET=1"
    assert os.stat(str(old / "data")).st_mtime_ns == 10**18


def test_carry_can_be_repeated(tmp_path: Path) -> None:
    """After a crash half-way the same carry finishes the rest."""
    source, target = tmp_path / "s", tmp_path / "t"
    source.mkdir()
    target.mkdir()
    for name in ("a.db", "b.db"):
        (source / name).write_text(name)
    os.rename(str(source / "a.db"), str(target / "a.db"))
    assert carry(str(source), str(target), ["*.db"], {}) == ["b.db"]
    assert sorted(os.listdir(str(target))) == ["a.db", "b.db"]


def test_what_was_never_moved_stays(tmp_path: Path) -> None:
    """On the way back the host's own file wins over the default of the release."""
    old, new = tmp_path / "old", tmp_path / "new"
    for tree, text in ((old, "the host's"), (new, "default")):
        tree.mkdir()
        (tree / "settings").write_text(text)
    info = os.lstat(str(old / "settings"))
    originals: Dict[str, Any] = {"settings": info.st_ino}
    assert carry(str(new), str(old), ["settings"], {}, originals) == []
    assert (old / "settings").read_text() == "the host's"
    (old / "settings").unlink()
    assert carry(str(new), str(old), ["settings"], {}, originals) == ["settings"]


def test_matches_are_outermost(tmp_path: Path) -> None:
    """A match below another match is not moved a second time."""
    (tmp_path / "up" / "sub").mkdir(parents=True)
    (tmp_path / "up" / "sub" / "f.db").touch()
    assert matches(str(tmp_path), ["up/", "**/*.db"]) == ["up"]


def test_timeout_uses_the_kill_and_tries_again(tmp_path: Path) -> None:
    """A stop that hangs is killed as the procedure says, and then it works."""
    flag = tmp_path / "killed"
    hangs = ["sh", "-c", 'test -e "$1" || exec sleep 30', "sh", str(flag)]
    action = {"act": "run", "argv": hangs, "timeout": 0.3, "on_timeout": ["touch", str(flag)]}
    _executor(tmp_path).do([_op("stop", [action], [])])
    assert flag.exists()


def test_what_a_boot_may_have_started_is_stopped_first(tmp_path: Path) -> None:
    """`undo_always`: undone though not begun, and first, once its component was touched."""
    log = tmp_path / "log"

    def note(word: str) -> List[Dict[str, Any]]:
        argv = ["sh", "-c", "echo %s >> %s" % (word, log)]
        return [{"act": "run", "argv": argv, "timeout": 10.0}]

    swap, start = _op("swap", [], note("back")), _op("start", [], note("stop"))
    other = dict(_op("other", [], note("nobody")), component="d", undo_always=True)
    executor = _executor(tmp_path)
    executor.do([swap])
    procedure = [swap, dict(start, undo_always=True), _op("late", [], note("late")), other]
    assert executor.undo(procedure) == []
    assert log.read_text().split() == ["stop", "back"]


def test_what_is_undone_only_after_another_was_begun(tmp_path: Path) -> None:
    """Before the swap it would be the old service that an undo of the start stops."""
    log = tmp_path / "log"
    argv = ["sh", "-c", "echo stop >> %s" % log]
    prepare, swap = _op("prepare", [], []), _op("swap", [], [])
    stop = {"act": "run", "argv": argv, "timeout": 10.0}
    start = dict(_op("start", [], [stop]), undo_always=swap["id"])
    executor = _executor(tmp_path)
    executor.do([prepare])
    assert executor.undo([prepare, swap, start]) == []
    assert not log.exists()
    executor.do([prepare, swap])
    assert executor.undo([prepare, swap, start]) == []
    assert log.read_text().split() == ["stop"]


def test_a_name_that_is_left_has_touched_nothing(tmp_path: Path) -> None:
    """What runs is not stopped for an operation that has nothing to undo, such as a tag."""
    (tmp_path / "started").touch()
    stop = [{"act": "run", "argv": ["rm", str(tmp_path / "started")], "timeout": 10.0}]
    procedure = [_op("tag", [], []), dict(_op("start", [], stop), undo_always=True)]
    executor = _executor(tmp_path)
    executor.do(procedure[:1])
    assert executor.undo(procedure) == []
    assert (tmp_path / "started").exists()
