"""Whatever the file holds: a plan, or mistakes with places. Never a traceback."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deployguard.errors import Mistake, PlanInvalid
from deployguard.plan import load
from deployguard.plan.model import Plan

SHOP = Path(__file__).parents[2] / "playbooks" / "shop"
TEXT = (SHOP / "plan.yaml").read_text()
INVENTORY = (SHOP / "inventories" / "production.yaml").read_text()

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["{{", "{{ version }}", "{% for %}", "{{ vars }}", "{{ env.HOME }}", "/", "..", "\0", "0",
         "/srv", "all", "-1%", "http://[", "http://a:b", "\ud800", "a" * 300, "{{ 1/0 }}", "", "."]
    ),
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def shop() -> Iterator[Path]:
    """A copy of the example in which everything it refers to is there."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        for path in ("dist/backend-v1.2.4.tar.gz", "dist/frontend/x", "files/backend.service",
                     "files/limits.conf", "inventories/production.yaml"):  # fmt: skip
            (base / path).parent.mkdir(parents=True, exist_ok=True)
            (base / path).touch()
        (base / "inventories/production.yaml").write_text(INVENTORY)
        yield base


def _outcome(base: Path, data: bytes, name: str = "plan.yaml") -> None:
    (base / name).write_bytes(data)
    _plan_or_mistakes(base)


def _plan_or_mistakes(base: Path, **arguments: Any) -> None:
    outcome: Plan | list[Mistake]
    try:
        outcome = load(base / "plan.yaml", **arguments)
    except PlanInvalid as invalid:
        outcome = invalid.mistakes
    if isinstance(outcome, Plan):
        return
    assert outcome
    for mistake in outcome:
        assert mistake.line >= 1
        assert mistake.column >= 1
        assert mistake.message
        str(mistake).encode()


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _paths(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _paths(inner, (*path, index))


def _mangle(draw: st.DrawFn, tree: Any) -> Any:
    """The tree with one to four values deleted, replaced, renamed or copied elsewhere."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 4))):
        paths = list(_paths(tree))
        if not paths:
            break
        path = draw(st.sampled_from(paths))
        holder = tree
        for part in path[:-1]:
            holder = holder[part]
        deed = draw(st.sampled_from(["delete", "replace", "rename", "copy"]))
        if deed == "replace":
            holder[path[-1]] = draw(values)
        elif deed == "copy":
            other: Any = tree
            for part in draw(st.sampled_from(paths)):
                other = other[part]
            holder[path[-1]] = copy.deepcopy(other)
        else:
            value = holder.pop(path[-1])
            if deed == "rename" and isinstance(holder, dict):
                holder[draw(st.text(max_size=8))] = value
    return tree


@st.composite
def mangled_plans(draw: st.DrawFn) -> bytes:
    """The example with some of its values deleted, replaced, renamed or moved."""
    tree = _mangle(draw, yaml.safe_load(TEXT))
    return yaml.safe_dump(tree, allow_unicode=draw(st.booleans())).encode("utf-8", "replace")


@st.composite
def mangled_inventories(draw: st.DrawFn) -> bytes:
    """The example's inventory, mangled alike."""
    return yaml.safe_dump(_mangle(draw, yaml.safe_load(INVENTORY))).encode("utf-8", "replace")


@st.composite
def mangled_text(draw: st.DrawFn) -> bytes:
    """The example's text with pieces cut out and bytes put in."""
    data = bytearray(TEXT.encode())
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 30))
        data[start : start + length] = draw(
            st.binary(max_size=8)
            | st.sampled_from(
                [b"{", b"[", b"'", b'"', b"\t", b"&a", b"*a", b"? ", b"!!x ", b"<<: "]
            )
        )
    return bytes(data)


def test_the_example_is_a_plan(shop: Path) -> None:
    """What is mangled below is valid to begin with."""
    (shop / "plan.yaml").write_text(TEXT)
    assert isinstance(load(shop / "plan.yaml"), Plan)


@given(data=mangled_plans())
def test_mangled_values(shop: Path, data: bytes) -> None:
    """Any value anywhere gives a plan or mistakes."""
    _outcome(shop, data)


@given(data=mangled_text())
def test_mangled_text(shop: Path, data: bytes) -> None:
    """Any damage to the text gives a plan or mistakes."""
    _outcome(shop, data)


@given(data=mangled_inventories() | st.binary(max_size=60))
def test_mangled_inventory(shop: Path, data: bytes) -> None:
    """Any damage to the inventory gives a plan or mistakes."""
    (shop / "plan.yaml").write_text(TEXT)
    try:
        _outcome(shop, data, "inventories/production.yaml")
    finally:
        (shop / "inventories/production.yaml").write_text(INVENTORY)


@given(data=st.binary(max_size=200))
def test_random_bytes(shop: Path, data: bytes) -> None:
    """Bytes of any kind give mistakes."""
    _outcome(shop, data)


@given(version=st.text(max_size=30), variable=st.text(max_size=30))
def test_any_arguments(shop: Path, version: str, variable: str) -> None:
    """Any --version and --var gives a plan or mistakes."""
    (shop / "plan.yaml").write_text(TEXT)
    _plan_or_mistakes(shop, version=version, variables={"port": variable}, environ={})


def test_unreadable_folder(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems that refuse to answer are mistakes, too."""

    def refuse(*_: object) -> bool:
        raise OSError("stale handle")

    (shop / "plan.yaml").write_text(TEXT)
    monkeypatch.setattr(os.path, "isfile", refuse)
    with pytest.raises(PlanInvalid, match="cannot be read"):
        load(shop / "plan.yaml")
