"""Who starts when: components, hosts and batches."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployguard.plan.model import Component, Plan
from deployguard.plan.order import (
    batches,
    components_on,
    find_cycle,
    hosts_in_order,
    hosts_named,
    start_order,
    tasks_on,
)


def _component(*needs: str, hosts: Sequence[str] = ()) -> dict[str, object]:
    return {"artifact": "a", "path": "/srv/a", "needs": list(needs), "hosts": list(hosts)}


PLAN = Plan.model_validate(
    {
        "name": "shop",
        "version": "v1",
        "hosts": {
            "web1": {"groups": ["web"]},
            "db": {},
            "web2": {"groups": ["web"]},
            "spare": {},
        },
        "components": {
            "front": _component("back", hosts=["web"]),
            "back": _component("store", hosts=["web", "db"]),
            "store": _component(hosts=["db"]),
        },
        "tasks": [
            {"name": "migrate", "run": ["m"], "component": "store"},
            {"name": "sweep", "run": ["s"], "hosts": ["web2"]},
            {"name": "note", "run": ["n"]},
        ],
    }
)


def test_start_order() -> None:
    """Those needed come first."""
    assert start_order(PLAN.components) == ["store", "back", "front"]


def test_start_order_keeps_the_order_of_the_file() -> None:
    """Components that do not need one another start as they are written."""
    names = ["c", "a", "b"]
    components = {name: Component.model_validate(_component()) for name in names}
    assert start_order(components) == names


def test_a_circle_is_refused() -> None:
    """Without validation a circle is an error, and not an endless loop."""
    components = {
        "a": Component.model_validate(_component("b")),
        "b": Component.model_validate(_component("a")),
    }
    with pytest.raises(ValueError, match="circle"):
        start_order(components)


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=3)))
def test_cycle_or_order(needs: dict[str, list[str]]) -> None:
    """Either there is an order in which every need is met, or a circle can be shown."""
    components = {name: Component.model_validate(_component(*its)) for name, its in needs.items()}
    cycle = find_cycle({name: [n for n in its if n in needs] for name, its in needs.items()})
    if cycle:
        assert cycle[0] == cycle[-1]
        assert all(after in needs[before] for before, after in pairwise(cycle))
        with pytest.raises(ValueError, match="circle"):
            start_order(components)
    else:
        order = start_order(components)
        assert sorted(order) == sorted(needs)
        for name in order:
            before = order[: order.index(name)]
            assert all(need in before for need in needs[name] if need in needs)


def test_components_on() -> None:
    """A host has the components that name it, or a group of it, in the order of starting."""
    assert components_on(PLAN, "web1") == ["back", "front"]
    assert components_on(PLAN, "db") == ["store", "back"]
    assert components_on(PLAN, "spare") == []


def test_hosts_in_order() -> None:
    """Hosts that nothing is deployed to take no part."""
    assert hosts_in_order(PLAN) == ["web1", "db", "web2"]


def test_tasks_on() -> None:
    """A task of a component runs where that runs; one that names nothing runs everywhere."""
    assert tasks_on(PLAN, "web1") == ["note"]
    assert tasks_on(PLAN, "db") == ["migrate", "note"]
    assert tasks_on(PLAN, "web2") == ["sweep", "note"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), ["web1", "db", "web2", "spare"]),
        (("all",), ["web1", "db", "web2", "spare"]),
        (("db", "web"), ["web1", "db", "web2"]),
        (("nobody",), []),
    ],
)
def test_hosts_named(names: tuple[str, ...], expected: list[str]) -> None:
    """Hosts and groups may be mixed; the order is the file's."""
    assert hosts_named(PLAN.hosts, names) == expected


@pytest.mark.parametrize(
    ("serial", "sizes"),
    [
        ((1,), [1] * 10),
        ((1, 5), [1, 5, 4]),
        ((3,), [3, 3, 3, 1]),
        (("30%",), [3, 3, 3, 1]),
        ((1, "50%", "100%"), [1, 5, 4]),
        (("1%",), [1] * 10),
        (("25%",), [2, 2, 2, 2, 2]),
        (("4",), [4, 4, 2]),
        ((), [10]),
    ],
)
def test_batches(serial: tuple[int | str, ...], sizes: list[int]) -> None:
    """Ten hosts are split as Ansible splits them."""
    names = [f"web{number}" for number in range(10)]
    result = batches(serial, names)
    assert [len(batch) for batch in result] == sizes
    assert [name for batch in result for name in batch] == names


def test_no_hosts_no_batches() -> None:
    """Without hosts there is nothing to do."""
    assert batches((1,), []) == []
