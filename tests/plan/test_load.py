"""What a good plan becomes."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from deployguard.plan import Plan, load
from deployguard.plan.model import HttpCheck
from tests.plan.conftest import Mistakes

PLAN = """\
name: shop-{{ vars.region }}
version: v1
vars: {region: eu, port: 3000, url: "http://x:{{ vars.port }}", flag: true}
hosts: {web1: {port: "{{ vars.port }}", become: "{{ vars.flag }}"}}
components:
  app:
    artifact: dist/app-{{ version }}.tar.gz
    path: /srv/app
    checks:
      - port: "{{ vars.port }}"
      - http:
          url: "{{ vars.url }}/health"
          json: {status: ok, version: "{{ version }}", build: {tag: "r-{{ version }}"}, n: 1}
      - http: {url: http://x/, version: build.version}
      - http: http://x/
"""


def _load(folder: Path, text: str = PLAN, **arguments: object) -> Plan:
    (folder / "plan.yaml").write_text(text)
    return load(folder / "plan.yaml", **arguments)  # type: ignore[arg-type]


def _http(plan: Plan, index: int) -> HttpCheck:
    check = plan.components["app"].checks[index].http
    assert check is not None
    return check


def test_templates(folder: Path) -> None:
    """Templates are rendered everywhere, also where a number or a truth value is asked for."""
    plan = _load(folder)
    assert plan.name == "shop-eu"
    assert plan.hosts["web1"].port == 3000
    assert plan.hosts["web1"].become is True
    assert plan.components["app"].artifact.path == "dist/app-v1.tar.gz"
    assert _http(plan, 1).url == "http://x:3000/health"


def test_versioned_fields(folder: Path) -> None:
    """JSON fields that change with the version are known, and `version:` is short for one."""
    plan = _load(folder)
    assert _http(plan, 1).versioned == ("version", "build")
    assert _http(plan, 1).json_fields["version"] == "v1"
    assert _http(plan, 2).versioned == ("build.version",)
    assert _http(plan, 2).json_fields == {"build.version": "v1"}
    assert _http(plan, 3).versioned == ()


def test_version_from_the_command_line(folder: Path) -> None:
    """`--version` replaces the plan's everywhere, and is not a template itself."""
    (folder / "dist/app-v2.tar.gz").touch()
    plan = _load(folder, version="v2")
    assert plan.version == "v2"
    assert plan.components["app"].artifact.path == "dist/app-v2.tar.gz"
    assert _http(plan, 2).json_fields == {"build.version": "v2"}
    assert _load(folder, PLAN.replace("version: v1\n", "", 1), version="v2").version == "v2"


def test_version_that_cannot_be_one(mistakes: Mistakes) -> None:
    """A wrong `--version` is shown as it was given, at the plan's own."""
    found = mistakes(PLAN, version="{{ 1 }}")
    assert '2:10 version: "{{ 1 }}" cannot be a version; use up to 128 letters' in found[0]


def test_variables_win(folder: Path) -> None:
    """`--var` wins over the plan's `vars`, also inside of them."""
    plan = _load(folder, variables={"port": "4000"})
    assert plan.hosts["web1"].port == 4000
    assert _http(plan, 1).url == "http://x:4000/health"


def test_environment_variables(folder: Path) -> None:
    """`env.NAME` is taken from the given environment, and may have a default."""
    text = PLAN.replace("region: eu", "region: \"{{ env.REGION | default('us') }}\"")
    assert _load(folder, text, environ={}).name == "shop-us"
    assert _load(folder, text, environ={"REGION": "eu"}).name == "shop-eu"


def test_names_of_methods_are_variables(folder: Path) -> None:
    """A variable may be called as a method of Python's dict is."""
    text = PLAN.replace("region: eu", "items: eu").replace("vars.region", "vars.items")
    assert _load(folder, text).name == "shop-eu"


def test_source_and_places(folder: Path) -> None:
    """The plan knows its file, and where its blocks and values stand."""
    plan = _load(folder)
    assert plan.source == str(folder / "plan.yaml")
    assert plan.places["components.app"] == (6, 3)
    assert plan.places["components.app.path"] == (8, 11)
    assert plan.places["components.app.checks[1].http.url"] == (12, 16)
    assert "hosts.web1.port" not in plan.places


@pytest.mark.parametrize("key", ["source: x", "places: {}"])
def test_what_the_loader_fills_is_no_key(key: str, mistakes: Mistakes) -> None:
    """Nobody writes the loader's own fields into a file."""
    assert mistakes(f"{PLAN}{key}\n") == [f"16:1 {key.split(':')[0]}: unknown key; remove it"]


def test_pickles(folder: Path) -> None:
    """A plan travels to other processes."""
    plan = _load(folder)
    assert pickle.loads(pickle.dumps(plan)) == plan


def test_relative_to_the_plan(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are looked for beside the plan, wherever one stands."""
    (folder / "plan.yaml").write_text(PLAN)
    monkeypatch.chdir(folder.parent)
    assert load(f"{folder.name}/plan.yaml").name == "shop-eu"


def test_imports_are_late() -> None:
    """Importing costs no YAML, templates or models; a plan without templates needs no Jinja2."""
    program = (
        "import sys; from deployguard.plan import load; import deployguard.plan.load as again;"
        "assert again is load, 'the function and its module share a name';"
        "print([name for name in ('pydantic', 'yaml', 'jinja2', 'difflib') if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def test_jinja_is_imported_for_templates_only(folder: Path) -> None:
    """A plan without a template is loaded without Jinja2."""
    (folder / "plan.yaml").write_text(
        "name: a\nversion: b\nhosts: {web1: }\ncomponents:\n"
        "  app: {artifact: dist/app.tar.gz, path: /srv/app, checks: [{port: 80}]}\n"
    )
    program = (
        "import sys; from deployguard.plan import load; load(sys.argv[1]);"
        "print('jinja2' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(folder / "plan.yaml")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "False"
