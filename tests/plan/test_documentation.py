"""`docs/plan.md` and `playbooks/`: what they show is what is loaded."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from deployguard.plan import load
from deployguard.plan.reference import with_tables
from deployguard.plan.schema import json_schema

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "plan.md").read_text()
MARKED = re.findall(r"<!-- plan(?:: (\S+))? -->\n```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
SCHEMA = json_schema()

pytestmark = pytest.mark.docs


def _errors(data: Any) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(data)]


def _stage(folder: Path) -> None:
    """The files that the plans of the documentation refer to; artifacts are built elsewhere."""
    for part in ("files", "inventories"):
        shutil.copytree(ROOT / "playbooks" / "shop" / part, folder / part)
    for name in ("dist/backend-v1.2.4.tar.gz", "dist/frontend/index.html", "dist/site.tar.gz"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize("text", [text for _, text in MARKED])
def test_whole_plans_are_valid(text: str, tmp_path: Path) -> None:
    """Every plan that is shown whole loads, and is valid by the schema."""
    _stage(tmp_path)
    (tmp_path / "plan.yaml").write_text(text)
    load(tmp_path / "plan.yaml", environ={})
    assert _errors(yaml.safe_load(text)) == []


def test_the_example_is_the_playbook() -> None:
    """The example in the document is the file that is shipped, to the letter."""
    shown = {name: text for name, text in MARKED if name}
    assert len(MARKED) >= 2
    assert shown
    for name, text in shown.items():
        assert (ROOT / name).read_text() == text


def test_the_inventory_is_the_playbook() -> None:
    """So is the inventory."""
    inventory = (ROOT / "playbooks/shop/inventories/production.yaml").read_text()
    assert f"```yaml\n{inventory}```" in DOCUMENT


def test_tables_are_those_of_the_models() -> None:
    """Else run ``python -m deployguard.plan.reference docs/plan.md``."""
    assert with_tables(DOCUMENT) == DOCUMENT


def test_every_block_has_its_section() -> None:
    """Every link to a block has a heading, and every block of the schema a table."""
    headings = {line.lstrip("# ").lower() for line in DOCUMENT.splitlines() if line.startswith("#")}
    assert set(re.findall(r"\]\(#(\w+)\)", DOCUMENT)) <= headings
    tables = set(re.findall(r"<!-- table: (\w+) -->", DOCUMENT))
    assert set(SCHEMA["$defs"]) - {"Template", "ProcessCheck"} <= tables


def test_schema_is_a_schema() -> None:
    """The schema is valid itself."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("nmae",), "x"),
        (("name",), "a b"),
        (("on_failure",), "pray"),
        (("source",), "x"),
        (("components", "back end"), {}),
        (("components", "backend", "checks", 1), {"port": 70000}),
        (("components", "backend", "checks", 0), {"process": {}, "port": 1}),
        (("components", "backend", "checks", 0), {"http": {"url": "http://x", "versioned": []}}),
        (("components", "backend", "layout"), "inplace"),
        (("components", "backend", "path"), "srv"),
        (("components", "backend", "retain"), 1),
    ],
)
def test_schema_refuses(path: tuple[Any, ...], value: object) -> None:
    """An editor shows what is wrong with keys and values."""
    data = yaml.safe_load(MARKED[0][1])
    holder = data
    for part in path[:-1]:
        holder = holder[part]
    holder[path[-1]] = value
    assert _errors(data)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("hosts",), {"web1": None}),
        (("serial",), 1),
        (("lease",), "{{ vars.lease }}"),
        (("lease",), "5m"),
        (("on_failure",), "{{ vars.mode }}"),
        (("components", "backend", "path"), "{{ vars.root }}/x"),
        (("components", "backend", "artifact"), {"path": "x"}),
        (("components", "backend", "checks", 0), {"command": ["true"]}),
        (("components", "backend", "checks", 0), {"http": "http://x"}),
        (("components", "backend", "checks", 0), {"port": "{{ vars.port }}"}),
    ],
)
def test_schema_takes_short_forms_and_templates(path: tuple[Any, ...], value: object) -> None:
    """What the loader takes, the schema takes."""
    data = yaml.safe_load(MARKED[0][1])
    holder = data
    for part in path[:-1]:
        holder = holder[part]
    holder[path[-1]] = value
    assert _errors(data) == []
