"""A host behind a point of no return: it waits for a person, whoever dies and however often."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import pytest

from deployguard.onhost import unattended
from deployguard.onhost.request import RequestError
from deployguard.onhost.state import locks, machine, migrations
from deployguard.onhost.system import Completed
from deployguard.onhost.transaction.operations import OperationFailed
from deployguard.onhost.transaction.participant import Participant
from tests.onhost.bench import Bench, Deploy, Services, operation

LAYOUTS = pytest.mark.parametrize("layout", ["releases", "in_place"])


class Machine(Services):
    """A machine with a database: ``migrate N``, ``is N`` and ``dump`` are its programs."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.schema = 1
        self.broken: List[str] = []

    def run(self, argv: Sequence[str], **options: Any) -> Completed:
        """One of its programs."""
        if argv[0] == "service":
            return super().run(argv, **options)
        status = 1 if argv[0] in self.broken else 0
        if argv[0] == "is":
            status = 0 if self.schema == int(argv[1]) else 1
        elif argv[0] == "dump":
            with open(options["output"], "wb", closefd=False) as stream:
                stream.write(b"schema %d" % self.schema)
        elif not status:
            self.schema = int(argv[1])
        return Completed(tuple(argv), status, b"", b"broken", False, 0.0)


class Migrating(Deploy):
    """A deploy with a migration before the start."""

    steps: Sequence[Dict[str, Any]] = ()
    crossed = ""

    def procedure(self) -> List[Dict[str, Any]]:
        """With its steps before the start."""
        found = super().procedure()
        return [*found[:-1], *self.steps, found[-1]]

    def arm(self) -> None:
        """As ever, with what is known of the other hosts."""
        plain = self.participant.arm
        self.participant.arm = lambda args: plain(  # type: ignore[method-assign]
            dict(args, crossed=self.crossed, migrations=[{"task": "migrate", "kind": "x"}])
        )
        super().arm()


def run(*argv: str) -> Dict[str, Any]:
    """A command of the plan."""
    return {"act": "run", "argv": list(argv), "timeout": 5.0, "ok": [0]}


def irreversible(unchanged: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
    """A migration without return."""
    step = operation("migrate", [run("migrate", "2")], [])
    return dict(step, migration="migrate", no_return="migrate", undo_once=True, unchanged=unchanged)


def reversible() -> Dict[str, Any]:
    """One with a down step."""
    step = operation("migrate", [run("migrate", "2")], [run("back", "1")])
    return dict(step, migration="migrate", undo_or_stop=True, undo_once=True)


@pytest.fixture(params=["releases", "in_place"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    """v1 is live, with schema 1."""
    made = Bench(str(tmp_path), request.param)
    made.system = Machine(made)
    made.release("v1")
    return made


def database(bench: Bench) -> Machine:
    """The machine as what it is."""
    assert isinstance(bench.system, Machine)
    return bench.system


def deploy(bench: Bench, *steps: Dict[str, Any], crossed: str = "", to: str = "switch") -> Deploy:
    """Deploy v2 up to a step."""
    plain = bench.deploy("v2")
    made = Migrating(bench, "v2", plain._source, {})
    made.steps, made.crossed = list(steps), crossed
    return made.to(to)


def again(bench: Bench, folder: str) -> Participant:
    """A new process that goes on with the transaction by itself, as the dead-man does."""
    alive = locks.keep_alive(folder)
    assert alive is not None
    found = bench.participant()
    found.reopen(folder, alive)
    found.hand_over()
    return found


def test_it_holds(bench: Bench) -> None:
    """A restore changes nothing, says why, and may be asked for again."""
    mine = deploy(bench, irreversible())
    world = bench.world()
    answer = mine.participant.restore()
    assert answer["state"] == "switched" and not answer["verified"]
    held = {"task": "migrate", "here": True, "live": "new", "switched": True, "dumps": []}
    assert answer["held"] == held == mine.participant.restore()["held"]
    assert bench.world() == world and bench.served == "v2"
    assert bench.locks()
    mine.close()


@pytest.mark.parametrize("step", ["switch", "check", "prepare"])
def test_nobody_goes_back_unasked(bench: Bench, step: str) -> None:
    """Not when the process dies and the lease ends, not after the next boot, not twice."""
    mine = deploy(bench, irreversible(), to=step)
    folder, world = mine.participant.folder, bench.world()
    mine.die()
    for _ in range(2):
        process = again(bench, folder)
        assert unattended.finish(process, bench.system)
        process.close()
    assert bench.world() == world
    assert (bench.served, database(bench).schema) == ("v2", 2)


def test_the_other_hosts_hold_as_well(bench: Bench) -> None:
    """They were told when they were armed; one that was not touched yet just goes back."""
    armed = deploy(bench, crossed="migrate", to="arm")
    assert armed.participant.restore()["state"] == "restored"
    armed.participant.finish()
    armed.close()
    switched = deploy(bench, crossed="migrate")
    assert switched.participant.restore()["held"]["here"] is False
    assert bench.served == "v2"
    switched.close()


def test_a_person_keeps_it(bench: Bench) -> None:
    """The vote and the decision, as in any deploy; nothing is held any more."""
    mine = deploy(bench, irreversible())
    mine.participant.restore()
    mine.participant.prepare()
    assert not mine.participant.held
    mine.participant.commit()
    mine.close()
    assert bench.record()["version"] == "v2" and bench.locks() == []
    assert bench.record()["migrations"] == [{"task": "migrate", "kind": "x"}]


def test_a_person_goes_back(bench: Bench) -> None:
    """Everything but the migration is undone, also by the process after the one that was told."""
    before = bench.world()
    mine = deploy(bench, irreversible())
    folder = mine.participant.folder
    mine.participant.restore()
    mine.participant._journal.append("restoring", no_return="accepted")  # type: ignore[union-attr]
    mine.die()
    process = again(bench, folder)
    assert unattended.finish(process, bench.system)
    process.close()
    assert bench.world() == before
    assert (bench.served, database(bench).schema) == ("v1", 2)


def test_a_commit_does_not_follow(bench: Bench) -> None:
    """Once the way back has begun the new version cannot be kept."""
    mine = deploy(bench, irreversible())
    answer = mine.participant.restore({"no_return": True})
    assert answer["state"] == "restored" and answer["stays"] == ["migrate"]
    with pytest.raises((RequestError, machine.IllegalEvent)):
        mine.participant.commit()
    mine.close()


def test_it_changed_nothing(bench: Bench) -> None:
    """The plan's command proves it; then it is a restore like any other, to its end."""
    database(bench).broken.append("migrate")
    before = bench.world()
    mine = deploy(bench, irreversible(run("is", "1")), to="arm")
    with pytest.raises(OperationFailed):
        mine.to("switch")
    assert mine.restore()["state"] == "restored"
    assert bench.world() == before
    mine.close()


def test_a_down_step_that_fails_ends_it(bench: Bench) -> None:
    """Below it nothing is undone; the next try goes on there, or goes over it."""
    before = bench.world()
    mine = deploy(bench, reversible())
    database(bench).broken.append("back")
    answer = mine.participant.restore()
    assert (answer["state"], answer["stays"]) == ("stuck", ["migrate"])
    assert (bench.live_version(), bench.served) == ("v2", None)
    assert mine.participant.restore()["state"] == "stuck"
    database(bench).broken.clear()
    assert mine.restore()["state"] == "restored"
    assert bench.world() == before and database(bench).schema == 1
    mine.close()
    over = deploy(bench, reversible())
    database(bench).broken.append("back")
    assert over.participant.restore()["state"] == "stuck"
    assert over.participant.restore({"no_return": True})["state"] == "restored"
    assert (bench.served, database(bench).schema) == ("v1", 2)
    over.close()


def test_stopped_until_the_schema_is_back(bench: Bench) -> None:
    """Only the new service is stopped; the rest comes when it is asked for, and once."""
    before = bench.world()
    mine = deploy(bench)
    assert mine.participant.restore({"stop": True})["state"] == "switched"
    assert (bench.live_version(), bench.served) == ("v2", None)
    assert mine.restore()["state"] == "restored"
    assert bench.world() == before and bench.served == "v1"
    mine.close()


def test_a_dump_is_made_and_named(bench: Bench, tmp_path: Path) -> None:
    """Before the migration, for its owner only; the one that is held says where it is."""
    path = tmp_path / "state" / "dumps" / "t1~migrate.dump"
    dump = {"act": "dump", "argv": ["dump"], "path": str(path), "timeout": 5.0, "keep": 1}
    mine = deploy(bench, operation("dump", [dump], []), irreversible())
    assert path.read_bytes() == b"schema 1"
    assert path.stat().st_mode & 0o777 == 0o600
    answer = mine.participant.restore()
    assert answer["held"]["dumps"] == [str(path)]
    mine.close()


def test_what_is_no_dump_does_not_stay(bench: Bench, tmp_path: Path) -> None:
    """A program that fails, or that writes nothing, or nothing that opens."""
    system = database(bench)
    path = tmp_path / "dumps" / "a~b.dump"
    action: Dict[str, Any] = {"argv": ["dump"], "path": str(path), "timeout": 5.0}
    assert migrations.make_dump(action, system) == ""
    path.unlink()
    assert "status 1" in migrations.make_dump(dict(action, opens=["is", "9"]), system)
    assert migrations.make_dump(dict(action, argv=["is", "1"]), system) == "the dump is empty"
    assert "status 1" in migrations.make_dump(dict(action, argv=["is", "9"]), system)
    assert list(path.parent.iterdir()) == []
