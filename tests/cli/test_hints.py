"""A command that a message tells somebody to run is one that runs as it stands."""

from __future__ import annotations

import ast
import re
import shlex
import threading
from pathlib import Path

import click
import pytest

import deployguard as package
from deployguard import api
from deployguard.cli.main import COMMANDS, cli
from deployguard.errors import EXPLANATIONS, ExitCode
from tests.cli.conftest import Run, Site
from tests.cli.outcomes import host, outcome

#: A command within a sentence; what stands in braces is filled in when it is said.
QUOTED = re.compile(r"`deployguard ([a-z]+)([^`]*)`")


def _needs_a_plan(name: str) -> bool:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return any(parameter.name == "plan_path" for parameter in command.params)


def _strings(tree: ast.AST) -> list[str]:
    """Every text of a module that it may show: help texts are docstrings, other ones are prose."""
    shown = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [
                str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values
            ]
            shown.append("".join(parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            shown.append(node.value)
    return [text.replace("``", "") for text in shown]


def test_every_command_that_needs_a_plan_is_given_one() -> None:
    """Nowhere in the program is a command quoted that would end with "missing argument"."""
    short = []
    for file in sorted(Path(package.__file__).parent.rglob("*.py")):
        for text in _strings(ast.parse(file.read_text())):
            for name, rest in QUOTED.findall(text):
                if name in COMMANDS and _needs_a_plan(name) and not rest.split():
                    short.append(f"{file.name}: `deployguard {name}`")
    assert not short


@pytest.mark.parametrize("code", EXPLANATIONS)
def test_the_end_of_a_run_names_its_plan(code: ExitCode) -> None:
    """The next step in the summary has the path, where ``explain`` can only say ``PLAN``."""
    from deployguard.cli import summary

    shown = outcome(code, "failed", source="deploy/shop.yaml", hosts=(host("web1", "stuck"),))
    text = "\n".join(line for line, _ in summary.lines(shown))
    assert "PLAN" not in text
    for name, rest in QUOTED.findall(text):
        assert rest == " deploy/shop.yaml" or not _needs_a_plan(name)


@pytest.mark.parametrize("versioned", [True, False])
def test_what_an_interrupted_run_says_can_be_run(
    deployguard: Run, site: Site, versioned: bool
) -> None:
    """The command in the message recovers, also for a plan that does not load by its path alone."""
    folder = site.root / "my plans"
    folder.mkdir()
    plan = folder / "plan.yaml"
    text = site.plan.read_text().replace('"releases/', f'"{site.root}/releases/')
    plan.write_text(text if versioned else text.replace("version: v1\n", ""))
    stop = threading.Event()
    stop.set()
    loaded = api.load(plan, version=None if versioned else "v1")
    ended = api.apply(loaded, stop=stop)
    assert ended.exit_code == ExitCode.INTERRUPTED
    found = QUOTED.search(ended.summary)
    assert found is not None and found[1] == "recover"
    assert deployguard(found[1], *shlex.split(found[2])).code == 0


def test_values_of_variables_are_not_repeated(site: Site) -> None:
    """A variable may be a secret: the command names it, and leaves the value to be filled in."""
    loaded = api.load(site.plan, variables={"password": "hunter2-sentinel"})
    assert loaded.arguments == f"{site.plan} --var password=..."


def test_an_error_of_ours_names_the_plan(
    deployguard: Run, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What to do after a bug, or Ctrl-C, is a command with the plan in it."""
    for error in (ZeroDivisionError("by nothing"), KeyboardInterrupt()):

        def fail(*_: object, error: BaseException = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(api, "load", fail)
        assert f"`deployguard recover {site.plan}`" in deployguard("apply", site.plan).err
