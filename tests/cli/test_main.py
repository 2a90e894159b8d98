"""The entry point: its cost, its table of commands, and the code for every way to end."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest

from deployguard import __version__, api, errors
from deployguard.cli.main import COMMANDS, cli
from deployguard.errors import DeployguardError, ExitCode, Mistake, PlanInvalid
from tests.cli.conftest import Run, Site

HEAVY = {"pydantic", "paramiko", "fabric", "rich", "structlog", "yaml", "jinja2", "httpx2"}


def _modules_after(*arguments: str) -> set[str]:
    script = (
        "import json, sys\n"
        "from deployguard.cli.main import run\n"
        f"code = run({list(arguments)!r})\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["apply", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    """Help and version do without every library that takes long to import."""
    loaded = _modules_after(*arguments)
    assert not loaded & HEAVY
    assert "deployguard.api" not in loaded


def test_validate_does_not_import_the_rollout() -> None:
    """Who only checks a file waits for no SSH library."""
    assert not _modules_after("validate", "--help") & {"paramiko", "deployguard.rollout.fleet"}


@pytest.mark.parametrize("name", COMMANDS)
def test_table_says_what_the_command_says(name: str) -> None:
    """The line in the table is the first line of the command's own help."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name
    assert command.get_short_help_str(100) == COMMANDS[name]
    assert (command.help or "").partition("\n")[0] == COMMANDS[name]


def test_version(deployguard: Run) -> None:
    """``--version`` names the program and its version."""
    assert deployguard("--version").out == f"deployguard {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["no-such-command"],
        ["apply"],
        ["apply", "no-such-file.yaml"],
        ["history", "--limit", "none"],
        ["explain", "99"],
        ["explain", "--no-such-option"],
    ],
)
def test_bad_usage_ends_with_2(deployguard: Run, arguments: list[str]) -> None:
    """Whatever is wrong with the command line, the code is 2 and stderr says what."""
    ran = deployguard(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err


def _classes() -> list[type[DeployguardError]]:
    found = [getattr(errors, name) for name in errors.__all__]
    return [value for value in found if isinstance(value, type) and issubclass(value, Exception)]


def _example(kind: type[DeployguardError]) -> DeployguardError:
    if kind is PlanInvalid:
        return PlanInvalid([Mistake("plan.yaml", 3, 7, "hosts", "it broke", "the hint")])
    if issubclass(kind, errors.HostFailure):
        return kind("web1", "it broke", hint="the hint")
    return kind("it broke", hint="the hint")


@pytest.mark.parametrize("kind", _classes(), ids=lambda kind: kind.__name__)
def test_every_error_has_its_code(
    deployguard: Run, site: Site, monkeypatch: pytest.MonkeyPatch, kind: type[DeployguardError]
) -> None:
    """An error of ours ends with the code of its class; message and hint are shown."""
    error = _example(kind)

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(api, "load", fail)
    ran = deployguard("apply", site.plan, "--json")
    assert ran.code == int(kind.exit_code)
    assert "it broke" in ran.err
    assert "the hint" in ran.err
    last = ran.lines[-1]
    assert (last["type"], last["exit_code"]) == ("error", int(kind.exit_code))


def test_unexpected_exception_ends_with_1(
    deployguard: Run, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug says so and what to do; the traceback is for ``--debug``."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(api, "load", fail)
    quiet = deployguard("apply", site.plan)
    assert quiet.code == ExitCode.INTERNAL
    assert "ZeroDivisionError: by nothing" in quiet.err
    assert "deployguard recover" in quiet.err
    assert "Traceback" not in quiet.err
    assert "Traceback" in deployguard("apply", site.plan, "--debug").err


def test_keyboard_interrupt_ends_with_7(
    deployguard: Run, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C where nothing catches it is an interruption, not a bug."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "load", interrupt)
    assert deployguard("apply", site.plan).code == ExitCode.INTERRUPTED


def test_reader_that_leaves_changes_nothing(site: Site) -> None:
    """``deployguard … --json | head -0`` ends with the command's own code, without noise."""
    read_end = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    read_end.wait()
    done = subprocess.run(
        [sys.executable, "-m", "deployguard.cli.main", "validate", site.plan, "--json"],
        stdout=read_end.stdin,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "Broken" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["aply", "plan.yaml"], 'did you mean "apply"?'),
        (["apply", "plan.yaml", "--version", "v2"], "--release VERSION"),
        (["apply", "plan.yaml", "--releas", "v2"], "--release"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(
    deployguard: Run, arguments: list[str], words: str
) -> None:
    """The likeliest mistakes on a command line name the mend."""
    ran = deployguard(*arguments)
    assert ran.code == ExitCode.USAGE
    assert words in ran.err
