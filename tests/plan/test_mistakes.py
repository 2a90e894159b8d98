"""What is said about plans with mistakes: golden transcripts, and rules for all messages.

Each file in ``mistakes/`` is a plan and, in comments at its end, what is said about it. After a
change of words, ``python -m tests.plan.test_mistakes`` writes them anew; read the difference.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

import pytest

from deployguard.errors import ExitCode, PlanInvalid
from deployguard.plan import load
from deployguard.plan.mistakes import pattern_words
from deployguard.plan.schema import json_schema
from tests.plan.conftest import Mistakes

GOLDEN = sorted((Path(__file__).parent / "mistakes").glob("*.yaml"))
MARK = "# --- mistakes\n"
# Words of the tools below us that no message may have.
JARGON = re.compile(r"pydantic|Input should|https?://errors|tuple\[|function-before|Traceback|dict")

PLAN = """\
name: shop
version: v1
hosts: {web1: }
components:
  app:
    artifact: dist/app.tar.gz
    path: /srv/app
    checks: [{port: 80}]
"""


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_said_about(file: Path, mistakes: Mistakes) -> None:
    """Every mistake of the file is found at once, in file order, in these words."""
    plan, _, expected = file.read_text().partition(MARK)
    found = mistakes(plan, environ={})
    assert found == [line.removeprefix("# ") for line in expected.splitlines()]
    assert not JARGON.search("\n".join(found))


def test_example_of_the_design(mistakes: Mistakes) -> None:
    """A misspelt key is shown with its place, its dotted name and the key that was meant."""
    text = PLAN.replace("checks", "chekcs")
    assert '8:5 components.app.chekcs: unknown key; did you mean "checks"?' in mistakes(text)


def test_misspelt_needed_key_is_one_mistake(mistakes: Mistakes) -> None:
    """A needed key that was misspelt is not reported as missing, too."""
    assert mistakes(PLAN.replace("artifact:", "artefact:")) == [
        '6:5 components.app.artefact: unknown key; did you mean "artifact"?'
    ]


def test_key_at_the_wrong_indent(mistakes: Mistakes) -> None:
    """A key that belongs to another block is told which."""
    assert mistakes(PLAN + "retain: 3\n") == [
        "9:1 retain: unknown key; it belongs in components.NAME"
    ]


def test_missing_key_points_at_its_block(mistakes: Mistakes) -> None:
    """What is missing has no place; the block that lacks it has."""
    found = mistakes(PLAN.replace("    path: /srv/app\n", ""))
    assert found == ['5:3 components.app: "path" is missing; Managed path on the host']


def test_missing_top_level_keys(mistakes: Mistakes) -> None:
    """A plan that lacks everything says what a plan needs, at its first line."""
    found = mistakes("environment: x\n")
    assert [line.split(";")[0] for line in found] == [
        '1:1 "components" is missing',
        '1:1 "hosts" is missing',
        '1:1 "name" is missing',
        '1:1 "version" is missing',
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port: true", "true is not a number"),
        ("port: [1]", "expected a port number, or a block with `number`, found a list"),
        ("port: 0", "must be at least 1, found the number 0"),
        ("port: 80.5", "expected a port number, or a block with `number`, found the number 80.5"),
        ("process: ", "process has no value; write process: {}"),
        ("procces: {}", 'unknown key; did you mean "process"?'),
        ("port: 80, process: {}", "needs exactly one of process, port, http, tcp, command"),
        ("http: {url: ftp://x}", "is not a URL; it starts with http:// or https://"),
        ("http: {url: 'http://x', status: often}", "expected a whole number or a list"),
        ("http: {url: 'http://x', timeout: 3 s, interval: fast}", '"fast" is not a duration'),
        ("command: a b", "write it as [a, b]"),
        ("http: {url: 'http://x', versioned: [a]}", 'did you mean "version"?'),
    ],
)
def test_wrong_checks(text: str, said: str, mistakes: Mistakes) -> None:
    """The ways in which a check is often mistaken, each told in plain words, and once."""
    found = mistakes(PLAN.replace("port: 80", text))
    assert len(found) == 1
    assert said in found[0]
    assert found[0].startswith("8:")


def test_alias_does_not_repeat_a_mistake(mistakes: Mistakes) -> None:
    """A mistake behind an anchor is told once, not for every host that uses it."""
    hosts = "hosts:\n  web0: &web {become: maybe, groups: [a]}\n" + "".join(
        f"  web{number}: {{<<: *web, address: host{number}}}\n" for number in range(1, 50)
    )
    found = mistakes(PLAN.replace("hosts: {web1: }\n", hosts))
    assert found == ['4:23 hosts.web0.become: expected true or false, found "maybe"']


def test_a_value_from_the_environment_is_not_shown(mistakes: Mistakes) -> None:
    """What a template took from the environment may be a secret; the template is shown instead."""
    text = PLAN.replace("port: 80", 'port: "{{ vars.t }}"').replace(
        "dist/app.tar.gz", "dist/{{ vars.t }}.tar"
    )
    found = mistakes(text + 'vars: {t: "{{ env.TOKEN }}"}', environ={"TOKEN": "hunter2" * 20})
    assert "hunter2" not in "".join(found)
    assert [line.split(": ", 1)[1] for line in found] == [
        'the artifact "dist/{{ env.TOKEN }}.tar" is not there; the folder holds '
        "app-v1.tar.gz, app.tar.gz, tree",
        'expected a whole number, found "{{ vars.t }}"',
    ]


def test_the_version_is_shown_even_from_the_environment(mistakes: Mistakes) -> None:
    """A branch name that cannot be a version is shown: it is no secret, and the mistake itself."""
    found = mistakes(PLAN.replace("v1", '"{{ env.REF }}"'), environ={"REF": "feature/x y"})
    assert 'found "{{ env.REF }}", which gives "feature/x y"' in found[0] or (
        '"{{ env.REF }}", which gives "feature/x y" cannot be a version' in found[0]
    )


def test_every_pattern_has_words() -> None:
    """A regular expression of the models is never shown to a person."""
    patterns = set(re.findall(r'"pattern": ("(?:[^"\\]|\\.)*")', json.dumps(json_schema())))
    names = {"^[A-Za-z0-9:][A-Za-z0-9.:_-]{0,252}$", "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}
    for pattern in {json.loads(text) for text in patterns} - {r"\{\{|\{%"} | names:
        assert "does not match" not in pattern_words(pattern), pattern


def test_exit_code_and_order(folder: Path) -> None:
    """Mistakes end with exit code 2 and come in the order of the file."""
    plan = folder / "plan.yaml"
    plan.write_text(PLAN.replace("v1", "1.0").replace("/srv/app", "srv").replace("80", "x"))
    with pytest.raises(PlanInvalid) as caught:
        load(plan)
    assert caught.value.exit_code is ExitCode.USAGE
    assert [mistake.line for mistake in caught.value.mistakes] == [2, 7, 8]
    assert str(plan) in str(caught.value)


def _renew() -> None:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        for path in ("dist/app.tar.gz", "dist/app-v1.tar.gz", "dist/tree/x", "notes.txt"):
            (base / path).parent.mkdir(parents=True, exist_ok=True)
            (base / path).touch()
        for path in ("app.service", "limits.conf"):
            (base / path).touch()
        (base / "empty").mkdir()
        for file in GOLDEN:
            plan = file.read_text().partition(MARK)[0]
            (base / "plan.yaml").write_text(plan)
            try:
                load(base / "plan.yaml", environ={})
            except PlanInvalid as invalid:
                lines = [str(mistake).split("plan.yaml:", 1)[1] for mistake in invalid.mistakes]
                file.write_text(plan + MARK + "".join(f"# {line}\n" for line in lines))


if __name__ == "__main__":
    _renew()
