"""`drill` on this machine: faults that really happen, and hosts that are read afterwards."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import deployguard as library
from deployguard.drills.drill import Step
from tests.cli.conftest import Run, Site

#: A service that starts whatever is live, but only once in its life.
TIRED = """\
import pathlib, sys
folder = pathlib.Path(sys.argv[1])
starts, running = folder / "starts", folder / "running"
verb = sys.argv[2]
if verb == "start":
    count = len(starts.read_text()) if starts.exists() else 0
    starts.write_text("x" * (count + 1))
    if count:
        sys.exit("worn out")
    running.touch()
if verb == "stop":
    running.unlink(missing_ok=True)
if verb == "status" and not running.exists():
    sys.exit(3)
"""


@pytest.fixture
def drilled(deployguard: Run, site: Site) -> Site:
    """v1 is live on a host that may be drilled, and v2 is there to be deployed."""
    text = site.plan.read_text()
    text = text.replace("transport: local,", "transport: local, drill: true,")
    site.plan.write_text(text.replace("environment: test", "environment: test\nlease: 5s"))
    assert deployguard("apply", site.plan).code == 0
    site.release("v2")
    return site


def trees(site: Site) -> list[str]:
    """What is in the managed path and in the host's memory."""
    found = [
        *(site.root / "srv").rglob("*"),
        *(site.root / "host-state" / "transactions").iterdir(),
    ]
    return sorted(str(path) for path in found)


def test_hosts_that_are_not_marked(deployguard: Run, drilled: Site) -> None:
    """Exit code 5, the host is named, and nothing was touched."""
    drilled.plan.write_text(drilled.plan.read_text().replace(" drill: true,", ""))
    before = trees(drilled)
    ran = deployguard("drill", drilled.plan, "--release", "v2", "--json")
    assert ran.code == 5
    assert "not marked `drill: true`: here; nothing was touched" in ran.err
    assert [line["type"] for line in ran.lines] == ["error"]
    assert trees(drilled) == before


def test_what_it_needs(deployguard: Run, drilled: Site) -> None:
    """Another version than is live, a scenario there is, a host that is as it was deployed."""
    before = trees(drilled)
    same = deployguard("drill", drilled.plan)
    assert same.code == 2 and "v1 is live already" in same.err
    unknown = deployguard("drill", drilled.plan, "--release", "v2", "--only", "disk-ful")
    assert unknown.code == 2 and 'did you mean "disk-full"?' in unknown.err
    (drilled.root / "srv" / "current" / "VERSION").write_text("by hand")
    changed = deployguard("drill", drilled.plan, "--release", "v2")
    assert changed.code == 5 and "VERSION differs in content" in changed.err
    assert trees(drilled) == before


def test_nothing_is_live_yet(deployguard: Run, site: Site) -> None:
    """It says to deploy first, and ends with 2."""
    text = site.plan.read_text().replace("transport: local,", "transport: local, drill: true,")
    site.plan.write_text(text)
    ran = deployguard("drill", site.plan)
    assert ran.code == 2
    assert "nothing is live yet on here web" in ran.err
    assert f"`deployguard apply {site.plan} --release VERSION`" in ran.err


def test_the_list(deployguard: Run) -> None:
    """It needs no plan."""
    ran = deployguard("drill", "--json", "--list")
    assert ran.code == 0
    assert ran.lines[0]["scenario"] == "bad-health"
    assert "program-killed-with-controller" in ran.err


def test_one_that_commits_and_some_that_do_not(deployguard: Run, drilled: Site) -> None:
    """Each is shown with how the host ended; the one that was live is live again at the end."""
    names = [
        "bad-health",
        "controller-killed-after-switch",
        "controller-killed-after-decision",
        "program-killed-with-controller",
        "disk-full-in-switch",
    ]
    only = [word for name in names for word in ("--only", name)]
    ran = deployguard("drill", drilled.plan, "--release", "v2", "--json", *only)
    assert ran.code == 0, ran.err
    assert "5 scenarios, each a deploy of v2 to here" in ran.err
    lines, last = ran.lines[:-1], ran.lines[-1]
    assert [(line["type"], line["scenario"], line["host"]) for line in lines] == [
        ("drilled", name, "here") for name in names
    ]
    assert [line["ended"] for line in lines] == ["old", "old", "new", "old", "old"]
    assert [line["by"] for line in lines] == ["deploy", "host", "recover", "host", "deploy"]
    assert [line["deploy"] for line in lines] == [3, -9, -9, -9, 3]
    assert all(line["kept"] and line["happened"] for line in lines)
    assert all(line["verified"] and line["healthy"] and not line["left"] for line in lines)
    # Within its lease, and not before it was over.
    assert 5 <= lines[1]["seconds"] < 30 and 5 <= lines[3]["seconds"] < 30
    assert (last["type"], last["exit_code"], last["not_run"]) == ("drill", 0, [])
    assert "all 5 scenarios kept the promise" in ran.err
    status = deployguard("status", drilled.plan, "--verify", "--json")
    assert status.code == 0
    assert status.lines[0]["live"][0]["version"] == "v1"


def test_a_broken_promise(deployguard: Run, drilled: Site) -> None:
    """The old version does not start any more: exit code 4, named, with where to look."""
    (drilled.root / "tired.py").write_text(TIRED)
    text = drilled.plan.read_text()
    service = text[text.index("    service:") : text.index("    checks:")]
    verbs = ", ".join(
        f"{verb}: [python3, {drilled.root}/tired.py, {drilled.root}, {verb}]"
        for verb in ("start", "stop", "status")
    )
    command = f"    service: {{command: {{{verbs}, timeout: 2s}}}}\n"
    checks = text[text.index("    checks:") :]
    text = text.replace(service, command).replace(checks, "    checks: [process: {deadline: 2s}]\n")
    drilled.plan.write_text(text.replace("/srv\n", "/other\n"))
    assert deployguard("apply", drilled.plan).code == 0
    ran = deployguard("drill", drilled.plan, "--release", "v2", "--json", "--only", "disk-full")
    assert ran.code == 4, ran.err
    first, line = ran.lines[:-1]
    assert (first["scenario"], first["kept"]) == ("disk-full-before-switch", True)
    assert (line["scenario"], line["kept"], line["deploy"]) == ("disk-full-in-switch", False, 4)
    assert any("is stuck" in problem for problem in line["problems"]), ran.err
    assert any("not healthy: web/process" in problem for problem in line["problems"])
    assert (line["healthy"], line["verified"]) == (False, True)
    assert "the promise was broken by disk-full-in-switch" in ran.err
    assert f"deployguard history {line['transaction']}" in ran.err
    assert "disk-full-after-switch" in ran.lines[-1]["not_run"]


def test_a_release_that_fails_by_itself(deployguard: Run, drilled: Site) -> None:
    """The promise is kept, and it is said that the fault was not shown."""
    broken = drilled.release("v3", "raise SystemExit('no configuration')\n")
    only = ["--only", "disk-full-at-vote"]
    ran = deployguard("drill", drilled.plan, "--release", broken, "--json", *only)
    assert ran.code == 0, ran.err
    assert (ran.lines[0]["kept"], ran.lines[0]["happened"]) == (True, False)
    assert "not shown: the deploy ended before it came to the fault" in ran.err


def started(site: Site, *options: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    """A drill in a process of its own."""
    command = ["drill", str(site.plan), "--release", "v2", *options]
    return subprocess.Popen(
        [sys.executable, "-m", "deployguard", *command],
        stdin=stdin,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_interrupted(deployguard: Run, drilled: Site) -> None:
    """Ctrl-C: the hosts are recovered and brought back, and the exit code is 7."""
    process = started(drilled, "--only", "controller-killed-after-decision")
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if "the deploy was ended by signal 9" in line:
            process.send_signal(signal.SIGINT)
            break
    text = "".join(seen) + process.stderr.read()
    assert process.wait(timeout=120) == 7, text
    assert "rolling here back to v1" in text
    status = deployguard("status", drilled.plan, "--verify", "--json")
    assert status.code == 0, status.err
    assert status.lines[0]["live"][0]["version"] == "v1"


@pytest.mark.parametrize(("answer", "code"), [("n", 5), ("y", 0)])
def test_a_terminal_is_asked(drilled: Site, answer: str, code: int) -> None:
    """After the estimate; without a yes nothing is touched."""
    before = trees(drilled)
    controller, terminal = pty.openpty()
    process = started(drilled, "--only", "bad-health", stdin=terminal)
    os.close(terminal)
    os.write(controller, f"{answer}\n".encode())
    _, said = process.communicate(timeout=120)
    os.close(controller)
    assert process.returncode == code, said
    assert said.index("it takes about") < said.index("Begin?")
    assert (trees(drilled) == before) is (code == 5)


def test_the_library(deployguard: Run, drilled: Site, tmp_path: Path) -> None:
    """`deployguard.drill` answers with the report, and tells of each step."""
    steps: list[Step] = []
    listen: Callable[[Step], None] = steps.append
    plan = library.load(drilled.plan, version="v2")
    report = library.drill(plan, only=["bad-health"], listen=listen)
    assert isinstance(report, library.DrillReport) and report
    assert (report.old, report.new) == ("v1", "v2")
    assert report.scenarios[0].hosts[0].ended == "old"
    assert [step.result is not None for step in steps][-1]
