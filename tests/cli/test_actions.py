"""GitHub Actions: nothing foreign is taken for a command, nothing is over GitHub's limits."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from deployguard.cli import actions
from deployguard.cli.actions import Workflow
from deployguard.secret import Secret


@pytest.fixture
def log() -> io.StringIO:
    """The log of the step."""
    return io.StringIO()


def test_annotation_has_file_line_and_column(log: io.StringIO, tmp_path: Path) -> None:
    """A mistake is shown beside its line, by its path in the repository."""
    workflow = Workflow({"GITHUB_WORKSPACE": str(tmp_path)}, log)
    place = str(tmp_path / "deploy" / "plan.yaml")
    workflow.annotate("error", "unknown key", file=place, line=3, column=7)
    assert log.getvalue() == "::error file=deploy/plan.yaml,line=3,col=7::unknown key\n"


def test_annotation_cannot_be_escaped_from(log: io.StringIO) -> None:
    """A message with line breaks and commands in it stays one annotation."""
    Workflow({}, log).annotate("error", "a\n::set-env::b%", title="x,y:z")
    assert log.getvalue() == "::error title=x%2Cy%3Az::a%0A::set-env::b%25\n"


def test_ten_annotations_of_a_kind(log: io.StringIO) -> None:
    """GitHub drops the eleventh, so it is not sent; another kind has its own ten."""
    workflow = Workflow({}, log)
    for number in range(15):
        workflow.annotate("error", str(number))
    workflow.annotate("warning", "once")
    lines = log.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[-1] == "::warning::once"


def test_group_quotes_what_is_inside(log: io.StringIO) -> None:
    """Between stop-commands and its token, a host's log line is text; the token is random."""
    workflow = Workflow({}, log)
    for _ in range(2):
        with workflow.group("deploy"):
            log.write("::add-mask::from a host\n")
    lines = log.getvalue().splitlines()
    tokens = [line.removeprefix("::stop-commands::") for line in lines if "stop-commands" in line]
    assert len(set(tokens)) == 2
    assert all(re.fullmatch(r"[0-9a-f]{32}", token) for token in tokens)
    assert lines[:5] == [
        "::group::deploy",
        f"::stop-commands::{tokens[0]}",
        "::add-mask::from a host",
        f"::{tokens[0]}::",
        "::endgroup::",
    ]


def test_group_ends_when_the_deploy_breaks(log: io.StringIO) -> None:
    """Commands work again after an exception: the annotations of the failure need them."""
    workflow = Workflow({}, log)
    with pytest.raises(RuntimeError), workflow.group("deploy"):
        raise RuntimeError
    assert log.getvalue().splitlines()[-1] == "::endgroup::"


def test_secret_is_masked_line_by_line(log: io.StringIO) -> None:
    """The runner masks single lines only; empty ones would mask everything."""
    Workflow({}, log).mask(Secret("first\n\nsecond"))
    assert log.getvalue() == "::add-mask::first\n::add-mask::second\n"


def test_output_cannot_define_another(tmp_path: Path, log: io.StringIO) -> None:
    """A value with line breaks stays one value: the delimiter cannot be guessed."""
    path = tmp_path / "output"
    Workflow({"GITHUB_OUTPUT": str(path)}, log).output(
        exit_code="3", incident_url="x\nEOF\noutcome=committed"
    )
    text = path.read_text()
    found = re.findall(
        r"^([a-z-]+)<<(deployguard_[0-9a-f]{32})\n(.*?)\n\2\n", text, re.MULTILINE | re.DOTALL
    )
    assert [(name, value) for name, _, value in found] == [
        ("exit-code", "3"),
        ("incident-url", "x\nEOF\noutcome=committed"),
    ]


def test_outputs_without_a_job_are_nowhere(log: io.StringIO) -> None:
    """Outside of a job there is nothing to write to, and nothing fails."""
    workflow = Workflow({}, log)
    workflow.output(outcome="committed")
    workflow.summary("text")
    assert log.getvalue() == ""


def test_summary_stays_below_the_limit(
    tmp_path: Path, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GitHub throws away a summary that is too long, so ours is cut, between characters."""
    monkeypatch.setattr(actions, "SUMMARY_BYTES", 1000)
    path = tmp_path / "summary"
    path.write_bytes(b"x" * 300)
    workflow = Workflow({"GITHUB_STEP_SUMMARY": str(path)}, log)
    workflow.summary("é" * 5000)
    data = path.read_bytes()
    assert len(data) <= 1000
    assert "cut here" in data.decode()
    workflow.summary("more")
    assert len(path.read_bytes()) <= 1000
