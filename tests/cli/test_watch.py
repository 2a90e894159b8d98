"""``deployguard watch`` on this machine: what fails opens an incident, what is mended ends it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run, Site
from tests.cli.test_respond import FRAGILE

QUICK = "watch: {failures: 1, group_wait: 0s, group_interval: 0s}\n"


def lines(ran: Any, kind: str) -> list[dict[str, Any]]:
    """The JSON lines of a kind."""
    return [line for line in ran.lines if line["type"] == kind]


def test_from_the_deploy_to_the_mend(site: Site, deployguard: Run) -> None:
    """Healthy, then not, then healthy again, in three windows of one look each."""
    site.release("v2", FRAGILE)
    site.plan.write_text(site.plan.read_text() + QUICK)
    assert deployguard("apply", site.plan, "--release", "v2").code == 0
    once = ("watch", site.plan, "--release", "v2", "--for", "1s", "--interval", "5s", "--json")
    well = deployguard(*once)
    assert well.code == 0, well.err
    assert lines(well, "notice") == lines(well, "incident") == []
    assert "every check that matters is healthy" in well.err

    (site.root / "broken").touch()
    failing = deployguard(*once)
    assert failing.code == 9, failing.err
    (notice,) = lines(failing, "notice")
    assert [(one["name"], one["critical"]) for one in notice["fires"]] == [("http", True)]
    (history,) = deployguard("history", "--json").lines
    assert notice["transaction"] == history["id"]
    (incident,) = lines(failing, "incident")
    assert (incident["state"], incident["severity"], incident["origin"]) == (
        "open",
        "critical",
        "watch",
    )
    assert "incident respond" in failing.err

    # It goes on: nobody is told twice, and the end says so all the same.
    still = deployguard(*once)
    assert (still.code, lines(still, "notice")) == (9, [])

    (site.root / "broken").unlink()
    mended = deployguard(*once)
    assert mended.code == 0, mended.err
    (notice,) = lines(mended, "notice")
    assert ([one["name"] for one in notice["over"]], notice["fires"]) == (["http"], [])
    (over,) = lines(mended, "incident")
    assert (over["id"], over["state"]) == (incident["id"], "mitigated")
    # Nobody was there.
    assert over["acknowledged_at"] is None


def test_for_good_until_somebody_stops_it(site: Site, deployguard: Run) -> None:
    """A signal ends it, with the code of how it stands; `--no-incident` opens none."""
    site.plan.write_text(site.plan.read_text() + QUICK)
    argv = [sys.executable, "-m", "deployguard", "watch", str(site.plan), "--forever"]
    process = subprocess.Popen(
        [*argv, "--interval", "1s", "--no-incident"],
        stderr=subprocess.PIPE,
        env=dict(os.environ),
        text=True,
    )
    assert process.stderr is not None
    # Nothing was deployed: the first look tells it.
    for line in process.stderr:
        if "web http fails (critical)" in line:
            break
    process.send_signal(signal.SIGTERM)
    rest = process.stderr.read()
    assert process.wait(60) == 9
    assert "not healthy at the end" in rest
    assert "no incident is ongoing" in deployguard("incident", "list").err


def test_in_a_job(
    site: Site, deployguard: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What fails is an annotation, and how it stands an output."""
    outputs = tmp_path / "outputs"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_OUTPUT", str(outputs))
    ran = deployguard("watch", site.plan, "--for", "1s", "--interval", "5s", "--no-incident")
    assert ran.code == 9, ran.err
    assert re.search(r"::error::here web http: .*refused", ran.err), ran.err
    text = outputs.read_text()
    assert "unhealthy" in text and "exit-code" in text.replace("_", "-")


def test_a_window_is_a_time(site: Site, deployguard: Run) -> None:
    """Anything else is a mistake of the command line."""
    ran = deployguard("watch", site.plan, "--for", "soon")
    assert (ran.code, "write it as 250ms, 30s, 5m" in ran.err) == (2, True)
