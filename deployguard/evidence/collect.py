"""Which collectors a host runs: the data in ``forensics/``, filled in for a plan's components."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from deployguard.drivers.base import Site
from deployguard.drivers.registry import driver_of
from deployguard.errors import InternalError
from deployguard.onhost.evidence.collect import CollectorData
from deployguard.plan.model import Component, Plan
from deployguard.plan.quantity import parse_duration, parse_size

__all__ = ["collectors_for", "component_collectors", "forensics", "host_collectors"]

_NAME = re.compile(r"\{([a-z_]+)\}")
_KEYS = frozenset(CollectorData.__annotations__) - {"component", "manifest", "staged", "ignore"}


def forensics() -> Traversable:
    """The folder with the data: in the package when installed, at the top of a checkout."""
    installed = resources.files("deployguard") / "_forensics"
    if installed.is_dir():
        return installed
    return Path(__file__).resolve().parents[2] / "forensics"


def collectors_for(
    plan: Plan, components: Mapping[str, Component], sites: Mapping[str, Site]
) -> list[CollectorData]:
    """Everything to collect on one host, the machine first and the components in their order.

    A collector may take what the plan allows for the whole host, if its own data allows it too.
    """
    # The machine first: its load and its sockets are gone soonest.
    found = host_collectors([component.path for component in components.values()])
    for name, component in components.items():
        site = sites[name]
        manager = driver_of(component).process_probe(component, site)
        ignore = component.ignore
        found += component_collectors(name, site.tree, manager, ignore=ignore)
    evidence = plan.rescue.evidence
    for collector in found:
        collector["max_bytes"] = min(collector["max_bytes"], evidence.max_bytes)
        collector["max_seconds"] = min(collector["max_seconds"], evidence.max_seconds)
    return found


def component_collectors(
    component: str,
    path: str,
    manager: Mapping[str, Any],
    *,
    ignore: Sequence[str] = (),
    folder: Traversable | None = None,
) -> list[CollectorData]:
    """The collectors of one component.

    ``path`` is where the failed tree stands after the restore; ``manager`` says how to ask for
    its service (:class:`deployguard.onhost.probes.base.ProcessManager`), with ``log`` for the
    ``process`` driver, and is empty where there is none. The host adds ``manifest`` to a
    ``tree``: the file in which it keeps the manifest of what was live before.
    """
    user = manager.get("scope") == "user"
    values: dict[str, Any] = {
        "component": component,
        "path": path,
        "unit": manager.get("unit"),
        "scope": manager.get("scope", "system"),
        "user_flag": "--user" if user else "",
        "log": manager.get("log"),
        "pid_file": manager.get("pid_file"),
        "status": manager.get("argv"),
        "manager": manager,
    }
    found = _load(manager.get("driver", "none"), values, folder or forensics())
    for collector in found:
        collector["id"] = f"{component}/{collector['id']}"
        collector["component"] = component
        if collector["kind"] == "tree":
            collector["ignore"] = list(ignore)
        if collector["kind"] in ("command", "journal") and manager.get("env"):
            collector["env"] = dict(manager["env"])
    return found


def host_collectors(
    paths: Sequence[str], *, folder: Traversable | None = None
) -> list[CollectorData]:
    """The collectors of the machine; ``paths`` are those whose file systems matter."""
    found = _load("host", {"paths": sorted({"/", *paths})}, folder or forensics())
    for collector in found:
        collector["id"] = f"host/{collector['id']}"
    return found


def _load(name: str, values: Mapping[str, Any], folder: Traversable) -> list[CollectorData]:
    source = folder / f"{name}.yaml"
    try:
        document = yaml.safe_load(source.read_text(encoding="utf-8"))
        return [_fill(entry, values) for entry in document["collectors"]]
    except FileNotFoundError:
        raise InternalError(f"no forensics data for the driver {name}: {source}") from None
    except (KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise InternalError(f"{source} is not forensics data: {error}") from error


def _fill(entry: Mapping[str, Any], values: Mapping[str, Any]) -> CollectorData:
    unknown = set(entry) - _KEYS
    if unknown:
        raise ValueError(f"unknown keys {', '.join(sorted(unknown))} in {entry.get('id')}")
    filled: dict[str, Any] = {key: _value(value, values) for key, value in entry.items()}
    filled["max_bytes"] = parse_size(filled["max_bytes"])
    filled["max_seconds"] = parse_duration(filled["max_seconds"])
    collector: CollectorData = {"id": filled["id"], "kind": filled["kind"], "to": filled["to"]}
    collector.update(filled)  # type: ignore[typeddict-item]  # the keys were checked above
    return collector


def _value(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        items = (_value(item, values) for item in value)
        return [item for item in items if item != ""]
    if not isinstance(value, str):
        return value
    alone = _NAME.fullmatch(value)
    if alone:
        given = values[alone[1]]
        if isinstance(given, Mapping):
            return dict(given)
        return list(given) if isinstance(given, (list, tuple)) else given
    return _NAME.sub(lambda match: str(values[match[1]]), value)
