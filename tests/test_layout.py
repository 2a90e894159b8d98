"""Rules about the code that import-linter cannot express."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
ONHOST = sorted((ROOT / "deployguard" / "onhost").rglob("*.py"))
ONHOST_TESTS = sorted((ROOT / "tests" / "onhost").rglob("*.py"))


def imported(file: Path) -> Iterator[str]:
    """Full names of what a file imports anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def named(file: Path) -> str:
    """The file as a test id."""
    return str(file.relative_to(ROOT))


def outside(file: Path, *allowed: str) -> list[str]:
    """What a file imports beside the standard library and the packages allowed."""
    return [
        name
        for name in imported(file)
        if name.partition(".")[0] not in sys.stdlib_module_names
        and not any(name == package or name.startswith(package + ".") for package in allowed)
    ]


@pytest.mark.parametrize("file", ONHOST, ids=named)
def test_host_program_is_standard_library_only(file: Path) -> None:
    """The program is sent to hosts that have Python and nothing else."""
    assert outside(file, "deployguard.onhost") == []


@pytest.mark.parametrize("file", ONHOST_TESTS, ids=named)
def test_host_program_is_tested_alone(file: Path) -> None:
    """Its tests run on Python 3.8, where the rest of deployguard does not."""
    allowed = ("deployguard.onhost", "tests.onhost", "pytest", "_pytest", "hypothesis")
    assert outside(file, *allowed) == []


@pytest.mark.parametrize("file", [*ONHOST, *ONHOST_TESTS], ids=named)
def test_host_program_parses_on_38(file: Path) -> None:
    """No syntax newer than the oldest Python a host may have."""
    ast.parse(file.read_text(), feature_version=(3, 8))


def test_ci_runs_one_script() -> None:
    """What CI runs is what ``.ci/run`` runs anywhere, from pinned actions."""
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    steps = [step for job in yaml.safe_load(text)["jobs"].values() for step in job["steps"]]
    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]
    uses = [step["uses"] for step in steps if "uses" in step]
    assert all(re.search(r"@[0-9a-f]{40}$", use) for use in uses)


def test_constraints_pin_everything_that_is_asked_for() -> None:
    """A dependency without a pin is one that CI gets a surprise from."""
    pins = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        asked += extra
    names = {re.split(r"[^\w.-]", each)[0].lower().replace("_", "-") for each in asked}
    assert names - pins == {"deployguard"}
