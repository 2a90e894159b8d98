"""What the release is going to need, against what is there: connections, memory, files, disk.

Each component declares what one instance of it needs; instances and hosts multiply it. A pool that
is larger than the database allows starts well on an empty staging, and brings production down.

How many connections PostgreSQL has to give is declared in the plan, or read from the server by the
plan's own `postgres` checks. A number may be read from a file of the release itself, since that is
where a release changes it.
"""

from __future__ import annotations

import configparser
import importlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from deployguard.guards.base import Answers, HostView, Known, Question, Unknown, Verdict
from deployguard.plan.model import Capacity, CapacityGuard, Plan, ReleaseValue
from deployguard.plan.order import components_on, hosts_in_order

__all__ = ["connections", "judge", "questions", "value_in"]

#: PostgreSQL's own default of `superuser_reserved_connections`.
_RESERVED = 3

_LIMIT_NOFILE = re.compile(r"^\s*LimitNOFILE\s*=\s*(\d+)", re.MULTILINE)


def questions(spec: CapacityGuard, plan: Plan, host: str) -> dict[str, Question]:
    """The limits of the host and of the units that run the components there."""
    asked: dict[str, Question] = {}
    for name in components_on(plan, host):
        need = spec.components.get(name)
        if need is None or (need.memory is None and need.open_files is None):
            continue
        service = plan.components[name].service
        systemd = service.systemd if service is not None else None
        asked[name] = {"kind": "limits"}
        if systemd is not None:
            asked[name] |= {"unit": systemd.unit, "scope": systemd.scope}
    return asked


def judge(spec: CapacityGuard, known: Known, answers: Answers) -> Iterator[Verdict]:
    """One verdict on the connections, and one for each host on the rest."""
    if any(need.connections is not None for need in spec.components.values()):
        try:
            yield _connections(spec, known)
        except Unknown as unknown:
            yield Verdict("capacity", False, f"{unknown} ({unknown.mend})")
    for host in known.hosts:
        yield from _host(spec, known, host, answers.get(host.name, {}))


# --- connections --------------------------------------------------------------------------------


def _connections(spec: CapacityGuard, known: Known) -> Verdict:
    needs: dict[str, int] = {}
    for name, need in spec.components.items():
        if need.connections is None:
            continue
        one = need.connections
        size = value_in(known, name, one) if isinstance(one, ReleaseValue) else one
        hosts = [h for h in hosts_in_order(known.plan) if name in components_on(known.plan, h)]
        needs[f"{name}: {_times(size, need, len(hosts))}"] = size * need.instances * len(hosts)
    declared = spec.postgresql
    if declared is not None and declared.max_connections is not None:
        reserved = _RESERVED if declared.reserved is None else declared.reserved
        most, whence = declared.max_connections, "max_connections in the plan"
    else:
        most, reserved, whence = _measured(known)
    others = declared.others if declared is not None else 0
    return connections(needs, most, reserved, others, whence)


def connections(
    needs: Mapping[str, int], most: int, reserved: int, others: int, whence: str
) -> Verdict:
    """Whether all pools fit into what the server gives. Pure.

    ``needs`` has the connections that each pool opens, by its words.
    """
    needed, free = sum(needs.values()), most - reserved - others
    pools = "; ".join(needs)
    kept = f"{reserved} of them reserved" + (f" and {others} for others" if others else "")
    if needed > free:
        words = (
            f"{needed} connections are needed ({pools}), and PostgreSQL has {max(free, 0)} to "
            f"give: {most}, {kept} ({whence}). Make the pools smaller, or raise max_connections"
        )
        return Verdict("capacity", False, words)
    return Verdict("capacity", True, f"{needed} of {free} connections ({pools})")


def _measured(known: Known) -> tuple[int, int, str]:
    """The smallest server that the plan's `postgres` checks found."""
    found: list[tuple[int, int, str]] = []
    for host in known.hosts:
        for check in (host.looked.get("baseline") or {}).get("checks", []):
            counted = (check.get("observed") or {}).get("connections")
            if check["layer"] == "postgres" and counted:
                whence = f"asked from {host.name}"
                found.append((int(counted["limit"]), int(counted["reserved"]), whence))
    if not found:
        raise Unknown(
            "how many connections PostgreSQL has is not known",
            "declare postgresql: {max_connections: …}, or add a `postgres` check to the component",
        )
    return min(found)


def _times(size: int, need: Capacity, hosts: int) -> str:
    instances = f" × {need.instances} instances" if need.instances > 1 else ""
    return f"{size}{instances}" + (f" × {hosts} hosts" if hosts > 1 else "")


# --- one host -----------------------------------------------------------------------------------


def _host(
    spec: CapacityGuard, known: Known, host: HostView, answers: Mapping[str, Any]
) -> Iterator[Verdict]:
    asked = {name: spec.components[name] for name in host.components if name in spec.components}
    wrong = [f"{a['unknown']} (look at the host)" for a in answers.values() if "unknown" in a]
    said: list[str] = []
    memory = {name: need.memory * need.instances for name, need in asked.items() if need.memory}
    if memory and not wrong:
        there = next(int(answers[name]["memory"]) for name in memory)
        total, free = sum(memory.values()), there - (spec.keep_memory or 0)
        said.append(f"{_size(total)} of {_size(free)} memory")
        if total > free:
            parts = ", ".join(f"{name} {_size(size)}" for name, size in memory.items())
            wrong.append(f"{_size(total)} of memory are needed ({parts}), and it has {_size(free)}")
    for name, need in asked.items():
        if need.open_files is not None and not wrong:
            most = _most_files(known, host, name, answers[name]["open_files"])
            said.append(f"{name} {need.open_files:,} of {most:,} open files")
            if need.open_files > most:
                words = f"{name} needs {need.open_files:,} open files, and its limit is {most:,}"
                wrong.append(f"{words} (raise LimitNOFILE)")
        if need.disk is not None:
            space = host.looked["components"][name]["space"]
            left = int(space["free_bytes"]) - int(space["needed_bytes"])
            said.append(f"{_size(need.disk)} of {_size(left)} on {space['path']}")
            if need.disk > left:
                words = f"{name} needs {_size(need.disk)} in {space['path']}, and {_size(left)} are"
                wrong.append(f"{words} free after the deploy")
    if wrong:
        yield Verdict("capacity", False, "; ".join(wrong), host.name)
    elif said:
        yield Verdict("capacity", True, ", ".join(said), host.name)


def _most_files(known: Known, host: HostView, name: str, there: Mapping[str, int]) -> int:
    """How many files one process of the component may open."""
    bounds = [there["process"], there["most"] - there["used"]]
    systemd = host.components[name].service
    unit = systemd.systemd if systemd is not None else None
    if unit is not None:
        declared = [
            int(match[1])
            for source in (unit.unit_file, *unit.drop_ins.values())
            if source is not None
            for match in _LIMIT_NOFILE.finditer(_text(known, source))
        ]
        # What the plan brings along counts, not what it is about to replace.
        if declared:
            bounds.append(declared[-1])
        elif "unit" in there:
            bounds.append(there["unit"])
    return min(bounds)


def _text(known: Known, source: str) -> str:
    path = os.path.join(os.path.dirname(known.plan.source), source)
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _size(count: int) -> str:
    for unit, length in (("GiB", 1024**3), ("MiB", 1024**2)):
        if abs(count) >= length:
            return f"{count / length:,.1f} {unit}"
    return f"{count:,} bytes"


# --- what the release says ----------------------------------------------------------------------


def value_in(known: Known, component: str, where: ReleaseValue) -> int:
    """A number in a file of the new release. Raises :class:`Unknown`."""
    place = f"{where.key} in {where.file} of {component}"
    data = known.read(component, where.file)
    if data is None:
        raise Unknown(f"the release of {component} has no file {where.file}", "mend capacity")
    try:
        value: Any = _parsed(where.file, data.decode("utf-8"))
        for part in where.key.split("."):
            value = value[part]
        number = int(value)
    except (KeyError, TypeError):
        raise Unknown(f"there is no {place}", "mend the key in capacity") from None
    except ValueError:
        raise Unknown(f"{place} is not a number", "mend the key in capacity") from None
    return number


def _parsed(name: str, text: str) -> Any:
    """The content of a configuration file as mappings. Raises ``ValueError``."""
    if name.endswith(".json"):
        return json.loads(text)
    if name.endswith((".yaml", ".yml")):
        import yaml

        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from None
    if name.endswith(".toml"):
        try:
            return importlib.import_module("tomllib").loads(text)
        except ImportError:
            raise Unknown(f"this Python does not read {name}", "use 3.11 or later") from None
    if name.endswith((".ini", ".cfg")):
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read_string(text)
        except configparser.Error as error:
            raise ValueError(str(error)) from None
        return {section: dict(parser[section]) for section in parser.sections()}
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {
        key.strip().removeprefix("export "): value.strip().strip("\"'")
        for key, _, value in pairs
        if not key.lstrip().startswith("#")
    }
