"""A service that is live on this machine, and the proof that nothing of it was touched."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import Ran, Run
from tests.cli.conftest import Site as Site
from tests.cli.conftest import deployguard as deployguard
from tests.cli.conftest import site as site
from tests.fleet.tree import tree
from tests.github.server import GitHubServer, checked


@dataclass
class Shop:
    """A site with v1 live and v2 ready to be deployed, under the guards that a test gives it."""

    site: Site
    run: Run

    def guarded(self, *guards: dict[str, Any], **component: Any) -> None:
        """Write the plan with these guards; ``component`` changes the one component."""
        plan = yaml.safe_load(self.site.plan.read_text())
        plan["guards"] = list(guards)
        plan["components"]["web"] |= component
        self.site.plan.write_text(json.dumps(plan))

    def apply(self, *options: str, release: str = "v2") -> Ran:
        """Deploy a release; v2 when none is named."""
        return self.run("apply", self.site.plan, "--release", release, "--json", *options)

    def plan(self, *options: str, release: str = "v2") -> Ran:
        """What a deploy of it would do."""
        return self.run("plan", self.site.plan, "--release", release, "--json", *options)

    @property
    def root(self) -> Path:
        """Everything that a deploy may touch."""
        return self.site.root / "srv"

    def served(self) -> str:
        """What is served now."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.site.port}/", timeout=5) as answer:
            body: str = answer.read().decode()
        return body

    def pid(self) -> list[str]:
        """The process that serves, as the host's record has it."""
        state = self.site.root / "host-state" / "services"
        return [path.read_text() for path in sorted(state.glob("*.pid"))]

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Nothing below the managed path may differ afterwards, and the same process serves."""
        before, process = tree(self.root), self.pid()
        assert before and process
        yield
        assert tree(self.root) == before
        assert self.pid() == process
        locks = self.site.root / "host-state" / "locks"
        assert not list(locks.glob("*.json"))

    def assert_refused(self, guard: str, *words: str, options: tuple[str, ...] = ()) -> Ran:
        """``plan`` and ``apply`` both refuse with 5, in the same words, and touch nothing."""
        with self.untouched():
            foreseen = self.plan(*options)
            refused = self.apply(*options)
        assert (foreseen.code, refused.code) == (5, 5), refused.err
        shown = foreseen.lines[-1]
        said = {(g, m) for g, ok, m in shown["guards"] if not ok}
        said |= {(g, m) for h in shown["hosts"] for g, ok, m in h["guards"] if not ok}
        outcome = refused.lines[-1]
        assert outcome["status"] == "refused"
        told = {(f["name"], f["message"]) for f in outcome["findings"]}
        assert _without_numbers(told) == _without_numbers(said)
        found = [message for name, message in said if name == guard]
        assert found, said
        for word in words:
            assert any(word in message for message in found), found
            assert word in refused.err
        return refused

    def assert_passes(self, guard: str, *words: str, options: tuple[str, ...] = ()) -> Ran:
        """``plan`` shows that the guard lets it pass, ``apply`` deploys, and v2 is served."""
        foreseen = self.plan(*options)
        assert foreseen.code == 0, foreseen.err
        shown = foreseen.lines[-1]
        groups = [shown["guards"], *(host["guards"] for host in shown["hosts"])]
        found = [message for group in groups for name, ok, message in group if name == guard and ok]
        assert found, groups
        for word in words:
            assert any(word in message for message in found), found
        done = self.apply(*options)
        assert done.code == 0, done.err
        assert "v2" in self.served()
        return done


def _without_numbers(said: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """What is free on a disk, or how old a file is, differs from one look to the next."""
    return {(name, re.sub(r"[0-9,.]+", "N", words)) for name, words in said}


@pytest.fixture
def shop(deployguard: Run, site: Site) -> Shop:
    """v1 is live."""
    made = Shop(site, deployguard)
    assert deployguard("apply", site.plan).code == 0
    site.release("v2")
    return made


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHubServer]:
    """A GitHub that nothing may be wrong with at the end, and a token for it."""
    with checked() as server:
        monkeypatch.setenv("CI_TOKEN", server.token)
        for name in ("GITHUB_RUN_ID", "GITHUB_JOB"):
            monkeypatch.delenv(name, raising=False)
        yield server
