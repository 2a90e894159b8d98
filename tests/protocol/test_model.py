"""The protocol, model-checked with SPIN: `docs/protocol/deployguard.pml` and what must hold in it.

The model is held to the code by its state table, which is compared with the one that the host
program runs. Each seeded bug has to be found: a check that finds nothing wrong anywhere shows
nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from deployguard.onhost.state import machine

MODEL = Path(__file__).parents[2] / "docs" / "protocol" / "deployguard.pml"
TEXT = MODEL.read_text()
#: The rows of the state table: from, event, to.
TABLE = re.findall(r"^\tTRANSITION\((\w+), (\w+), (\w+)\)$", TEXT, re.MULTILINE)

#: Longer than a state of the largest model; spin's own bound is too short for its trails.
_LIMITS = ("-DVECTORSZ=2048",)
_SECONDS = 1500


@dataclass(frozen=True)
class Search:
    """One run of the checker over the whole state space."""

    folder: Path
    output: str

    @property
    def errors(self) -> int:
        """How many violations; the first one ends the search."""
        found = re.search(r"errors: (\d+)", self.output)
        assert found is not None, self.output
        return int(found[1])

    @property
    def complete(self) -> bool:
        """Every state was visited: no bound was reached, nothing was hashed away."""
        short = ("Search not completed", "max search depth too small", "hash factor", "aborting")
        return not any(words in self.output for words in short)

    @property
    def states(self) -> int:
        """How many states there are."""
        found = re.search(r"([\d.e+]+) states, stored", self.output)
        assert found is not None, self.output
        return int(float(found[1]))

    def trail(self) -> Path:
        """The counter-example."""
        return self.folder / "deployguard.pml.trail"


def search(
    folder: Path,
    *defines: str,
    hosts: int,
    troubles: int,
    claim: str = "",
    quick: bool = False,
    text: str = TEXT,
) -> Search:
    """Build the checker for one configuration and run it to its end, or to the first violation."""
    for program in ("spin", "gcc"):
        if shutil.which(program) is None:
            words = f"{program} is missing: sudo apt-get install spin gcc libc6-dev"
            if os.environ.get("CI") == "true":
                pytest.fail(words)
            pytest.skip(words)
    (folder / MODEL.name).write_text(text)
    options = [f"-DHOSTS={hosts}", f"-DTROUBLES={troubles}", *(f"-D{name}" for name in defines)]
    subprocess.run(
        ["spin", "-a", *options, MODEL.name],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=_SECONDS,
    )
    # What costs more than it saves in a small search: the optimizer.
    how = ["-O0" if quick else "-O2", "-w", "-DCOLLAPSE", *_LIMITS]
    how += [] if claim else ["-DSAFETY"]
    subprocess.run(
        ["gcc", *how, "-o", "pan", "pan.c"],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=_SECONDS,
    )
    # `-a` without `-f`: no run avoids the claim, fair or not. Under `-f` SPIN passes over runs that
    # have ended.
    arguments = [
        "-m1000000",
        f"-w{23 if quick else 26}",
        *(["-a", "-N", claim] if claim else []),
    ]
    ran = subprocess.run(
        ["./pan", *arguments],
        cwd=folder,
        check=False,  # how it ended is in its words
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    return Search(folder, ran.stdout + ran.stderr)


def named(name: str) -> frozenset[str]:
    """The states of a set that the model defines, as the code writes them."""
    found = re.search(rf"#define {name}\(s\)\s+\((.*)\)", TEXT)
    assert found is not None
    return frozenset(state.lower() for state in re.findall(r"s == (\w+)", found[1]))


# --- the model is the code's -------------------------------------------------------------------


def test_the_state_table_is_that_of_the_code() -> None:
    """Every transition of the code is in the model and the other way round; none is left out."""
    modelled = {(state.lower(), event.lower()): to.lower() for state, event, to in TABLE}
    assert len(modelled) == len(TABLE)
    assert modelled == machine.TRANSITIONS


def test_the_sets_of_states_are_those_of_the_code() -> None:
    """Where a host goes back by itself, and where there is nothing left to do."""
    assert named("UNTOUCHED") == machine.UNTOUCHED
    assert named("LEASED") == machine.LEASED
    assert named("TERMINAL") == machine.TERMINAL


def test_nothing_but_the_table_moves_a_state() -> None:
    """No process of the model assigns a state on the side."""
    moves = re.findall(r"^.*\bstate\[\w+\] = (?!IDLE;).*$", TEXT, re.MULTILINE)
    beside = [line for line in moves if "define TRANSITION" not in line]
    # That one takes away what was not yet on the disk.
    assert [line for line in beside if "synced[h]" not in line] == []


# --- it holds ----------------------------------------------------------------------------------


def test_two_hosts_and_takeovers(tmp_path: Path) -> None:
    """Nothing fails but leases, votes and controllers that take over: the small configuration."""
    found = search(tmp_path, hosts=2, troubles=0, quick=True)
    assert found.errors == 0 and found.complete, found.output
    assert found.states > 10_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hosts", "troubles", "defines"),
    [
        (1, 3, ()),
        (2, 1, ()),
        (2, 2, ()),
        (2, 1, ("TOLERATE",)),
        (2, 0, ("RECOVERERS=2",)),
        (3, 0, ()),
        # Jobs that are entered again when their worker has died.
        (2, 1, ("REJOIN",)),
        (3, 0, ("REJOIN",)),
        # All that one trouble can do to three hosts, in two searches of less than 4 GB each.
        (3, 1, ("ONLY_IN_TIME",)),
        (3, 1, ("ONLY_LATE",)),
    ],
)
def test_safety(tmp_path: Path, hosts: int, troubles: int, defines: tuple[str, ...]) -> None:
    """Agreement, a durable undo, whole trees, true reports; and no run stops half-way."""
    found = search(tmp_path, *defines, hosts=hosts, troubles=troubles)
    print(f"{hosts} hosts, {troubles} troubles {defines}: {found.states} states")
    assert found.errors == 0 and found.complete, found.output


@pytest.mark.slow
@pytest.mark.parametrize(("hosts", "troubles"), [(1, 2), (2, 1), (3, 0)])
def test_every_host_is_settled_in_the_end(tmp_path: Path, hosts: int, troubles: int) -> None:
    """If the troubles end and somebody runs `recover`, whichever machine that is on."""
    found = search(tmp_path, "LIVENESS", hosts=hosts, troubles=troubles, claim="settled")
    assert found.errors == 0 and found.complete, found.output


@pytest.mark.slow
@pytest.mark.parametrize(("hosts", "troubles"), [(1, 3), (2, 2)])
def test_a_host_that_has_not_voted_ends_alone(tmp_path: Path, hosts: int, troubles: int) -> None:
    """Nobody ever runs `recover`: the lease ends it."""
    found = search(
        tmp_path, "LEASE", "RECOVERERS=0", hosts=hosts, troubles=troubles, claim="unattended"
    )
    assert found.errors == 0 and found.complete, found.output


@pytest.mark.slow
@pytest.mark.parametrize("row", [" ".join(row) for row in TABLE])
def test_every_transition_is_taken(tmp_path: Path, row: str) -> None:
    """The table is not only written down: there is a run of the model that takes each row."""
    line = f"TRANSITION({', '.join(row.split())})"
    assert TEXT.count(line) == 1
    text = TEXT.replace(line, f"{line}; assert(false)")
    found = search(tmp_path, hosts=1, troubles=2, quick=True, text=text)
    assert found.errors == 1 and "assertion violated 0" in found.output, found.output


# --- and the checker finds what is wrong ---------------------------------------------------------

BUGS = [
    # A participant that has voted goes back when the lease ends.
    ("BUG_REVERTS_AFTER_VOTE", 2, 0),
    # The coordinator tells the hosts before its record is on the disk.
    ("BUG_TELL_BEFORE_RECORD", 2, 0),
    # A host obeys a commit of a controller that has been fenced off.
    ("BUG_LOWER_EPOCH", 2, 0),
    # The undo is acknowledged before it is on the disk.
    ("BUG_ARM_UNSYNCED", 1, 1),
    # Recover decides from what the hosts said before it took them over.
    ("BUG_DECIDE_BEFORE_FENCE", 2, 0),
    # Recover with the journal reads "no record", and decides abort without recording it.
    ("BUG_ABORT_UNRECORDED", 2, 0),
    # Recover follows a commit record although a voter has gone back.
    ("BUG_RECORD_OVERRULES", 2, 1),
    # A host commits although its restore has begun.
    ("BUG_COMMIT_AFTER_UNDO", 1, 1),
    # A host that knew nothing when it was asked counts as one that never took part.
    ("BUG_ABSENT_STAYS_ABSENT", 2, 0),
    # With `max_fail_percentage`, one host that went back is taken for a decision.
    ("TOLERATE BUG_BACK_MEANS_ABORT", 3, 1),
    # A job that is entered again takes the host over from whoever has it.
    ("REJOIN BUG_REJOIN_ABOVE_ALL", 2, 1),
]


@pytest.mark.slow
@pytest.mark.parametrize(("bug", "hosts", "troubles"), BUGS, ids=[bug for bug, _, _ in BUGS])
def test_a_seeded_bug_is_found(tmp_path: Path, bug: str, hosts: int, troubles: int) -> None:
    """Each yields a violation of an assertion, with a trail that leads there."""
    found = search(tmp_path, *bug.split(), hosts=hosts, troubles=troubles, quick=True)
    assert found.errors == 1 and "assertion violated" in found.output, found.output
    assert found.trail().stat().st_size > 0


def test_every_bug_is_seeded_by_a_name_that_the_model_knows() -> None:
    """A name that is misspelt would seed nothing."""
    known = set(re.findall(r"\bBUG_\w+", TEXT))
    tried = {name for bug, _, _ in BUGS for name in bug.split() if name.startswith("BUG_")}
    assert tried | {"BUG_TAKEOVER_GIVES_UP"} == known


@pytest.mark.slow
def test_a_takeover_that_gives_up_leaves_nobody(tmp_path: Path) -> None:
    """It has raised the epoch, so that the process it waited for lets go as well."""
    found = search(
        tmp_path,
        *("LEASE", "RECOVERERS=0", "BUG_TAKEOVER_GIVES_UP"),
        hosts=1,
        troubles=2,
        claim="unattended",
    )
    assert found.errors == 1 and found.trail().exists(), found.output
