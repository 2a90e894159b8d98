"""What is live is proved by hash, and what a transaction left behind is found."""

from __future__ import annotations

import os
from typing import Any, Dict

import pytest
from _pytest.tmpdir import TempPathFactory

from deployguard.onhost import durable
from deployguard.onhost.places import write_json
from deployguard.onhost.queries import audit
from tests.onhost.bench import COMPONENT, Bench


@pytest.fixture(params=["releases", "in_place"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: TempPathFactory) -> Bench:
    """A host on which v2 follows v1."""
    bench = Bench(str(tmp_path_factory.mktemp("host")), request.param)
    bench.release("v1")
    bench.release("v2")
    return bench


def verify(bench: Bench) -> Dict[str, Any]:
    """The answer for the one component of the bench."""
    target = {
        "name": COMPONENT,
        "path": bench.path,
        "layout": bench.layout,
        "keep": [],
        "ignore": [],
        "files": [],
    }
    return audit.verify(bench.state, bench.system, {"components": [target]})


def test_as_deployed(bench: Bench) -> None:
    """The version that is live, no difference, nothing left; the retained tree is none."""
    answer = verify(bench)
    assert answer["left"] == []
    found = answer["components"][COMPONENT]
    assert (found["version"], found["differences"]) == ("v2", [])


def test_every_kind_of_difference(bench: Bench) -> None:
    """A file that was changed with its size and time kept, one that is gone, one that is new."""
    tree = os.path.realpath(bench.live)
    path = os.path.join(tree, "VERSION")
    times = os.stat(path)
    with open(path, "w", encoding="ascii") as file:
        file.write("v3")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    os.unlink(os.path.join(tree, "same.txt"))
    os.mkdir(os.path.join(tree, "mine"))
    found = verify(bench)["components"][COMPONENT]["differences"]
    assert [one[len(tree) + 1 :] for one in found] == [
        "same.txt is missing",
        "mine was not deployed",
        "VERSION differs in content",
    ]


@pytest.mark.parametrize("bench", ["releases"], indirect=True)
def test_a_link_that_was_turned(bench: Bench) -> None:
    """`current` leads to the tree on record, or it is said."""
    os.unlink(bench.live)
    os.symlink("releases/v1", bench.live)
    (found,) = verify(bench)["components"][COMPONENT]["differences"]
    assert "does not lead to" in found


def test_nothing_deployed(tmp_path_factory: TempPathFactory) -> None:
    """No version and no difference."""
    found = verify(Bench(str(tmp_path_factory.mktemp("host"))))["components"][COMPONENT]
    assert (found["version"], found["differences"]) == (None, [])


def test_what_an_ended_transaction_left(bench: Bench) -> None:
    """A staged tree, a lock and the reserve are found; while it is unfinished they belong there."""
    deploy = bench.deploy("v3").to("stage")
    assert verify(bench)["left"] == []
    tree = deploy.component["placement"]["tree"]
    deploy.participant.restore()
    deploy.close()
    assert verify(bench)["left"] == []
    folder = bench.state.transaction(deploy.identifier)
    os.makedirs(tree)
    durable.put(os.path.join(folder, "reserve"), b"")
    lock = {"transaction": deploy.identifier, "path": bench.path}
    write_json(bench.state.lock(bench.path), lock)
    assert verify(bench)["left"] == [
        os.path.join(folder, "reserve"),
        "%s of %s" % (tree, deploy.identifier),
        "lock of %s by %s" % (bench.path, deploy.identifier),
    ]
