"""A host program that may not: which path, which user, and what to do, instead of an errno."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.conftest import Run

PYTHON = shutil.which("python3", path="/usr/bin:/bin")
SETPRIV = shutil.which("setpriv")

PLAN = """\
name: demo
version: v1
hosts:
  here: {{transport: local, python: {python}, state_directory: {state}}}
components:
  web:
    artifact: releases/v1
    path: {root}/closed/srv
    layout: {layout}
    files: {files}
    checks: [{{command: ["true"]}}]
"""


@dataclass
class Powerless:
    """A folder that everybody may enter, and a Python that is not root in it."""

    root: Path
    python: Path

    def plan(self, layout: str = "releases", state: str = "state", files: str = "{{}}") -> Path:
        """A plan for the closed folder."""
        path = self.root / "plan.yaml"
        text = PLAN.format(
            root=self.root,
            python=self.python,
            state=self.root / state,
            layout=layout,
            files=files.format(root=self.root),
        )
        path.write_text(text)
        return path


@pytest.fixture
def powerless() -> Iterator[Powerless]:
    """As root the program runs as nobody; else as who we are."""
    if PYTHON is None or (os.geteuid() == 0 and SETPRIV is None):
        pytest.skip("needs a Python that everybody may run, and setpriv as root")
    # Not below pytest's own folder, which only its owner may enter.
    root = Path(tempfile.mkdtemp(prefix="dg-permission-"))
    root.chmod(0o755)
    (root / "closed").mkdir(mode=0o555)
    (root / "releases" / "v1").mkdir(parents=True)
    (root / "releases" / "v1" / "VERSION").write_text("v1")
    (root / "state").mkdir(mode=0o700)
    wrapper = root / "python"
    drop = ""
    if os.geteuid() == 0:
        os.chown(root / "state", 65534, 65534)
        drop = f"{SETPRIV} --reuid=65534 --regid=65534 --clear-groups "
    wrapper.write_text(f'#!/bin/sh\nexec {drop}{PYTHON} "$@"\n')
    wrapper.chmod(0o755)
    yield Powerless(root, wrapper)
    (root / "closed").chmod(0o755)
    shutil.rmtree(root)


@pytest.mark.parametrize("layout", ["releases", "in_place"])
def test_a_path_that_is_not_writable(deployguard: Run, powerless: Powerless, layout: str) -> None:
    """Path and user in the message, `become` in the mend; nothing was touched."""
    ran = deployguard("apply", powerless.plan(layout), "--json")
    assert ran.code == 3, ran.err
    for text in (ran.err, ran.out):
        assert re.search(r"permission denied for \w+ \(uid \d+\): ", text), text
        assert str(powerless.root / "closed") in text
        assert "set `become: true` for the host in the plan" in text
    assert "Errno" not in ran.err
    assert "nothing was touched" in ran.err


def test_a_file_that_is_not_writable(deployguard: Run, powerless: Powerless) -> None:
    """So it is with a managed file somewhere else, such as a unit in /etc."""
    shut = powerless.root / "etc"
    shut.mkdir(mode=0o555)
    (powerless.root / "closed").chmod(0o777)
    files = '{{"{root}/etc/app.env": {{content: x, mode: "0644"}}}}'
    ran = deployguard("apply", powerless.plan(files=files), "--json")
    assert ran.code == 3, ran.err
    assert re.search(rf"permission denied for \w+ \(uid \d+\): {shut}/", ran.err), ran.err
    assert "set `become: true`" in ran.err


def test_a_state_directory_that_is_not_writable(deployguard: Run, powerless: Powerless) -> None:
    """Before the program can start, the same in the words of its bootstrap."""
    ran = deployguard("apply", powerless.plan(state="closed/state"))
    assert ran.code == 3, ran.err
    assert "cannot use the state directory: " in ran.err
    assert "`state_directory` that the user may write to" in ran.err
