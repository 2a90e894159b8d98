"""Each kind of migration, in a deploy that is good and in deploys that fail."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.migrations.conftest import Pair

BOTH_V1, BOTH_V2 = {"web1": "v1", "web2": "v1"}, {"web1": "v2", "web2": "v2"}


def test_a_good_deploy(pair: Pair) -> None:
    """Once, with the new code, before any new code starts anywhere."""
    pair.release("v2", "2")
    pair.migration("reversible")
    done = pair.apply("v2")
    assert done.code == 0, done.err
    assert (pair.served(), pair.schema) == (BOTH_V2, 2)
    assert pair.diary() == [
        "v2 migrates 1 to 2",
        "web1 starts v2 with schema 2",
        "web2 starts v2 with schema 2",
    ]
    again = pair.apply("v2")
    assert again.lines[-1]["status"] == "unchanged"
    assert pair.diary() == []


def test_reversible_is_taken_back_by_the_code_that_knows_it(pair: Pair) -> None:
    """The last host fails: new code stops everywhere, the down step runs, old code starts last."""
    pair.release("v2", "2", BROKEN="web2")
    pair.migration("reversible")
    failed = pair.apply("v2")
    assert failed.code == 3, failed.err
    assert (pair.served(), pair.schema) == (BOTH_V1, 1)
    assert pair.diary() == [
        "v2 migrates 1 to 2",
        "web1 starts v2 with schema 2",
        "web2 starts v2 with schema 2",
        "v2 migrates 2 to 1",
        "web1 starts v1 with schema 1",
        "web2 starts v1 with schema 1",
    ]


def test_once_also_where_the_first_host_does_not_have_it(pair: Pair) -> None:
    """The task is of the second host's component; that host goes first then."""
    pair.release("v2", "2")
    pair.migration("reversible", component="web2")
    done = pair.apply("v2")
    assert done.code == 0, done.err
    assert pair.diary() == [
        "v2 migrates 1 to 2",
        "web2 starts v2 with schema 2",
        "web1 starts v2 with schema 2",
    ]


def test_a_down_step_that_fails_stops(pair: Pair) -> None:
    """The new schema stays, so the old code does not come back under it; a second try may."""
    pair.release("v2", "2", BROKEN="web1", BROKEN_DOWN="before")
    pair.migration("reversible")
    failed = pair.apply("v2")
    assert failed.code == 4, failed.err
    assert "deadlock detected" in failed.err
    assert "deployguard recover" in failed.err and "--held old" in failed.err
    assert pair.schema == 2
    assert pair.served() == {"web1": None, "web2": "v1"}
    assert not any("web1 starts v1" in line for line in pair.diary())
    live = pair.root / "web1" / "current"
    assert (live / "VERSION").read_text() == "v2 2"
    again = pair.run("recover", pair.file)
    assert again.code == 4 and "deadlock detected" in again.err and "--held old" in again.err
    pair.diary()
    (live / "BROKEN_DOWN").unlink()
    settled = pair.run("recover", pair.file, "--json")
    assert (pair.served(), pair.schema) == (BOTH_V1, 1), settled.err
    assert pair.diary() == ["v2 migrates 2 to 1", "web1 starts v1 with schema 1"]


def test_expand_only_stays(pair: Pair) -> None:
    """The old code knows the wider schema, so code goes back and the schema does not."""
    pair.release("v1b", "1,2")
    assert pair.apply("v1b").code == 0
    pair.release("v2", "2", BROKEN="web2")
    pair.migration("expand_only")
    pair.diary()
    failed = pair.apply("v2")
    assert failed.code == 3, failed.err
    assert (pair.served(), pair.schema) == ({"web1": "v1b", "web2": "v1b"}, 2)
    assert [line for line in pair.diary() if "migrates" in line] == ["v2 migrates 1 to 2"]
    notes = [event["message"] for event in failed.lines[-1]["timeline"]]
    assert "migrate was not taken back: the schema stays as it made it" in notes


# --- points of no return --------------------------------------------------------------------------


def held(pair: Pair, version: str = "v2") -> str:
    """Deploy a version that fails behind the point of no return; what was said."""
    failed = pair.apply(version)
    assert failed.code == 4, failed.err
    outcome = failed.lines[-1]
    assert outcome["status"] == "needs_person"
    assert "behind a point of no return: migrate cannot be taken back" in outcome["summary"]
    return failed.err


def test_behind_the_point_of_no_return_it_holds(pair: Pair) -> None:
    """The second host fails: no old code under the new schema, and the choice is explained."""
    pair.release("v2", "2", BROKEN="web2")
    pair.migration("irreversible")
    said = held(pair)
    assert pair.schema == 2
    assert pair.served() == {"web1": "v2", "web2": None}
    assert pair.states() == {"web1": "held", "web2": "held"}
    assert not any("starts v1" in line for line in pair.diary())
    plan = str(pair.file)
    assert f"`deployguard recover {plan} --held new` keeps the new version" in said
    assert f"`deployguard recover {plan} --held old` puts the old version back" in said
    assert "there is no dump of this migration" in said
    # Neither another look nor another deploy changes that.
    again = pair.run("recover", pair.file, "--json")
    assert again.code == 4 and "--held new" in again.err
    assert pair.apply("v2").code == 6
    assert pair.states() == {"web1": "held", "web2": "held"}
    assert pair.diary() == []


def test_the_person_keeps_the_new_version(pair: Pair) -> None:
    """What is live is committed, broken or not, and the next deploy mends it."""
    pair.release("v2", "2", BROKEN="web2")
    pair.migration("irreversible")
    held(pair)
    kept = pair.run("recover", pair.file, "--held", "new", "--json")
    assert kept.code == 0, kept.err
    assert pair.states() == {"web1": "settled", "web2": "settled"}
    pair.release("v3", "2")
    mended = pair.apply("v3", tasks=[])
    assert mended.code == 0, mended.err
    assert (pair.served(), pair.schema) == ({"web1": "v3", "web2": "v3"}, 2)


def test_the_person_puts_the_old_version_back(pair: Pair) -> None:
    """The schema was brought back by hand first, from the dump that the deploy had made."""
    pair.release("v2", "2", BROKEN="web2")
    dump = {"command": ["cat", str(pair.database)], "opens": ["test", "-s", "{path}"]}
    pair.migration("irreversible", dump=dump)
    said = held(pair)
    path = Path(next(word for word in said.split() if word.endswith("~migrate.dump;"))[:-1])
    assert path.stat().st_mode & 0o777 == 0o600
    pair.database.write_bytes(path.read_bytes())
    assert pair.schema == 1
    back = pair.run("recover", pair.file, "--held", "old", "--json")
    assert back.code == 0, back.err
    assert pair.served() == BOTH_V1
    assert pair.states() == {"web1": "settled", "web2": "settled"}


def test_the_old_version_back_under_the_new_schema(pair: Pair) -> None:
    """A person may say so; that the old code does not work is told as ever."""
    pair.release("v2", "2", BROKEN="web1")
    pair.migration("irreversible")
    held(pair)
    back = pair.run("recover", pair.file, "--held", "old", "--json")
    assert back.code == 4, back.err
    assert pair.served() == {"web1": None, "web2": "v1"}
    assert (pair.root / "web1" / "current" / "VERSION").read_text() == "v1 1"
    assert pair.states()["web1"] == "stuck"


def test_a_migration_that_breaks_half_way(pair: Pair) -> None:
    """What it did nobody knows: it holds, and the new version cannot be kept."""
    pair.release("v2", "2", BROKEN_UP="after")
    pair.migration("irreversible", at="before_stop")
    said = held(pair)
    assert "the new version cannot be kept" in said
    assert pair.served() == BOTH_V1  # nothing was stopped yet
    assert pair.states() == {"web1": "held", "web2": "settled"}
    refused = pair.run("recover", pair.file, "--held", "new")
    assert refused.code == 2 and "is not whole on web1" in refused.err
    assert pair.states()["web1"] == "held"


def test_a_migration_that_changed_nothing(pair: Pair) -> None:
    """The plan's own command proves it, and the old version comes back by itself."""
    pair.release("v2", "2", BROKEN_UP="before")
    pair.migration("irreversible", unchanged=pair.manage("is", 1))
    failed = pair.apply("v2")
    assert failed.code == 3, failed.err
    assert (pair.served(), pair.schema) == (BOTH_V1, 1)


def test_what_fails_before_it_is_taken_back(pair: Pair) -> None:
    """No point of no return lies behind a deploy that did not come to it."""
    pair.release("v2", "2")
    dump = {"command": ["false"]}
    pair.migration("irreversible", dump=dump)
    failed = pair.apply("v2")
    assert failed.code == 3, failed.err
    assert "dump before migrate" in failed.err
    assert (pair.served(), pair.schema) == (BOTH_V1, 1)
    assert not any("migrates" in line for line in pair.diary())
    pair.release("v2b", "2")
    pair.migration("irreversible", dump={"command": ["echo", "x"], "opens": ["false", "{path}"]})
    failed = pair.apply("v2b")
    assert failed.code == 3, failed.err
    assert "the dump does not open" in failed.err
    assert not list((pair.root / "web1-state" / "dumps").glob("*"))


def test_the_controller_dies_behind_it(pair: Pair) -> None:
    """The hosts are left to themselves: they hold too, lease or no lease, and recover says so."""
    pair.release("v2", "2", BROKEN="web2")
    pair.migration("irreversible")
    pair.write("v2", lease="5s")
    process = subprocess.Popen(
        [sys.executable, "-m", "deployguard", "apply", str(pair.file), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env=dict(os.environ),
    )
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if (event.get("host"), event.get("phase"), event.get("status")) == (
            "web2",
            "switch",
            "done",
        ):
            process.kill()
            break
    process.wait(timeout=30)
    found = pair.run("recover", pair.file, "--force", "--json")
    assert found.code == 4, found.err
    assert "--held new" in found.err
    assert pair.states() == {"web1": "held", "web2": "held"}
    assert not any("starts v1" in line for line in pair.diary())
    assert pair.run("recover", pair.file, "--held", "new").code == 0
    assert pair.states() == {"web1": "settled", "web2": "settled"}


# --- rollback -------------------------------------------------------------------------------------


def test_a_rollback_takes_it_back_first(pair: Pair) -> None:
    """The live code knows the way back; a rollback of the rollback goes up again."""
    pair.release("v2", "2")
    pair.migration("reversible")
    assert pair.apply("v2").code == 0
    pair.diary()
    back = pair.run("rollback", pair.file)
    assert back.code == 0, back.err
    assert (pair.served(), pair.schema) == (BOTH_V1, 1)
    diary = pair.diary()
    assert diary[0] == "v2 migrates 2 to 1"
    assert sorted(diary[1:]) == [f"{name} starts v1 with schema 1" for name in ("web1", "web2")]
    forth = pair.run("rollback", pair.file)
    assert forth.code == 0, forth.err
    assert (pair.served(), pair.schema) == (BOTH_V2, 2)
    assert pair.diary()[0] == "v2 migrates 1 to 2"


def test_a_rollback_that_fails_goes_up_again(pair: Pair) -> None:
    """It is a transaction like any other: the newer version is back, with its schema."""
    pair.release("v2", "2")
    pair.migration("reversible")
    assert pair.apply("v2").code == 0
    Path(f"{pair.database}-sick-v1").touch()
    pair.diary()
    failed = pair.run("rollback", pair.file)
    assert failed.code == 3, failed.err
    assert (pair.served(), pair.schema) == (BOTH_V2, 2)
    assert [line for line in pair.diary() if "migrates" in line] == [
        "v2 migrates 2 to 1",
        "v2 migrates 1 to 2",
    ]


def test_a_rollback_over_a_point_of_no_return_is_refused(pair: Pair) -> None:
    """Exit code 5, until a person says that the old code works."""
    pair.release("v2", "2")
    pair.migration("irreversible")
    assert pair.apply("v2").code == 0
    refused = pair.run("rollback", pair.file, "--json")
    assert refused.code == 5, refused.err
    assert "v2 came with migrate, which cannot be taken back" in refused.err
    assert pair.served() == BOTH_V2
    connection = sqlite3.connect(pair.database)
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()
    going = pair.run("rollback", pair.file, "--override", "migrations=restored from the backup")
    assert going.code == 0, going.err
    assert pair.served() == BOTH_V1


def test_further_back_one_at_a_time(pair: Pair) -> None:
    """The plan knows the down step of the live version only."""
    pair.release("v2", "2")
    pair.migration("reversible")
    assert pair.apply("v2").code == 0
    pair.release("v3", "2")
    assert pair.apply("v3", tasks=[]).code == 0
    refused = pair.run("rollback", pair.file, "--to", "v1")
    assert refused.code == 5 and "go back one version at a time" in refused.err


@pytest.mark.parametrize("keep", [1, 2])
def test_old_dumps_go(pair: Pair, keep: int) -> None:
    """After a commit as many stay as the plan says."""
    dump = {"command": ["cat", str(pair.database)], "keep": keep}
    for number in (2, 3, 4):
        pair.release(f"v{number}", "2")
        pair.migration("reversible", dump=dump)
        assert pair.apply(f"v{number}").code == 0
    assert len(list((pair.root / "web1-state" / "dumps").glob("*.dump"))) == keep
