"""Reads what a compose tool prints of its own file: services, their images, who needs whom.

The host has no YAML parser. What is read here is not what people write: ``config`` prints the file
anew, resolved and in one canonical form (PyYAML's or Go's), in which indentation tells everything.
"""

from __future__ import annotations

import re
from typing import Dict, Iterable, List, NamedTuple, Sequence, Set

_LINE = re.compile(r"^( *)(- )?(.*)$")
_KEY = re.compile(r"""^("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s'"][^:]*):(?:\s+(.*))?$""")
_NEEDS = ("depends_on", "links", "volumes_from")
_TENDED = ("configs", "secrets", "pre_start", "post_start")


class Service(NamedTuple):
    """One service; ``image`` is empty where it has none of its own and is built.

    ``conditions`` says what has to be true of some of those that it needs before it is started;
    ``profiles`` which of them have to be asked for, or it is not part of the stack. With ``tended``
    there is more to its start than the engine does: compose 2 puts secrets and configs into the
    container and runs hooks.
    """

    name: str
    image: str
    build: bool
    needs: List[str]
    conditions: Dict[str, str]
    profiles: List[str]
    tended: bool


def services(text: str) -> Dict[str, Service]:
    """The services by name, in the order of the text; what they need is one of them."""
    found: Dict[str, Service] = {}
    inside, name, key = False, "", ""
    for line in text.splitlines():
        match = _LINE.match(line)
        assert match is not None
        indent, item, rest = len(match.group(1)), bool(match.group(2)), match.group(3)
        if not rest:
            continue
        if indent == 0 and not item:
            inside = rest.startswith("services:")
        elif inside and indent == 2 and not item:
            name, key = _key(rest)[0], ""
            found[name] = Service(name, "", False, [], {}, [], False)
        elif inside and name and indent == 4 and not item:
            key, value = _key(rest)
            found[name] = _with(found[name], key, value)
        elif inside and key in _NEEDS and ((item and indent in (4, 6)) or indent == 6):
            # A list of names, or a mapping from names; a link may have an alias behind a colon.
            needed = _scalar(rest).split(":")[0] if item else _key(rest)[0]
            found[name].needs.append(needed)
        elif inside and key == "depends_on" and indent == 8 and rest.startswith("condition:"):
            found[name].conditions[found[name].needs[-1]] = _key(rest)[1]
        elif inside and key == "profiles" and item and indent in (4, 6):
            found[name].profiles.append(_scalar(rest))
    return {
        one.name: one._replace(needs=[need for need in one.needs if need in found])
        for one in found.values()
    }


def asked_for(found: Dict[str, Service], profiles: Iterable[str]) -> Dict[str, Service]:
    """The services that are part of the stack when these profiles are asked for."""
    wanted = set(profiles)
    return {
        name: one for name, one in found.items() if not one.profiles or wanted & set(one.profiles)
    }


def levels(needs: Dict[str, Sequence[str]]) -> List[List[str]]:
    """The services in an order in which each comes after what it needs; those of a level together.

    What a circle keeps from its turn comes last.
    """
    ordered: List[List[str]] = []
    left = dict(needs)
    done: Set[str] = set()
    while left:
        ready = sorted(
            name for name, wants in left.items() if all(w in done or w not in needs for w in wants)
        )
        ready = ready or sorted(left)
        ordered.append(ready)
        done.update(ready)
        for name in ready:
            del left[name]
    return ordered


def _with(service: Service, key: str, value: str) -> Service:
    if key == "image":
        return service._replace(image=_scalar(value))
    if key == "build":
        return service._replace(build=True)
    if key in _TENDED:
        return service._replace(tended=True)
    if key in ("network_mode", "ipc", "pid") and _scalar(value).startswith("service:"):
        service.needs.append(_scalar(value)[len("service:") :])
    return service


def _key(text: str) -> List[str]:
    match = _KEY.match(text)
    if match is None:
        return [_scalar(text), ""]
    return [_scalar(match.group(1)), match.group(2) or ""]


def _scalar(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    return text
