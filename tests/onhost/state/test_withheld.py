"""What checks know and no journal may hold, through a whole transaction."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, Dict, List

import pytest

from deployguard.onhost.probes import registry
from deployguard.onhost.probes.base import CheckData, Finding, finding
from deployguard.onhost.queries.audit import left
from deployguard.onhost.state import withheld
from deployguard.onhost.system import System
from tests.onhost.bench import SECRET, Bench, Deploy


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> List[Dict[str, Any]]:
    """What each look of the check was given; without its secret it fails."""
    looks: List[Dict[str, Any]] = []

    def look(check: CheckData, system: System) -> Finding:
        looks.append(dict(check))
        if check.get("secret") != {"password": SECRET}:
            return finding("unhealthy", "no password", final=True)
        return registry.probe_command(check, system)

    monkeypatch.setitem(registry._PROBES, "command", look)
    return looks


def holders(bench: Bench) -> List[Path]:
    """The files of the host that have the secret in them."""
    files = [path for path in Path(bench.root).rglob("*") if path.is_file()]
    return [path for path in files if SECRET.encode() in path.read_bytes()]


def kept_in(bench: Bench, deploy: Deploy) -> Path:
    """Where the secret belongs while the transaction lasts."""
    return Path(bench.state.transaction(deploy.identifier), withheld.NAME)


def test_one_file_has_it_until_the_end(tmp_path: Path, seen: List[Dict[str, Any]]) -> None:
    """0600 in a folder 0700, from ``arm`` to the commit; no journal ever has it."""
    bench = Bench(str(tmp_path))
    bench.release("v1")
    assert holders(bench) == []
    deploy = bench.deploy("v2").to("stage")
    assert holders(bench) == []
    deploy.to("prepare")
    file = kept_in(bench, deploy)
    assert holders(bench) == [file]
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(file.parent).st_mode) == 0o700
    deploy.to("commit")
    deploy.close()
    assert holders(bench) == [] and left(bench.state, bench.system) == []
    assert seen


@pytest.mark.parametrize("by", ["the same process", "another process", "a takeover"])
def test_a_restore_makes_the_checks_with_it(
    tmp_path: Path, seen: List[Dict[str, Any]], by: str
) -> None:
    """Whoever restores, and with nobody there to send it again."""
    bench = Bench(str(tmp_path))
    bench.release("v1")
    deploy = bench.deploy("v2").to("check")
    if by == "a takeover":
        deploy.die()
        deploy = deploy.taken_over()
    elif by == "another process":
        from deployguard.onhost.state import locks

        deploy.die()
        folder = bench.state.transaction(deploy.identifier)
        alive = locks.keep_alive(folder)
        assert alive is not None
        deploy.participant = bench.participant()
        deploy.participant.reopen(folder, alive)
    del seen[:]
    assert deploy.restore()["state"] == "restored"
    assert [look["secret"] for look in seen] == [{"password": SECRET}]
    deploy.close()
    assert holders(bench) == []


def test_a_restore_without_the_file_says_so(tmp_path: Path, seen: List[Dict[str, Any]]) -> None:
    """Somebody removed it: the files are back, and health is not proven."""
    bench = Bench(str(tmp_path))
    bench.release("v1")
    deploy = bench.deploy("v2").to("check")
    kept_in(bench, deploy).unlink()
    result = deploy.restore()
    assert result["verified"] and not result["healthy"] and result["state"] == "stuck"
    deploy.close()
    assert seen


def test_an_abort_removes_it(tmp_path: Path) -> None:
    """Written, and then the arming did not come to its end."""
    bench = Bench(str(tmp_path))
    deploy = bench.deploy("v1").to("stage")
    folder = bench.state.transaction(deploy.identifier)
    withheld.withhold(folder, [{"id": "a", "secret": {"password": SECRET}}])
    assert holders(bench) == [kept_in(bench, deploy)]
    deploy.participant.abort()
    deploy.close()
    assert holders(bench) == []


def test_what_is_withheld_and_what_is_not(tmp_path: Path) -> None:
    """Passwords, headers and environments; checks without any need no file."""
    plain: List[Dict[str, Any]] = [{"id": "d", "kind": "port", "headers": {}, "env": {}}]
    assert withheld.withhold(str(tmp_path), plain) == plain
    assert os.listdir(tmp_path) == []
    whole = [
        {"id": "a", "kind": "redis", "secret": {"password": "x"}},
        {"id": "b", "kind": "http", "headers": {"Authorization": "x"}, "url": "u"},
        {"id": "c", "kind": "command", "env": {"TOKEN": "x"}, "argv": ["true"]},
        *plain,
    ]
    journalled = withheld.withhold(str(tmp_path), whole)
    assert journalled == [
        {"id": "a", "kind": "redis"},
        {"id": "b", "kind": "http", "url": "u"},
        {"id": "c", "kind": "command", "argv": ["true"]},
        *plain,
    ]
    assert withheld.complete(str(tmp_path), journalled) == whole
