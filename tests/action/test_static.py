"""The action and the workflows as files: valid, pinned, and free of known mistakes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ACTION = ROOT / "action.yml"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PAGE = ROOT / "docs" / "github-actions.md"


def check(schema: str, *files: Path) -> subprocess.CompletedProcess[str]:
    """Hold files to one of GitHub's schemas."""
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        schema,
        *map(str, files),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_action_is_valid() -> None:
    """The action follows GitHub's schema."""
    done = check("vendor.github-actions", ACTION)
    assert done.returncode == 0, done.stdout


def test_workflows_are_valid(tmp_path: Path) -> None:
    """The workflows follow it too, the one of the documentation among them."""
    documented = tmp_path / "documented.yml"
    documented.write_text(re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)[0])
    done = check("vendor.github-workflows", documented, *WORKFLOWS)
    assert done.returncode == 0, done.stdout


def test_zizmor_finds_nothing() -> None:
    """No template injection, no credentials left behind, nothing unpinned."""
    zizmor = Path(sys.executable).with_name("zizmor")
    command = [zizmor, "--offline", "--persona=pedantic", "--no-progress", ACTION, *WORKFLOWS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_inputs_reach_shells_through_the_environment() -> None:
    """No ``${{ }}`` inside ``run:``, where it would be code."""
    action = yaml.safe_load(ACTION.read_text())
    assert all("${{" not in step.get("run", "") for step in action["runs"]["steps"])


@pytest.mark.docs
def test_inputs_and_outputs_are_documented() -> None:
    """What the action takes and gives is what its page says."""
    action = yaml.safe_load(ACTION.read_text())
    inputs, outputs = PAGE.read_text().split("| output | what it is |")
    assert re.findall(r"^\| `([a-z-]+)` \|", inputs, re.MULTILINE) == list(action["inputs"])
    assert re.findall(r"^\| `([a-z-]+)` \|", outputs, re.MULTILINE) == list(action["outputs"])


def test_shell_is_valid_bash() -> None:
    """Every step parses."""
    for step in yaml.safe_load(ACTION.read_text())["runs"]["steps"]:
        subprocess.run(["bash", "-n"], input=step["run"], text=True, check=True)
