"""What is plainly wrong with a compose file, found here and not on a host.

The tool on the host has the last word on what it accepts. This is for what it would refuse in any
version: text that is no YAML, a file without services, a service that needs one that is not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from deployguard.onhost.compose.stack import DEFAULT_FILES

__all__ = ["DEFAULT_FILES", "faults", "services_in"]

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def faults(files: Sequence[tuple[str, bytes]]) -> list[str]:
    """Each fault as ``FILE:LINE:COLUMN: what is wrong``; later files add to the earlier ones."""
    return _walk(files)[0]


def services_in(files: Sequence[tuple[str, bytes]]) -> list[str] | None:
    """The services that the files define; ``None`` where more may come from elsewhere."""
    found, services = _walk(files)
    if found:
        return None
    for _, data in files:
        root = yaml.compose(data.decode("utf-8"), Loader=_Loader)
        if not isinstance(root, yaml.MappingNode) or _value(root, "include") is not None:
            return None
    return list(services)


def _walk(
    files: Sequence[tuple[str, bytes]],
) -> tuple[list[str], dict[str, tuple[str, yaml.MappingNode]]]:
    found: list[str] = []
    services: dict[str, tuple[str, yaml.MappingNode]] = {}
    for name, data in files:
        try:
            root = yaml.compose(data.decode("utf-8"), Loader=_Loader)
        except UnicodeDecodeError:
            found.append(f"{name}: not UTF-8")
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
            found.append(f"{name}{place}: {error.problem or error.context}")
        except yaml.YAMLError as error:
            found.append(f"{name}: {' '.join(str(error).split())}")
        else:
            found += _read(name, root, services)
    if not found:
        for service, (name, node) in services.items():
            found += _needs(name, service, node, services)
    return found, services


def _read(
    name: str, root: yaml.Node | None, services: dict[str, tuple[str, yaml.MappingNode]]
) -> Iterator[str]:
    if not isinstance(root, yaml.MappingNode):
        yield f"{name}: holds no mapping"
        return
    block = _value(root, "services")
    if block is None:
        if _value(root, "include") is None and not services:
            yield f"{name}: has no services"
        return
    if not isinstance(block, yaml.MappingNode) or not block.value:
        yield f"{_place(name, block)}: services must be a mapping from names"
        return
    for key, value in block.value:
        if key.value == "<<" or str(key.value).startswith("x-"):
            if isinstance(value, yaml.MappingNode):
                services.update({str(k.value): (name, v) for k, v in value.value})
        elif not isinstance(value, yaml.MappingNode):
            yield f"{_place(name, value)}: service {key.value} must be a mapping"
        else:
            services[str(key.value)] = (name, value)


def _needs(
    name: str,
    service: str,
    node: yaml.MappingNode,
    services: dict[str, tuple[str, yaml.MappingNode]],
) -> Iterator[str]:
    needed = _value(node, "depends_on")
    entries: list[yaml.Node] = []
    if isinstance(needed, yaml.MappingNode):
        entries = [key for key, _ in needed.value]
    elif isinstance(needed, yaml.SequenceNode):
        entries = needed.value
    for entry in entries:
        if isinstance(entry, yaml.ScalarNode) and entry.value not in services:
            yield f"{_place(name, entry)}: {service} depends on {entry.value}, which is no service"


def _value(node: yaml.MappingNode, key: str) -> yaml.Node | None:
    return next((value for name, value in node.value if name.value == key), None)


def _place(name: str, node: yaml.Node) -> str:
    mark = node.start_mark
    return f"{name}:{mark.line + 1}:{mark.column + 1}"
