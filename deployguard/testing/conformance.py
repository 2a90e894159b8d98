"""The driver conformance suite: what every driver MUST do, asked of a real service.

Subclass :class:`DriverConformance` in a test module and give it a ``case``::

    class TestMyDriver(DriverConformance):
        @pytest.fixture
        def case(self, tmp_path: Path) -> DriverCase: ...

The transactions are real ones, run by the host program; only the controller is the suite's own.
"""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import pytest

from deployguard.drivers.base import Operation, Steps
from deployguard.errors import ActionFailed
from deployguard.testing.drivercase import CRASH, STUBBORN, DriverCase, Trial, early_site

__all__ = ["DriverConformance"]

_ACTIONS = frozenset({"run", "spawn", "terminate", "pm2", "containers", "kubernetes"})
_QUESTIONS = frozenset({"properties", "status", "process", "pm2", "compose", "kubernetes"})
_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "fish", "busybox", "env", "eval"})


class DriverConformance:
    """The suite. The first part looks at what the driver says, the second does it."""

    @pytest.fixture
    def case(self) -> DriverCase:
        """The driver, and something real for it to run; see :class:`DriverCase`."""
        raise NotImplementedError("a conformance test has a fixture `case`")

    # -- what the driver says ------------------------------------------------------------------

    def test_it_is_pure(self, case: DriverCase) -> None:
        """Equal input gives equal output, the input is left as it was, and all of it is data."""
        case.deploy("v1")
        with Trial(case, "v2") as trial:
            for observed in (trial.observed, {}):
                given = copy.deepcopy(observed)
                first, second = _steps(trial, observed), _steps(trial, observed)
                assert first == second
                assert observed == given
                operations = _operations(first)
                assert pickle.loads(pickle.dumps(operations)) == operations
                assert json.loads(json.dumps(operations)) == operations
            questions = case.driver.observe(trial.component, trial.site)
            assert json.loads(json.dumps(questions)) == questions
            probe = case.driver.process_probe(trial.component, trial.site)
            assert json.loads(json.dumps(probe)) == probe

    def test_questions_need_no_places(self, case: DriverCase) -> None:
        """They are asked before the host has decided where anything stands."""
        with Trial(case, "v1") as trial:
            early = early_site(case, trial.session.hello)
            driver, component = case.driver, trial.component
            assert driver.observe(component, early) == driver.observe(component, trial.site)
            assert driver.process_probe(component, early) == driver.process_probe(
                component, trial.site
            )
            questions = driver.observe(component, early)
            assert {question["kind"] for question in questions} <= _QUESTIONS
            fields = [question["field"] for question in questions]
            assert len(set(fields)) == len(fields)
            assert set(trial.observed) == set(fields)

    def test_every_change_has_an_undo(self, case: DriverCase) -> None:
        """What an operation does its undo takes back; a refresh after has a refresh before."""
        case.deploy("v1")
        with Trial(case, "v2") as trial:
            steps = _steps(trial, trial.observed)
            refreshes = [op["undo"] for op in steps.refresh_before]
            # What is only loaded anew is undone once the files are back.
            titles = [op["title"] for op in steps.refresh_before if op["undo"] and not op["do"]]
            for operation in _operations(steps):
                paired = operation in steps.refresh_after and operation["do"] in refreshes
                paired = paired or (operation in steps.start and operation["title"] in titles)
                assert operation["undo"] or not operation["do"] or paired, operation["title"]

    def test_operations_are_well_formed(self, case: DriverCase) -> None:
        """Each has an id of its own, a title, and actions that the host program knows."""
        case.deploy("v1")
        with Trial(case, "v2") as trial:
            operations = trial.operations()
            identifiers = [operation["id"] for operation in operations]
            assert len(set(identifiers)) == len(identifiers)
            for operation in _operations(_steps(trial, trial.observed)):
                assert operation["component"] == case.name and operation["title"]
                assert operation["id"].startswith(f"{case.name}:")
                for action in (*operation["do"], *operation["undo"]):
                    assert action["act"] in _ACTIONS

    def test_no_shell_is_composed(self, case: DriverCase) -> None:
        """Programs are argv lists; a shell appears only where the plan itself names one."""
        case.deploy("v1")
        with Trial(case, "v2") as trial:
            own = list(_argvs(trial.component.model_dump(mode="json")))
            said = [_operations(_steps(trial, trial.observed))]
            said.append(case.driver.observe(trial.component, trial.site))
            said.append([case.driver.process_probe(trial.component, trial.site)])
            for argv in _named_argvs(said):
                assert isinstance(argv, list) and argv
                assert all(isinstance(word, str) and "\0" not in word for word in argv)
                assert argv in own or PurePosixPath(argv[0]).name not in _SHELLS, argv

    def test_it_has_titles(self, case: DriverCase) -> None:
        """``plan`` says what will restart."""
        titles = case.driver.titles(case.component("v1"))
        assert titles and all(title.strip() == title != "" for title in titles)

    # -- what it does --------------------------------------------------------------------------

    def test_the_first_deploy_and_back(self, case: DriverCase) -> None:
        """Where nothing ran nothing runs afterwards, and the service's own files are gone."""
        assert case.served() is None
        with Trial(case, "v1") as trial:
            assert not case.driver.running(trial.observed)
            assert {file["change"] for file in trial.looked["files"]} <= {"added"}
            trial.switch()
            case.await_served("v1")
            _restored(trial)
        case.await_served(None)
        with Trial(case, "v1") as again:
            assert _comparable(again) == _comparable(trial)
            assert {file["change"] for file in again.looked["files"]} <= {"added"}

    def test_a_running_service_and_back(self, case: DriverCase) -> None:
        """The new version runs, then the old one again, and all that must be the same is."""
        case.deploy("v1")
        with Trial(case, "v2") as trial:
            assert case.driver.running(trial.observed)
            trial.switch()
            case.await_served("v2")
            _restored(trial)
            case.await_served("v1")
        with Trial(case, "v2") as again:
            assert _comparable(again) == _comparable(trial)
            assert again.looked["files"] == _renamed(trial.looked["files"], again)

    def test_a_stopped_service_and_back(self, case: DriverCase) -> None:
        """A service that did not run is started by the deploy, and stopped by the undo."""
        case.deploy("v1")
        case.stop()
        case.await_served(None)
        with Trial(case, "v2") as trial:
            assert not case.driver.running(trial.observed)
            trial.switch()
            case.await_served("v2")
            _restored(trial)
        case.await_served(None)
        with Trial(case, "v2") as again:
            assert _comparable(again) == _comparable(trial)

    def test_a_commit_stays(self, case: DriverCase) -> None:
        """Two deploys in a row: the second stops what the first started."""
        case.deploy("v1")
        case.deploy("v2")
        assert case.served() == "v2"
        assert case.probe()["state"] == "healthy"

    def test_it_stopped_before_we_stopped_it(self, case: DriverCase) -> None:
        """Between the look and the stop the service may end by itself: no reason to fail."""
        case.deploy("v1")
        with Trial(case, "v2") as trial:
            case.stop()
            case.await_served(None)
            trial.switch()
            case.await_served("v2")
            _restored(trial)
            case.await_served("v1")

    def test_it_stopped_before_we_undid_it(self, case: DriverCase) -> None:
        """A new version that is dead already cannot be stopped, and need not be."""
        case.deploy("v1")
        with Trial(case, "v2") as trial:
            trial.switch()
            case.await_served("v2")
            case.stop()
            case.await_served(None)
            _restored(trial)
            case.await_served("v1")

    def test_a_version_that_crashes(self, case: DriverCase) -> None:
        """However often it was started in vain, the old version starts after it."""
        case.deploy("v1")
        with Trial(case, CRASH) as trial:
            # Where the switch says it already, what runs may be the old version, and well.
            assert not _switches(trial) or not trial.check(soak=3.0)
            assert case.served() == ("v1" if case.overlaps else None)
            _restored(trial)
            case.await_served("v1")

    def test_a_version_that_ignores_sigterm(self, case: DriverCase) -> None:
        """It is made to end, and the old version runs in its place."""
        case.deploy("v1")
        with Trial(case, STUBBORN) as trial:
            trial.switch()
            case.await_served(STUBBORN)
            _restored(trial)
            case.await_served("v1")
        case.deploy(STUBBORN)
        case.deploy("v2")

    def test_an_undo_of_what_was_never_done(self, case: DriverCase) -> None:
        """Power may fail between the record and the deed: the undo then finds nothing to undo."""
        case.deploy("v1")
        with Trial(case, "v2") as trial:
            steps = _steps(trial, trial.observed)
            trial.switch([{**operation, "do": []} for operation in _operations(steps)])
            assert case.served() == "v1"
            _restored(trial)
            case.await_served("v1")

    def test_an_undo_is_repeated(self, case: DriverCase) -> None:
        """A restore that fails half-way begins anew, also with what has been undone already."""
        case.deploy("v1")
        with Trial(case, "v2") as trial:
            broken: Operation = {
                "id": "suite:broken",
                "component": "suite",
                "title": "an undo that fails",
                "do": [],
                "undo": [{"act": "run", "argv": ["false"], "timeout": 10.0}],
            }
            trial.switch([broken, *trial.operations()])
            case.await_served("v2")
            for _ in range(2):
                result = trial.restore()
                assert [failure["id"] for failure in result["failures"]] == ["suite:broken"]
                assert result["verified"], result["differences"]
                case.await_served("v1")

    def test_the_probe_tells(self, case: DriverCase) -> None:
        """Healthy while the service runs, not healthy when it does not, never unknown."""
        case.deploy("v1")
        found = case.probe()
        assert found["state"] == "healthy", found["message"]
        case.stop()
        case.await_served(None)
        found = case.probe()
        assert found["state"] == "unhealthy", found["message"]


def _steps(trial: Trial, observed: dict[str, Any]) -> Steps:
    return trial.case.driver.steps(trial.case.name, trial.component, trial.site, observed)


def _operations(steps: Steps) -> list[Operation]:
    places = (steps.prepare, steps.stop, steps.refresh_before, steps.refresh_after, steps.start)
    return [operation for place in places for operation in place]


def _restored(trial: Trial) -> None:
    result = trial.restore()
    assert result["state"] == "restored", (result["failures"], result["differences"])


def _switches(trial: Trial) -> bool:
    """A crash may show at the start, or later; either is right."""
    try:
        trial.switch()
    except ActionFailed as error:
        if error.kind != "failed":
            raise
        return False
    return True


def _comparable(trial: Trial) -> dict[str, Any]:
    """Of what was observed, all that must be the same after a restore."""
    driver = trial.case.driver
    found: dict[str, Any] = {"running": driver.running(trial.observed)}
    for question in driver.observe(trial.component, trial.site):
        answer = trial.observed[question["field"]]
        found[question["field"]] = {name: answer.get(name) for name in question.get("same", ())}
    return found


def _renamed(files: list[dict[str, Any]], trial: Trial) -> list[dict[str, Any]]:
    """The same findings with the names that they have in another transaction."""
    beside = {file["path"]: file["beside"] for file in trial.looked["files"]}
    return [{**file, "beside": beside[file["path"]]} for file in files]


def _argvs(data: Any) -> Iterator[list[Any]]:
    """Every list in the data: any of them may be a command of the plan."""
    if isinstance(data, dict):
        for value in data.values():
            yield from _argvs(value)
    elif isinstance(data, (list, tuple)):
        yield list(data)
        for value in data:
            yield from _argvs(value)


def _named_argvs(data: Any) -> Iterator[Any]:
    """Every command the driver wants to run."""
    if isinstance(data, dict):
        for name, value in data.items():
            if name in ("argv", "on_timeout"):
                yield value
            else:
                yield from _named_argvs(value)
    elif isinstance(data, (list, tuple)):
        for value in data:
            yield from _named_argvs(value)
