"""The tables of the documentation are those of the code."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from typing import Any

import pytest
import yaml

from deployguard.cli.main import COMMANDS
from deployguard.errors import EXPLANATIONS, ExitCode
from deployguard.guards.registry import ALWAYS, GUARDS
from deployguard.onhost.state import machine
from deployguard.plan.schema import json_schema
from tests.docs.pages import ROOT, rows, section, table, words

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.docs

README = ROOT / "README.md"
PROTOCOL = ROOT / "docs" / "protocol.md"
ONHOST = ROOT / "deployguard" / "onhost"


# --- the readme ---------------------------------------------------------------------------------


def test_exit_codes_of_the_readme() -> None:
    """Every code with its meaning, and no other."""
    found = [(int(code), meaning) for code, meaning in rows(section(README, "Exit codes"))]
    assert found == [(int(code), EXPLANATIONS[code].meaning) for code in ExitCode]


def test_commands_of_the_readme() -> None:
    """Every command with its line of ``--help``, and no other."""
    found = [(words(name)[0], text) for name, text in rows(section(README, "Commands"))]
    assert found == list(COMMANDS.items())


def test_the_step_of_the_readme_fits_the_action() -> None:
    """The inputs that the step names are inputs of the action."""
    text = section(README, "From GitHub Actions")
    (step,) = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    assert set(step["with"]) <= set(action["inputs"])
    assert action["inputs"]["plan"]["required"] is True and "plan" in step["with"]


# --- the guards ---------------------------------------------------------------------------------


def test_guards_are_those_of_the_registry() -> None:
    """Every guard has its row and its section, and the row says whether a rollback asks it."""
    page = ROOT / "docs" / "guards.md"
    wanted = {name: "yes" if kind.protects == "host" else "no" for name, kind in GUARDS.items()}
    wanted |= dict.fromkeys(ALWAYS, "yes") | {"migrations": "only a rollback"}
    assert {words(row[0])[0]: row[2] for row in table(page, "guards")} == wanted
    for name in GUARDS:
        assert "**When it refuses**" in section(page, name)


# --- the plan -----------------------------------------------------------------------------------


def test_options_of_the_plan_are_those_of_the_schema() -> None:
    """What docs/plan.md documents the schema has, and the other way round."""
    schema = json_schema()
    text = (ROOT / "docs" / "plan.md").read_text()
    options = {
        part.partition(" -->")[0]: {words(row[0])[0] for row in rows(part.partition("\n")[2])}
        for part in text.split("<!-- table: ")[1:]
    }
    common = options.pop("CheckOptions")
    definitions: dict[str, Any] = {"Plan": schema, **schema["$defs"]}
    for name, definition in definitions.items():
        if "properties" not in definition:
            continue
        known = set(definition["properties"])
        if name.endswith("Check") and name != "Check":
            # A check whose default is another one tells it again.
            assert options.get(name, set()) <= known, name
            known -= common
            options[name] = options.get(name, set()) - common
        assert known == options.pop(name, set()), name
    assert not options


# --- the protocol -------------------------------------------------------------------------------


#: Where the class of the participant is written down, and what it is built on.
_PARTICIPANT = ("participant", "tenure")


def _function(modules: Sequence[str], name: str) -> ast.FunctionDef:
    for module in modules:
        (file,) = ONHOST.rglob(f"{module}.py")
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name == name:
                return node
    raise LookupError(f"{name} in {modules}")


def _dispatch() -> dict[str, ast.expr]:
    """The table of verbs in ``serve.py``."""
    for node in ast.walk(_function(["serve"], "_dispatch")):
        if isinstance(node, ast.Dict) and node.keys:
            return {
                key.value: value
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant) and isinstance(key.value, str)
            }
    raise LookupError("_dispatch has no table")


def _arguments(modules: Sequence[str], name: str) -> set[str]:
    """The keys of ``args`` that a verb's function reads."""
    found: set[str] = set()
    for node in ast.walk(_function(modules, name)):
        key: ast.expr | None = None
        if isinstance(node, ast.Subscript) and _is_args(node.value):
            key = node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "get" and _is_args(node.func.value):
                key = node.args[0]
        elif isinstance(node, ast.DictComp) and ast.unparse(node.value).startswith("args["):
            # {k: args[k] for k in ("transaction", …)}
            found |= set(ast.literal_eval(node.generators[0].iter))
        if isinstance(key, ast.Constant):
            found.add(str(key.value))
    return found


def _is_args(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "args"


def test_verbs_are_those_of_the_host_program() -> None:
    """Every verb that is served, with the arguments that its function reads."""
    documented = {words(row[0])[0]: set(words(row[1])) for row in table(PROTOCOL, "verbs")}
    served = {}
    for verb, value in _dispatch().items():
        call = value.body if isinstance(value, ast.Lambda) else value
        reference = call.func if isinstance(call, ast.Call) else call
        assert isinstance(reference, ast.Attribute) and isinstance(reference.value, ast.Name)
        modules = _PARTICIPANT if reference.value.id == "mine" else (reference.value.id,)
        served[verb] = _arguments(modules, reference.attr)
    assert documented == served


def test_states_are_those_of_the_machine() -> None:
    """Every state, and every event that leads out of it."""
    found: dict[tuple[str, str], str] = {}
    states = []
    for state, _, events in table(PROTOCOL, "states"):
        (name,) = words(state)
        states.append(name)
        names = words(events)
        for event, target in zip(names[::2], names[1::2], strict=True):
            found[name, event] = target
    assert states == list(machine.STATES)
    assert found == machine.TRANSITIONS


def test_records_are_those_of_the_journal() -> None:
    """Every kind of record that the host program writes, and the state it enters."""
    written: dict[str, str | None] = {}
    for file in ONHOST.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            arguments = node.args
            if node.func.attr == "append" and _is_journal(node.func.value) and arguments:
                written[str(ast.literal_eval(arguments[0]))] = None
            elif node.func.attr == "enter" and len(arguments) == 2:
                assert isinstance(arguments[0], ast.Attribute)
                event = getattr(machine, arguments[0].attr)
                (target,) = {to for (_, by), to in machine.TRANSITIONS.items() if by == event}
                written[str(ast.literal_eval(arguments[1]))] = target
    documented = {
        words(kind)[0]: (words(state) or [None])[0] for kind, state, _ in table(PROTOCOL, "records")
    }
    assert documented == written


def _is_journal(node: ast.expr) -> bool:
    """``journal``, ``self._journal``, or ``self._need()``, which answers one."""
    text = ast.unparse(node)
    return text.endswith(("journal", "_need()"))


def test_error_kinds_are_documented() -> None:
    """A controller may be told of any of them."""
    documented = {words(row[0])[0] for row in rows(section(PROTOCOL, "Messages"))}
    said = set()
    for file in ONHOST.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "RequestError":
                said.add(ast.literal_eval(node.args[0]))
            elif isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    plain = isinstance(key, ast.Constant) and isinstance(value, ast.Constant)
                    if plain and key.value == "kind" and file.name == "serve.py":
                        said.add(value.value)
    assert said == documented


# --- architecture and guarantees ----------------------------------------------------------------


def _layers(number: int) -> list[list[str]]:
    """The rows of an import contract, packages that are strangers to one another included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return [
        [name.strip().strip("()") for name in layer.replace("|", ":").split(":")]
        for layer in project["tool"]["importlinter"]["contracts"][number]["layers"]
    ]


def test_packages_are_those_of_the_import_contract() -> None:
    """The same rows in the same order."""
    found = [words(row[0]) for row in table(ROOT / "docs" / "architecture.md", "layers")]
    assert found == _layers(0)


def test_rooms_are_those_of_the_import_contract() -> None:
    """The same rows in the same order; what lies in no room is told above the table."""
    rooms = [[name for name in row if (ONHOST / name).is_dir()] for row in _layers(1)]
    found = [words(row[0]) for row in table(ROOT / "docs" / "architecture.md", "onhost")]
    assert found == [row for row in rooms if row]


def test_guarantees_name_tests_that_exist() -> None:
    """Each line names at least one; a line without a test is a promise nobody checks."""
    for row in table(ROOT / "docs" / "guarantees.md", "guarantees"):
        if row[0].startswith("**"):
            continue
        named = words(row[-1])
        assert named, row
        for test in named:
            file, _, name = test.partition("::")
            assert (ROOT / file).is_file(), test
            functions = [
                node.name
                for node in ast.walk(ast.parse((ROOT / file).read_text()))
                if isinstance(node, ast.FunctionDef)
            ]
            assert name in functions, test
