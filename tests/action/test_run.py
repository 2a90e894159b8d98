"""The action run for real, by `act` on this machine, deploying to this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Site

ROOT = Path(__file__).parents[2]
ACT = Path(sys.executable).with_name("act")
BROKEN = 'raise SystemExit("no configuration")\n'

WORKFLOW = """\
on: push
jobs:
  deploy:
    runs-on: ubuntu-latest
    steps:
      - env: {{SITE: "{root}"}}
        run: cp -R "$SITE/." .
      - id: first
        continue-on-error: true
        uses: ./action
        with:
{first}
      - id: second
        if: always()
        continue-on-error: true
        uses: ./action
        with:
{second}
      - if: always()
        env:
          RESULT: ${{{{ toJSON(steps) }}}}
        run: |
          printf '%s' "$RESULT" > "{result}"
"""


class Job:
    """A workflow of two steps in a repository of its own."""

    def __init__(self, site: Site, home: Path, first: str, second: str) -> None:
        self.result = site.root / "result.json"
        self.home = home
        self.site = site
        lines = [re.sub("^", " " * 10, text, flags=re.MULTILINE) for text in (first, second)]
        workflow = site.root / ".github" / "workflows" / "deploy.yml"
        workflow.parent.mkdir(parents=True)
        workflow.write_text(
            WORKFLOW.format(first=lines[0], second=lines[1], root=site.root, result=self.result)
        )
        (site.root / "action").mkdir()
        shutil.copy(ROOT / "action.yml", site.root / "action" / "action.yml")
        git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com", "-C", site.root]
        for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
            subprocess.run([*git, *arguments], check=True)

    def start(self) -> subprocess.Popen[str]:
        """Run it."""
        home = str(self.home)
        environment = {
            "HOME": home,
            "PATH": f"{ACT.parent}:{os.environ['PATH']}",
            "DEPLOYGUARD_STATE": f"{home}/state",
            "GIT_CONFIG_NOSYSTEM": "1",
        }
        return subprocess.Popen(
            [ACT, "push", "-P", "ubuntu-latest=-self-hosted", "--pull=false"],
            cwd=self.site.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def outputs(self) -> list[dict[str, Any]]:
        """What the two steps gave."""
        steps = json.loads(self.result.read_text())
        return [
            {key: value for key, value in steps[name]["outputs"].items() if value}
            for name in ("first", "second")
        ]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home directory for act, which keeps caches and asks questions at its first run."""
    home = tmp_path / "home"
    (home / ".config" / "act").mkdir(parents=True)
    (home / ".config" / "act" / "actrc").touch()
    return home


def test_deploy_then_a_bad_one(site: Site, home: Path) -> None:
    """A good step is 0; a bad one fails, with outputs, annotations, a summary, and v1 back."""
    site.release("v2", BROKEN)
    evidence = site.root / "evidence"
    with site.plan.open("a") as plan:
        plan.write(f"rescue: {{evidence: {{directory: {evidence}}}}}\n")
    job = Job(
        site,
        home,
        "plan: plan.yaml\nversion: installed",
        "plan: plan.yaml\nversion: installed\nrelease: v2",
    )
    log, _ = job.start().communicate(timeout=120)
    first, second = job.outputs()
    assert (first["outcome"], first["exit-code"]) == ("committed", "0"), log
    assert first["transaction"]
    assert (second["outcome"], second["exit-code"]) == ("rolled_back", "3"), log
    assert Path(second["forensics-path"]).is_relative_to(evidence)
    assert Path(second["forensics-path"]).is_dir()
    assert "::error title=deployguard::" in log
    assert "### What failed" in log
    current = site.root / "srv" / "current" / "VERSION"
    assert current.read_text() == "v1"


def test_bad_input_stops_before_anything(site: Site, home: Path) -> None:
    """A command that is none is refused by the step; a wrong plan is 2, with its outputs."""
    site.plan.write_text(site.plan.read_text().replace("checks:", "chekcs:"))
    job = Job(
        site,
        home,
        "plan: plan.yaml\nversion: installed\ncommand: destroy",
        "plan: plan.yaml\nversion: installed\ncommand: validate",
    )
    log, _ = job.start().communicate(timeout=120)
    first, second = job.outputs()
    assert first == {}
    assert "command must be apply" in log
    assert second == {"outcome": "failed", "exit-code": "2"}
    assert re.search(r"::error file=plan\.yaml,line=\d+,col=\d+::", log), log


def test_cancel_is_heard_and_recover_finishes(site: Site, home: Path) -> None:
    """The signal reaches deployguard, for no shell is left above it; `recover` does the rest."""
    text = site.plan.read_text().replace(
        "process: {}", "process: {min_healthy_time: 20s, deadline: 40s}"
    )
    site.plan.write_text(text)
    job = Job(
        site,
        home,
        "plan: plan.yaml\nversion: installed",
        "plan: plan.yaml\nversion: installed\ncommand: recover",
    )
    running = job.start()
    deploy = _deployguard_below(running.pid)
    deadline = time.monotonic() + 30
    while not (site.root / "srv" / "current").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(deploy, signal.SIGINT)
    told = time.monotonic()
    log, _ = running.communicate(timeout=120)
    # A runner that cancels kills after ten seconds; the recovery here takes some of them too.
    assert time.monotonic() - told < 10, log
    first, second = job.outputs()
    assert (first["outcome"], first["exit-code"]) == ("interrupted", "7"), log
    assert "handing over to the hosts" in log
    assert second["exit-code"] in ("0", "3"), log
    assert not (site.root / "srv" / "current").exists(), log


def _deployguard_below(act: int) -> int:
    """The process that act itself started for the step. It MUST be deployguard, not a shell."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        children = Path(f"/proc/{act}/task").glob("*/children")
        for pid in " ".join(path.read_text() for path in children).split():
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"apply" in command and command[1].endswith(b"/deployguard"):
                return int(pid)
        time.sleep(0.02)
    raise AssertionError("deployguard never ran as a child of the runner")
